use http::{Request, Uri, request::Parts, uri::PathAndQuery};

use super::stored_request::{BodyReference, StoredRequest};
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
    /// The place of the body in a result store, from where it is read before the service is called.
    pub(crate) reference: Option<Box<BodyReference>>,
}

impl BufferedRequest {
    /// Returns the URI by which the client knows the request.
    pub(crate) fn target(&self) -> &Uri {
        self.target.as_ref().unwrap_or(&self.parts.uri)
    }

    /// Returns the base of relative references in the response.
    pub(crate) fn base(&self) -> PathAndQuery {
        let path = self.target().path_and_query().cloned();
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
            reference: None,
        }
    }
}

impl From<StoredRequest> for BufferedRequest {
    fn from(StoredRequest { request, reference }: StoredRequest) -> Self {
        Self {
            reference: reference.map(Box::new),
            ..request.into()
        }
    }
}
