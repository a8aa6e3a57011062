use std::{fmt, panic::panic_any, sync::Arc, time::Duration};

use tokio::time::sleep;
use tower_operations::{
    store::{StoreError, StoreResult},
    testing::TaskGroup,
};

use super::{Bucket, bucket::BucketState};
use crate::{ORDERED_PANIC, engine::CallFate};

/// The time for which some lost calls are silent. It is longer than a run.
const LONG_SILENCE: Duration = Duration::from_secs(20);

/// A result store as a process of a node reaches it.
#[derive(Clone)]
pub(crate) struct SimulatedResults {
    pub(super) bucket: Arc<Bucket>,
    pub(super) node: usize,
    /// The tasks of the process.
    pub(super) tasks: TaskGroup,
}

impl SimulatedResults {
    /// Makes a call.
    pub(super) async fn call<A>(
        &self,
        apply: impl FnOnce(&mut BucketState) -> A + Send,
    ) -> StoreResult<A> {
        let fate = self.send_or_panic().await?;
        let answer = apply(&mut self.bucket.state());
        self.receive(&fate).await?;
        Ok(answer)
    }

    /// Sends a request, which arrives unless there is an error.
    pub(super) async fn send(&self) -> StoreResult<CallFate> {
        let fate = self.bucket.network.draw();
        sleep(fate.there).await;
        if self.bucket.network.is_away() {
            return Err(StoreError::unavailable("the result store is away"));
        }
        if fate.loses_request {
            sleep(fate.silence).await;
            return Err(StoreError::unavailable("the request was lost"));
        }
        Ok(fate)
    }

    /// Does the same for a call that no client waits for. Some calls panic, or are silent for long.
    pub(super) async fn send_or_panic(&self) -> StoreResult<CallFate> {
        let sent = self.send().await;
        if sent.is_err() {
            let (panics, is_long) = {
                let random = &mut self.bucket.state().random;
                (random.one_in(8), random.one_in(16))
            };
            if panics {
                panic_any(ORDERED_PANIC);
            }
            if is_long {
                sleep(LONG_SILENCE).await;
            }
        }
        sent
    }

    /// Receives the answer to a request.
    pub(super) async fn receive(&self, fate: &CallFate) -> StoreResult<()> {
        if fate.loses_answer {
            sleep(fate.silence).await;
            return Err(StoreError::unavailable("the answer was lost"));
        }
        if !fate.back.is_zero() {
            sleep(fate.back).await;
        }
        Ok(())
    }
}

impl fmt::Debug for SimulatedResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedResults")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
