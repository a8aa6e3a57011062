use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{BoxError, operation::BufferedBody};

/// An alias for the bounds on the service that runs accepted requests: it takes buffered
/// requests, can be called in a task of its own, and its response can be recorded.
pub(crate) trait Handler:
    Service<
        Request<BufferedBody>,
        Response = Response<Self::Body>,
        Error: Into<BoxError> + Send,
        Future: Send,
    > + Send
{
    /// The body of the responses.
    type Body: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send;
}

impl<S, C> Handler for S
where
    S: Service<Request<BufferedBody>, Response = Response<C>> + Send,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    C: Body<Data = Bytes> + Send,
    C::Error: Into<BoxError> + Send,
{
    type Body = C;
}
