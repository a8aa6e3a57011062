//! How an operation is *spoken* on the wire.
//!
//! A [`Dialect`] turns requests into what they ask, and operations into
//! answers. It is pure: it sees the request's method, path, query and headers,
//! a borrowed operation and its URLs, and nothing else. Store calls, owners,
//! conditional requests (`ETag`, `If-None-Match`, `If-Match`), `HEAD` and
//! `OPTIONS` are the same in every dialect, and no dialect's business.
//!
//! [`Plain`] is the default. The [guide](crate::guide::dialects) has the others side by
//! side, and one of your own.

mod accept;
mod accepted;
mod answers;
mod api_error;
mod arm;
mod authority;
mod azure;
mod context;
mod durable_functions;
mod error;
mod event;
mod fhir;
pub(crate) mod forwarded;
mod google;
mod ipa;
mod locator;
mod object;
mod odata;
mod ogc;
mod path;
mod plain;
mod poll_request;
mod prefer;
mod query;
mod replay;
mod retry_after;
mod routes;
mod urls;

pub use accepted::Accepted;
pub use api_error::{ApiError, Bound, RequestName};
pub use arm::Arm;
pub use azure::Azure;
pub use context::Context;
pub use durable_functions::DurableFunctions;
pub use event::Event;
pub use fhir::Fhir;
pub use google::Google;
pub use ipa::Ipa;
pub use locator::{InvalidPublicUrl, Locator};
pub use odata::OData;
pub use ogc::Ogc;
pub use plain::Plain;
pub use poll_request::{Action, ListPage, ListParams, OnTerminal, PollRequest, RequestView};
pub use prefer::Preferences;
pub use replay::{Replay, not_replayed};
pub use retry_after::{AdaptiveRetryAfter, RetryAfter};
pub use urls::Urls;

pub(crate) use forwarded::ForwardingHeader;
pub(crate) use locator::{absolute, path_is_below};
pub(crate) use path::{part_of, unescaped};
pub(crate) use retry_after::whole_seconds;

use std::sync::Arc;

use http::Response;

use crate::operation::{BufferedBody, OperationId, OperationView};

/// A vocabulary for operations on the wire. See the [module](self).
///
/// Answers need no `ETag`, and none of the headers that come with one; the
/// service adds them.
pub trait Dialect: std::fmt::Debug + Send + Sync + 'static {
    /// What a request to the operations' resources asks.
    ///
    /// `HEAD` arrives as `GET`. `OPTIONS` arrives as it is; the answer is the
    /// `allow` of the [`ApiError::MethodNotAllowed`] that it gets here.
    ///
    /// # Errors
    /// An [`ApiError`] if it asks nothing that can be answered.
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError>;

    /// The answer to a request that was accepted.
    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody>;

    /// The operation itself.
    ///
    /// # Errors
    /// An [`ApiError`] where the operation is to look as if it were not there, or
    /// cannot be shown. The same goes for [`result`](Self::result) and
    /// [`ended`](Self::ended).
    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer;

    /// The result of the operation, or what there is in its place.
    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer;

    /// The answer to a cancel: the operation has ended.
    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer;

    /// The answer to a request that made the operation be forgotten.
    fn deleted(&self, id: &OperationId) -> Response<BufferedBody>;

    /// Whether only those requests are accepted that say `Prefer: respond-async`
    /// (RFC 7240, section 4.1), whatever else the application chose. By default not.
    fn needs_preference(&self) -> bool {
        false
    }

    /// A page of operations, newest first. By default as [`Plain`] words it.
    fn list(&self, page: &ListPage<'_>) -> Answer {
        Plain::default().list(page)
    }

    /// An operation in an event stream. By default as [`Plain`] words it.
    ///
    /// # Errors
    /// An [`ApiError`] ends the stream.
    fn event(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Result<Event, ApiError> {
        Plain::default().event(operation, context)
    }

    /// An error of this crate's own making.
    fn error(&self, fault: &ApiError) -> Response<BufferedBody>;
}

/// An answer, or the fault there is in its stead.
pub type Answer = Result<Response<BufferedBody>, ApiError>;

/// A dialect that is chosen at run time.
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
