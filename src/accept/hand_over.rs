//! From a whole request to an operation that runs by itself.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use tokio::{sync::oneshot, time::timeout};
use tower::{BoxError, Service, ServiceExt};
use tracing::Span;

use super::{RequestBody, policy::Policy, refuse::Refusal};
use crate::{
    dialect::Urls,
    operation::{OperationId, RecordedResponse, WholeBody},
    run::{AcceptedRequest, Admitted, Node, operate, until_answered},
    store::{Created, Lease, NewOperation, Record, StoreError},
};

/// A request that was let in, and what it needs to become an operation.
pub(super) struct Arriving<S, R> {
    pub(super) inner: S,
    pub(super) node: Arc<Node<R>>,
    pub(super) policy: Arc<Policy>,
    pub(super) parts: Parts,
    pub(super) admitted: Admitted,
}

/// What the client is told, as soon as it is known.
pub(super) struct Creating {
    pub(super) created: oneshot::Receiver<Result<Arc<Record<RecordedResponse>>, Refusal>>,
    pub(super) policy: Arc<Policy>,
    pub(super) urls: Urls,
    pub(super) version: http::Version,
}

impl<S, R> Arriving<S, R>
where
    R: Lease<Output = RecordedResponse>,
{
    /// Creates the operation and runs it, in a task of its own: neither depends
    /// on the client from here on.
    pub(super) fn hand_over<B, C>(self, body: WholeBody) -> Creating
    where
        S: Service<Request<RequestBody<B>>, Response = Response<C>> + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        B: Body<Data = Bytes> + Send + 'static,
        C: Body<Data = Bytes> + Send,
        C::Error: Into<BoxError> + Send,
    {
        let Self {
            inner,
            node,
            policy,
            parts,
            admitted,
        } = self;
        let id = OperationId::new();
        // Hooks of the application run before there is anything to lose.
        let urls = policy.locator.urls(&parts, &id);
        let new = NewOperation::new(id)
            .method(parts.method.clone())
            .name(policy.name.clone())
            .lease(node.lease.clone());
        let (tell, created) = oneshot::channel();
        let creating = Creating {
            created,
            policy: Arc::clone(&policy),
            urls,
            version: parts.version,
        };
        let request_span = Span::current();
        let service =
            inner.map_request(|request: Request<WholeBody>| request.map(RequestBody::<B>::whole));
        tokio::spawn(async move {
            let record = match create(&node, new, policy.create_timeout).await {
                Ok(record) => record,
                Err(refusal) => {
                    let _ = tell.send(Err(refusal));
                    return;
                }
            };
            let request = Request::from_parts(parts, body);
            let accepted = request_span.in_scope(|| AcceptedRequest::new(&record, request));
            drop(request_span);
            // The client may be gone; the operation is not.
            let _ = tell.send(Ok(record));
            // An error was logged where it happened.
            let _ = operate(node, policy.run, service, accepted.admitted(admitted)).await;
        });
        creating
    }
}

/// Writes the operation to the store.
///
/// An error can hide a success, so the same id is tried again until the answer
/// is certain or the time is up. If it never is, the operation that may exist
/// is never run.
async fn create<R>(
    node: &Node<R>,
    new: NewOperation,
    at_most: Duration,
) -> Result<Arc<Record<RecordedResponse>>, Refusal>
where
    R: Lease<Output = RecordedResponse>,
{
    let abandoned = node.in_flight.abandoned();
    if abandoned.is_cancelled() {
        return Err(Refusal::Closed);
    }
    let certain = until_answered(abandoned, || async {
        match node.store.create(new.clone()).await {
            // Certain: there is no operation. The client may try again.
            Err(StoreError::Full) => Ok(None),
            created => created.map(Some),
        }
    });
    let error = match timeout(at_most, certain).await {
        // The id is new, so what exists is what an earlier try created.
        Ok(Ok(Some(Created::New(record) | Created::Existing(record)))) => return Ok(record),
        Ok(Ok(Some(Created::IdTaken | Created::KeyHeld(_)))) => "the id is taken".into(),
        Ok(Ok(None)) => StoreError::Full.to_string(),
        Ok(Err(error)) => error.chain(),
        Err(_) => "the store did not answer in time".into(),
    };
    tracing::error!(id = %new.id, error, "an operation could not be created");
    Err(Refusal::Unavailable)
}
