use std::{fmt, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS},
};

use crate::operation::{BufferedBody, RecordedResponse};

/// The rules by which the result resource replays a recorded response: which header fields
/// are kept, and how they are changed.
///
/// The default keeps all fields except those of [`not_replayed`]. Fields that describe an
/// operation to its pollers are never replayed: `Retry-After`, `Operation-Result`,
/// `Operation-Location`, `Operation-Id`, `Azure-AsyncOperation`, `AsyncResult`,
/// `X-Progress` and `X-MS-Continuation-Token`.
#[derive(Clone)]
pub struct Replay {
    keep: Arc<KeepFn>,
    change: Option<Arc<ChangeFieldsFn>>,
    /// Whether the application has chosen neither.
    is_default: bool,
}

type KeepFn = dyn Fn(&HeaderName) -> bool + Send + Sync;
type ChangeFieldsFn = dyn Fn(&RecordedResponse, &mut HeaderMap) + Send + Sync;

/// Returns whether a field belongs to the original response rather than to its content. These
/// fields depend on:
///
/// * the time: `Date`, `Age`, `Expires`, and the caching fields of gateways,
///   `Surrogate-Control` and those that end in `-Cache-Control` (RFC 9213);
/// * the URL: `ETag` and `Last-Modified`, which would govern conditional requests to the
///   result resource (RFC 9110, section 13), and `Accept-Ranges`;
/// * the client: `Set-Cookie`, `WWW-Authenticate`, `Proxy-Authenticate`,
///   `Authentication-Info`, `Proxy-Authentication-Info` and `Access-Control-*`;
/// * the whole origin: `Alt-Svc`, `Clear-Site-Data`, `Strict-Transport-Security`,
///   `Public-Key-Pins` and its `-Report-Only`, `Expect-CT`, `NEL`, `Report-To`,
///   `Reporting-Endpoints`, `Service-Worker-Allowed`, `Accept-CH`, `Critical-CH`,
///   `Origin-Agent-Cluster` and `Use-As-Dictionary`;
/// * the page: `Refresh`.
#[must_use]
pub fn not_replayed(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "accept-ch"
            | "accept-ranges"
            | "age"
            | "alt-svc"
            | "authentication-info"
            | "clear-site-data"
            | "critical-ch"
            | "date"
            | "etag"
            | "expect-ct"
            | "expires"
            | "last-modified"
            | "nel"
            | "origin-agent-cluster"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "public-key-pins"
            | "public-key-pins-report-only"
            | "refresh"
            | "report-to"
            | "reporting-endpoints"
            | "service-worker-allowed"
            | "set-cookie"
            | "strict-transport-security"
            | "surrogate-control"
            | "use-as-dictionary"
            | "www-authenticate"
    ) || name.starts_with("access-control-")
        || name.ends_with("-cache-control")
}

/// Returns whether a field describes an operation to its pollers in some dialect.
fn is_for_polls(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "retry-after"
            | "operation-result"
            | "operation-location"
            | "operation-id"
            | "azure-asyncoperation"
            | "asyncresult"
            | "x-progress"
            | "x-ms-continuation-token"
    )
}

/// Returns whether a response with this status has no content (RFC 9110, sections 15.3.5, 15.3.6
/// and 15.4.5).
fn has_no_content(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            is_default: true,
            ..Self::only(|name| !not_replayed(name))
        }
    }
}

const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

impl Replay {
    /// Keeps only the fields for which `keep` returns `true`.
    #[must_use]
    pub fn only(keep: impl Fn(&HeaderName) -> bool + Send + Sync + 'static) -> Self {
        Self {
            keep: Arc::new(keep),
            change: None,
            is_default: false,
        }
    }

    /// Adds a function that changes the fields of each replayed response. The function sees
    /// the final fields, except those that a dialect adds, and the validator and the digest. It
    /// turns these and ranges off by setting `Accept-Ranges: none`.
    #[must_use]
    pub fn changed(
        self,
        change: impl Fn(&RecordedResponse, &mut HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        Self {
            change: Some(Arc::new(change)),
            is_default: false,
            ..self
        }
    }

    /// Replaces the filter: keeps the fields for which `keep` returns `true`.
    pub(crate) fn keeping(
        self,
        keep: impl Fn(&HeaderName) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            keep: Arc::new(keep),
            is_default: false,
            ..self
        }
    }

    /// Returns whether the application has not chosen the fields.
    pub(crate) fn is_default(&self) -> bool {
        self.is_default
    }

    /// Returns the recorded response without the fields that are not replayed, and with
    /// `Cache-Control: private, no-store` and `X-Content-Type-Options: nosniff`. A response
    /// that is not final, with a status outside 200 to 599, is sent as 500. A status that
    /// has no content (204, 205 and 304) is sent without the recorded body.
    ///
    /// A response whose [body was not read](RecordedResponse::body) has an empty one, and an
    /// extension by which the [`PollService`](crate::PollService) notices. The service then reads the
    /// body and asks its dialect for the response again. So return this response, or keep its
    /// extensions.
    #[must_use]
    pub fn response(&self, recorded: &RecordedResponse) -> Response<BufferedBody> {
        let mut response = recorded.replayed();
        let is_read = recorded.body().is_some();
        // Without content there is nothing to add.
        if recorded.status() == StatusCode::OK || !is_read && !has_no_content(recorded.status()) {
            let replayed = Replayed(recorded.clone());
            response.extensions_mut().insert(replayed);
        }
        if !recorded.is_final() {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        if has_no_content(response.status()) {
            *response.body_mut() = BufferedBody::default();
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        let headers = response.headers_mut();
        let dropped: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_for_polls(name) || !(self.keep)(name))
            .cloned()
            .collect();
        for name in dropped {
            headers.remove(name);
        }
        headers.insert(CACHE_CONTROL, PRIVATE);
        // Without this field, browsers would guess the type of content that users wrote.
        headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        // Without a body that could be read, the response is only a step to the one that is sent.
        if let Some(change) = &self.change
            && (is_read || recorded.uploader().is_some())
        {
            change(recorded, headers);
        }
        response
    }
}

/// An extension of a replay that is not complete yet: the recorded response.
#[derive(Debug, Clone)]
pub(crate) struct Replayed(RecordedResponse);

/// A response of a dialect.
#[derive(Debug)]
pub(crate) enum Shown {
    /// The response is complete.
    Complete(Response<BufferedBody>),
    /// The response is the unchanged replay of a recorded 200, still without its validator.
    Replay(Response<BufferedBody>, RecordedResponse),
    /// The response replays a body that was not read.
    Unread,
    /// The response is the head of a replay whose body is in a result store.
    Apart(Response<BufferedBody>, RecordedResponse),
}

impl Replayed {
    /// Removes the extension. The replay of a 200 is one as long as it has the recorded status and
    /// bytes: a dialect may have changed them.
    pub(crate) fn take(mut response: Response<BufferedBody>) -> Shown {
        let Some(Self(recorded)) = response.extensions_mut().remove() else {
            return Shown::Complete(response);
        };
        let sent = response.body().data();
        let Some(whole) = recorded.body() else {
            return match (recorded.uploader(), sent.is_empty()) {
                (None, _) => Shown::Unread,
                (Some(_), true) => Shown::Apart(response, recorded),
                // The body of the dialect.
                (Some(_), false) => Shown::Complete(response),
            };
        };
        let is_whole = sent.len() == whole.len()
            && (sent.is_empty() || std::ptr::eq(sent.as_ptr(), whole.as_ptr()));
        match response.status() == StatusCode::OK && is_whole {
            true => Shown::Replay(response, recorded),
            false => Shown::Complete(response),
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}
