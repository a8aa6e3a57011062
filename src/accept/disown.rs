//! Ending operations that may have been created for refused requests.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::creation::Creation;
use crate::{
    environment,
    operation::{FailureKind, OperationId, Outcome, RecordedResponse},
    run::{Runtime, afterwards, retry_until_certain},
    store::{FencingToken, Lease, Written},
};

impl Creation {
    /// Ends the operation in a task, if the operation may have been created. The request of the
    /// operation has been refused; `admitted` is the place in flight.
    ///
    /// Nothing else of the request is kept, since the store may be unavailable for long.
    pub(super) fn disown<R, P>(&self, node: &Arc<Runtime<R>>, admitted: P)
    where
        R: Lease<Output = RecordedResponse>,
        P: Send + 'static,
    {
        if self.in_doubt.load(Relaxed) == 0 {
            return;
        }
        let (id, token) = (self.new.id.clone(), self.new.token);
        let term = self.lease_term(node);
        let node = Arc::clone(node);
        let disowned = async move {
            let ended = end(&node, &id, token, term);
            afterwards(&node.in_flight, admitted, ended).await;
        };
        environment::spawn(disowned.in_current_span());
    }
}

/// Ends the operation as soon as the store answers. An operation that does not exist yet may
/// still be created by a slow connection. The operation is therefore looked for until its lease
/// would have expired.
async fn end<R>(node: &Runtime<R>, id: &OperationId, token: FencingToken, term: Duration)
where
    R: Lease<Output = RecordedResponse>,
{
    let begun = Instant::now();
    loop {
        let ended = retry_until_certain(node, Some(id), || {
            let interrupted = Outcome::failed(FailureKind::Interrupted);
            node.store.finish(id, token, interrupted, None)
        });
        match ended.await {
            Ok(Written::Gone) if begun.elapsed() < term => sleep(term / 10).await,
            Ok(Written::Done(record)) => return node.ended(&record),
            Ok(Written::Gone | Written::Lost(_)) => return,
            Err(error) => {
                tracing::warn!(%id, error = error.report(), "operation may exist, left to expire");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use bytes::Bytes;

    use super::*;
    use crate::{
        accept::{policy::Policy, refuse::Refusal},
        run::{Drain, RunLimits},
        store::{MemoryStore, NewOperation, Repository, Store},
    };

    fn in_doubt(new: NewOperation) -> Creation {
        let mut creation = Creation::new(new, true);
        *creation.in_doubt.get_mut() = 1;
        creation
    }

    #[tokio::test]
    async fn an_operation_in_doubt_is_ended_after_its_request_is_refused() {
        let store = MemoryStore::new();
        let node = Arc::new(Runtime::new(store.clone()));
        let new = NewOperation::new(OperationId::new());
        // The store answered this try too late.
        store.create(new.clone()).await.unwrap();
        let drain = Drain::new(Arc::clone(&node.in_flight));
        drain.drain(Duration::ZERO).await;

        let id = new.id.clone();
        let mut creation = in_doubt(new);
        let made = creation.create(&node, &policy(), || ()).await;
        assert!(matches!(made, Err(Refusal::Closed)));
        creation.disown(&node, ());
        tokio::task::yield_now().await;
        let record = store.get(&id).await.unwrap().unwrap();
        let problem = record.operation().problem().expect("it was ended");
        assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    }

    fn policy() -> Policy {
        Policy::new(Arc::default(), RunLimits::default(), false)
    }

    /// The bytes of a request, for as long as they are referenced.
    struct RetainedBytes(Arc<[u8]>);

    impl AsRef<[u8]> for RetainedBytes {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_search_for_an_operation_in_doubt_keeps_its_place_in_flight_but_not_its_request() {
        let node = Arc::new(Runtime::new(MemoryStore::new()));
        let bytes: Arc<[u8]> = Arc::from(&b"Q3"[..]);
        let kept: Weak<[u8]> = Arc::downgrade(&bytes);
        let request = Bytes::from_owner(RetainedBytes(bytes));
        let new = NewOperation::new(OperationId::new()).with_request(Some(request));
        let creation = in_doubt(new);
        // The operation does not exist yet, and may be created late.
        creation.disown(&node, node.in_flight.admit().unwrap());
        drop(creation);
        assert_eq!(kept.strong_count(), 0, "its request is kept");
        let drain = Drain::new(Arc::clone(&node.in_flight));
        sleep(node.lease().term / 2).await;
        assert_eq!(drain.in_flight().operations, 1);
        sleep(node.lease().term).await;
        assert_eq!(drain.in_flight().operations, 0);

        // A drain does not wait for this.
        let creation = in_doubt(NewOperation::new(OperationId::new()));
        creation.disown(&node, node.in_flight.admit().unwrap());
        let report = drain.drain(node.lease().term).await;
        assert_eq!(report.took, Duration::ZERO);
        assert!(report.is_clean(), "{report:?}");
    }
}
