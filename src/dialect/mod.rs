//! Wire formats: how operations appear in requests and responses.
//!
//! A [`Dialect`] parses requests to the operations' resources and writes the responses. A
//! dialect is pure: it sees the method, path, query and headers of the request, a borrowed
//! operation and its URLs, and nothing else. Store calls, owners, conditional requests
//! (`ETag`, `If-None-Match`, `If-Match`), `HEAD` and `OPTIONS` are handled by the service
//! and are the same in every dialect.
//!
//! [`Plain`] is the default. The [guide](crate::guide::dialects) compares the dialects and
//! shows how to write one.

mod accept;
mod accepted;
mod answers;
mod api_error;
mod arm;
mod azure;
mod context;
mod durable_functions;
mod error;
mod event;
mod fhir;
mod google;
mod ipa;
mod object;
mod odata;
mod ogc;
mod plain;
mod poll_request;
mod prefer;
mod replay;
mod retry_after;
mod routes;
pub(crate) mod url;

use std::sync::Arc;

pub use accepted::Accepted;
pub use api_error::{ApiError, Bound, RequestName};
pub use arm::Arm;
pub use azure::Azure;
pub use context::Context;
pub use durable_functions::DurableFunctions;
pub use event::Event;
pub use fhir::Fhir;
pub use google::Google;
use http::Response;
pub use ipa::Ipa;
pub use odata::OData;
pub use ogc::Ogc;
pub use plain::Plain;
pub use poll_request::{Action, ListPage, ListParams, OnTerminal, PollRequest, RequestView};
pub use prefer::Preferences;
pub use replay::{Replay, not_replayed};
pub(crate) use replay::{Replayed, Shown};
pub(crate) use retry_after::whole_seconds;
pub use retry_after::{AdaptiveRetryAfter, RetryAfter};
use url::query;
pub(crate) use url::{ForwardingHeader, absolute, original_uri, part_of, path_is_below, unescaped};
pub use url::{InvalidPublicUrl, Locator, Urls};

use crate::operation::{BufferedBody, OperationId, OperationView};

/// A wire format for operations. See the [module](self).
///
/// The service adds `ETag` and the headers that come with it to the responses, so a dialect
/// does not have to.
pub trait Dialect: std::fmt::Debug + Send + Sync + 'static {
    /// Parses a request to the operations' resources.
    ///
    /// `HEAD` arrives as `GET`. `OPTIONS` arrives unchanged; the service answers it with
    /// the `allow` of the [`ApiError::MethodNotAllowed`] that this method returns.
    ///
    /// # Errors
    /// Returns an [`ApiError`] if the request cannot be answered.
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError>;

    /// Returns the response to a request that was accepted.
    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody>;

    /// Returns the response that shows the operation.
    ///
    /// # Errors
    /// Returns an [`ApiError`] if the operation cannot be shown, or must look as if it did not
    /// exist. The same applies to [`result`](Self::result) and [`ended`](Self::ended).
    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer;

    /// Returns the result of the operation, or the response that is sent in place of a result.
    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer;

    /// Returns the response to a cancellation; the operation has ended.
    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer;

    /// Returns the response to a request that deleted the operation.
    fn deleted(&self, id: &OperationId) -> Response<BufferedBody>;

    /// Returns whether only requests with `Prefer: respond-async` (RFC 7240, section 4.1) are
    /// accepted, whatever else the application chose. The default is `false`.
    fn needs_preference(&self) -> bool {
        false
    }

    /// Returns whether a [page](Self::list) shows results, up to the limit of its contexts. The
    /// store then reads their bodies. The default is true.
    fn lists_results(&self) -> bool {
        true
    }

    /// Returns whether a request for the result may be answered with a 303 to a
    /// [signed URL](crate::results::ResultStore::signed_url). The default is true. It is false where
    /// the polls themselves are answered with the result: their clients expect no redirect.
    fn redirects_results(&self) -> bool {
        true
    }

    /// Returns a page of operations, newest first. The default is the format of [`Plain`].
    fn list(&self, page: &ListPage<'_>) -> Answer {
        Plain::default().list(page)
    }

    /// Returns the operation as an event of an event stream. The default is the format of
    /// [`Plain`].
    ///
    /// # Errors
    /// Returns an [`ApiError`], which ends the stream.
    fn event(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Result<Event, ApiError> {
        Plain::default().event(operation, context)
    }

    /// Returns the response for an error that this crate raised.
    fn error(&self, fault: &ApiError) -> Response<BufferedBody>;
}

/// A response, or the error to answer with instead.
pub type Answer = Result<Response<BufferedBody>, ApiError>;

/// Allows the dialect to be chosen at run time.
impl<D: Dialect + ?Sized> Dialect for Arc<D> {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        (**self).parse(request)
    }

    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody> {
        (**self).accepted(operation, context)
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        (**self).status(operation, context)
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        (**self).result(operation, context)
    }

    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        (**self).ended(operation, context)
    }

    fn deleted(&self, id: &OperationId) -> Response<BufferedBody> {
        (**self).deleted(id)
    }

    fn needs_preference(&self) -> bool {
        (**self).needs_preference()
    }

    fn lists_results(&self) -> bool {
        (**self).lists_results()
    }

    fn redirects_results(&self) -> bool {
        (**self).redirects_results()
    }

    fn list(&self, page: &ListPage<'_>) -> Answer {
        (**self).list(page)
    }

    fn event(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Result<Event, ApiError> {
        (**self).event(operation, context)
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        (**self).error(fault)
    }
}
