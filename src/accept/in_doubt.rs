//! Operations that may have been created, for requests that were refused and come again.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tracing::Instrument;

use super::{
    create::CreateOutcome,
    departure::{Departure, take},
    hand_over::Wanted,
};
use crate::{
    operation::RecordedResponse,
    run::{Handler, Runtime, retry_until_certain},
    store::{Lease, Record, StoreError},
};

impl<S, R> Departure<S, R>
where
    S: Handler<Body: 'static> + 'static,
    R: Lease<Output = RecordedResponse>,
{
    /// Runs the operation in a task, if it has been created after all. Its request was
    /// refused since that was in doubt, and has a key: a repetition finds this operation,
    /// at any moment and on any node, and is answered with it.
    ///
    /// The request keeps its place in flight meanwhile, so the bound on requests in memory
    /// holds.
    pub(super) fn run_if_created(mut self) {
        // Until the operation is there the key is free for a repetition.
        drop(self.reserved.take());
        let span = self.span.clone();
        let run = async move {
            let term = self.wanted.lease_term(&self.node);
            let in_flight = Arc::clone(&self.node.in_flight);
            let found = {
                let found = find(&self.node, &self.wanted, term);
                tokio::pin!(found);
                tokio::select! {
                    biased;
                    found = found.as_mut() => found,
                    // Nothing more is let in: a drain waits for answers and runs alone.
                    () = in_flight.closed().cancelled() => {
                        self.admitted = None;
                        found.await
                    }
                }
            };
            let record = match found {
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(error) => {
                    let id = &self.wanted.new.id;
                    tracing::warn!(%id, error = error.chain(), "operation may exist, and will lapse");
                    return;
                }
            };
            if let ControlFlow::Continue(leaving) = self.leave(Ok(CreateOutcome::New(record))) {
                // Its client has been answered.
                let (tell, _) = oneshot::channel();
                take(leaving, tell).await;
            }
        };
        tokio::spawn(Box::pin(run.instrument(span)));
    }
}

/// The operation, if this creator made it and it has not ended. An operation that is
/// not there yet may still come, from a connection that is slow: it is looked for until its
/// lease would be over.
pub(super) async fn find<R>(
    node: &Runtime<R>,
    wanted: &Wanted,
    term: Duration,
) -> Result<Option<Arc<Record<RecordedResponse>>>, StoreError>
where
    R: Lease<Output = RecordedResponse>,
{
    let begun = Instant::now();
    loop {
        let id = &wanted.new.id;
        let found = retry_until_certain(node, Some(id), || node.store.get(id));
        match found.await? {
            Some(record) => return Ok(Some(record).filter(|it| it.is_held_by(wanted.new.token))),
            None if begun.elapsed() < term => sleep(term / 10).await,
            None => return Ok(None),
        }
    }
}
