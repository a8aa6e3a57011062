use http::{Request, request::Parts};

use crate::operation::WholeBody;

/// A request with its whole body, whose head can be looked at by itself.
///
/// It is kept on the heap: on its way to the service it is handed on many times.
#[derive(Debug)]
pub(crate) struct WholeRequest {
    pub(crate) parts: Parts,
    pub(crate) body: WholeBody,
}

impl WholeRequest {
    pub(super) fn into_request(self) -> Request<WholeBody> {
        Request::from_parts(self.parts, self.body)
    }
}

impl From<Request<WholeBody>> for WholeRequest {
    fn from(request: Request<WholeBody>) -> Self {
        let (parts, body) = request.into_parts();
        Self { parts, body }
    }
}
