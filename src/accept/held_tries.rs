//! Tries to create the operation of a held call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Instrument;

use super::{hand_over::Wanted, in_doubt::find, refuse::Refusal};
use crate::{
    operation::RecordedResponse,
    run::{RunContext, Runtime, afterwards},
    store::{Lease, Record},
};

/// The results of the tries to create the operation of one held call.
#[derive(Default)]
pub(super) struct HeldTries(Mutex<TriesState>);

#[derive(Default)]
struct TriesState {
    /// The error of the last failed try.
    refusal: Option<Refusal>,
    /// The operation, if one of the tries turned out to have created it.
    found: Option<Arc<Record<RecordedResponse>>>,
}

impl HeldTries {
    pub(super) fn set_refusal(&self, why: Refusal) {
        self.lock().refusal = Some(why);
    }

    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        self.lock().refusal.take()
    }

    pub(super) fn take_found(&self) -> Option<Arc<Record<RecordedResponse>>> {
        self.lock().found.take()
    }

    fn lock(&self) -> MutexGuard<'_, TriesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    /// Turns the call into the operation, in a task, if the operation has been created after
    /// all. Ends the operation if the call has been answered by then. The request has a key, so
    /// a repetition finds the operation. `admitted` is the place in flight.
    pub(super) fn accept_if_created<R, P>(
        mut self,
        node: &Arc<Runtime<R>>,
        work: Arc<RunContext>,
        tries: Arc<HeldTries>,
        admitted: P,
    ) where
        R: Lease<Output = RecordedResponse>,
        P: Send + 'static,
    {
        // The store may be unavailable for long.
        self.new.request = None;
        let node = Arc::clone(node);
        let accept = async move {
            let term = self.lease_term(&node);
            let looked = find(&node, &self, term);
            let record = match afterwards(&node.in_flight, admitted, looked).await {
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(error) => {
                    let id = &self.new.id;
                    tracing::warn!(%id, error = error.report(), "operation may exist, left to expire");
                    return;
                }
            };
            tries.lock().found = Some(record);
            let is_accepted = match work.gate() {
                Some(gate) => gate.accept().await.is_ok(),
                None => false,
            };
            // Unless a later try of the handler has accepted the operation.
            if !is_accepted && tries.take_found().is_some() {
                self.disown(&node, node.in_flight.admit_anyway());
            }
        };
        tokio::spawn(Box::pin(accept.in_current_span()));
    }
}
