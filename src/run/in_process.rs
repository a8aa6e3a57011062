use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use super::{AcceptedRequest, Leaving, Take, Taken, operate, turn::end_turn};
use crate::{
    operation::{RecordedResponse, WholeBody},
    store::Lease,
};

/// Requests are run where they were accepted: the default of
/// [`AsyncAcceptLayer`](crate::AsyncAcceptLayer).
#[derive(Debug, Clone, Copy)]
pub struct InProcess {
    _none: (),
}

impl InProcess {
    pub(crate) const HERE: Self = Self { _none: () };
}

impl<S, B, R> Take<S, R> for InProcess
where
    S: Service<Request<WholeBody>, Response = Response<B>> + Send,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BoxError> + Send,
    R: Lease<Output = RecordedResponse>,
{
    /// Runs it, to its end.
    async fn take(&self, leaving: Leaving<S, R>, tell: impl FnOnce(Taken) + Send) {
        let Leaving {
            node,
            limits,
            service,
            record,
            request,
            stored,
            admitted,
            span,
            ..
        } = leaving;
        let kept = stored.is_some();
        let accepted = span.in_scope(|| AcceptedRequest::kept(&record, request, kept));
        drop((span, stored));
        // The client may be gone; the operation is not.
        tell(Taken::Yes(record));
        crash_point!("accepted");
        // The answer does not wait for what the service does in its first turn.
        end_turn().await;
        // An error was logged where it happened.
        let _ = operate(node, limits, service, accepted.admitted(admitted)).await;
    }
}
