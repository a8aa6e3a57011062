use http::{Request, Uri, request::Parts, uri::PathAndQuery};

use crate::operation::BufferedBody;

/// A request with its whole body, whose head can be read separately.
///
/// The request is boxed, since it is moved many times on its way to the service.
#[derive(Debug)]
pub(crate) struct BufferedRequest {
    pub(crate) parts: Parts,
    pub(crate) body: BufferedBody,
    /// The URI by which the client knows the request, if it differs from the request's URI.
    pub(crate) target: Option<Uri>,
}

impl BufferedRequest {
    /// Returns the base of relative references in the response.
    pub(crate) fn base(&self) -> PathAndQuery {
        let target = self.target.as_ref().unwrap_or(&self.parts.uri);
        let path = target.path_and_query().cloned();
        path.unwrap_or_else(|| PathAndQuery::from_static("/"))
    }

    pub(super) fn into_request(self) -> Request<BufferedBody> {
        Request::from_parts(self.parts, self.body)
    }
}

impl From<Request<BufferedBody>> for BufferedRequest {
    fn from(request: Request<BufferedBody>) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            parts,
            body,
            target: None,
        }
    }
}
