use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::RequestBody;
use crate::BoxError;

/// An alias for the bounds on the wrapped service: a service over `http` that can be called
/// in a task of its own, and whose response can be recorded.
///
/// `B` is the body of the server's requests.
pub(super) trait Inner<B>:
    Service<
        Request<RequestBody<B>>,
        Response = Response<Self::Body>,
        Error: Into<BoxError> + Send,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
    /// The body of the responses.
    type Body: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static;
}

impl<S, B, C> Inner<B> for S
where
    S: Service<Request<RequestBody<B>>, Response = Response<C>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    C: Body<Data = Bytes> + Send + 'static,
    C::Error: Into<BoxError> + Send,
{
    type Body = C;
}
