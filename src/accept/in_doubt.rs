//! Running operations that may have been created, for refused requests that are repeated.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tracing::Instrument;

use super::{creation::Creation, race_creator::RaceTries, submission::Submission};
use crate::{
    environment,
    operation::RecordedResponse,
    run::{Handler, Readiness, RunContext, Runtime, afterwards, retry_until_certain},
    store::{Lease, LeaseHandle, Reader, Record, StoreError},
};

impl<S, R> Submission<S, R>
where
    S: Handler<Body: 'static> + Clone + 'static,
    R: Lease<Output = RecordedResponse>,
{
    /// Runs the operation in a task, if the operation has been created after all. The request
    /// was refused because the creation was in doubt. The request has a key: a repetition, at
    /// any moment and on any node, finds the operation and is answered with it.
    ///
    /// The request keeps its place in flight meanwhile, so the bound on requests in memory
    /// holds.
    pub(super) fn run_if_created(mut self) {
        // Until the operation exists, the key is free for a repetition, and the service for
        // other requests.
        drop(self.reserved.take());
        self.service = self.service.clone();
        let span = self.span.clone();
        let run = async move {
            let term = self.creation.lease_term(&self.node);
            let in_flight = Arc::clone(&self.node.in_flight);
            let found = {
                let found = find(&self.node, &self.creation, term);
                tokio::pin!(found);
                tokio::select! {
                    biased;
                    found = found.as_mut() => found,
                    // No more requests are admitted: a drain waits only for answers and
                    // runs.
                    () = in_flight.closed().cancelled() => {
                        self.admitted = None;
                        found.await
                    }
                }
            };
            let record = match found {
                // The pending time is over: no client expects the operation to start.
                Ok(Some(record)) if self.policy.run.is_overdue(&record) => {
                    return self.creation.disown(&self.node, self.admitted);
                }
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(error) => {
                    let id = &self.creation.new.id;
                    tracing::warn!(%id, error = error.report(), "operation may exist, left to expire");
                    return;
                }
            };
            // The client has been answered.
            let (sender, _) = oneshot::channel();
            self.run_or_dispatch(record, Readiness::Unknown, sender)
                .await;
        };
        environment::spawn(Box::pin(run.instrument(span)));
    }
}

/// Looks for the operation of this creator, and renews its lease, which was not renewed
/// while the creation was in doubt. Returns `None` if the operation does not exist, has
/// ended, or was reclaimed.
///
/// An operation that does not exist yet may still be created by a slow connection. The
/// operation is looked for until its lease would be over.
pub(super) async fn find<R>(
    node: &Runtime<R>,
    creation: &Creation,
    term: Duration,
) -> Result<Option<Record<RecordedResponse>>, StoreError>
where
    R: Lease<Output = RecordedResponse>,
{
    let begun = Instant::now();
    loop {
        let id = &creation.new.id;
        let reader = Reader::new(creation.new.owner.as_ref()).with_max_body(0);
        let found = retry_until_certain(node, Some(id), || node.store.get_for(id, reader));
        match found.await? {
            Some(record) if record.is_held_by(creation.new.token) => {
                let is_held = renew(node, creation).await?;
                return Ok(is_held.then_some(record));
            }
            Some(_) => return Ok(None),
            None if begun.elapsed() < term => sleep(term / 10).await,
            None => return Ok(None),
        }
    }
}

/// Renews the lease of an operation that its creator holds; false if the lease is lost.
pub(super) async fn renew<R>(node: &Runtime<R>, creation: &Creation) -> Result<bool, StoreError>
where
    R: Lease<Output = RecordedResponse>,
{
    let held = LeaseHandle {
        id: creation.new.id.clone(),
        token: creation.new.token,
    };
    let lease = creation.new.lease.as_ref().unwrap_or_else(|| node.lease());
    let lost = retry_until_certain(node, Some(&held.id), || {
        node.store.renew(lease, std::slice::from_ref(&held))
    });
    Ok(lost.await?.is_empty())
}

impl Creation {
    /// Turns the call into the operation, in a task, if the operation has been created after
    /// all. Ends the operation if the call has been answered by then. The request has a key, so
    /// a repetition finds the operation. `admitted` is the place in flight.
    pub(super) fn accept_if_created<R, P>(
        mut self,
        node: &Arc<Runtime<R>>,
        work: Arc<RunContext>,
        tries: Arc<RaceTries>,
        admitted: P,
    ) where
        R: Lease<Output = RecordedResponse>,
        P: Send + 'static,
    {
        // The store may be unavailable for long.
        self.drop_request();
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
            tries.set_found(record);
            let is_accepted = match work.gate() {
                Some(gate) => gate.accept().await.is_ok(),
                None => false,
            };
            // Unless a later try of the handler has accepted the operation.
            if !is_accepted && tries.take_found().is_some() {
                self.disown(&node, node.in_flight.admit_anyway());
            }
        };
        environment::spawn(Box::pin(accept.in_current_span()));
    }
}
