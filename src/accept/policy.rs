use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Uri,
    header::{CONNECTION, CONTENT_TYPE, UPGRADE},
    request::Parts,
};

use super::{
    Idempotency,
    mode::{AppliedPreferences, Decision, Mode},
};
use crate::{
    dialect::{Preferences, original_uri, path_is_below},
    operation::OperationId,
    results::ResultStorage,
    run::{BufferedRequest, OperationHandle, RequestUpload, RunLimits, stored_request},
    settings::SharedSettings,
};

type Predicate = dyn Fn(&Parts) -> bool + Send + Sync;
type OriginalUriFn = dyn Fn(&Parts) -> Uri + Send + Sync;

/// The settings of one layer: its own and the shared ones.
#[derive(Clone)]
pub(super) struct Policy {
    accept_if: Arc<Predicate>,
    pub(super) mode: Mode,
    pub(super) max_wait: Duration,
    pub(super) shared: Arc<SharedSettings>,
    pub(super) idempotency: Option<Idempotency>,
    /// The largest request body, in bytes.
    pub(super) body_limit: u64,
    pub(super) body_timeout: Duration,
    pub(super) create_timeout: Duration,
    pub(super) run: RunLimits,
    pub(super) name: Option<Arc<str>>,
    /// Selects the requests that are stored for a rerun.
    rerun_if: Option<Arc<Predicate>>,
    /// Returns the URI by which the whole application knows a request.
    original_uri: Option<Arc<OriginalUriFn>>,
    pub(super) stores_credentials: bool,
    /// Whether requests are dispatched to workers.
    pub(super) dispatches: bool,
}

impl Policy {
    pub(super) fn new(shared: Arc<SharedSettings>, run: RunLimits, dispatches: bool) -> Self {
        Self {
            accept_if: Arc::new(accepts_by_default),
            mode: Mode::Always,
            max_wait: Duration::from_secs(30),
            shared,
            idempotency: None,
            body_limit: 2 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            create_timeout: Duration::from_secs(5),
            run,
            name: None,
            rerun_if: None,
            original_uri: None,
            stores_credentials: false,
            dispatches,
        }
    }

    pub(super) fn set_accept_if(&mut self, which: Arc<Predicate>) {
        self.accept_if = which;
    }

    pub(super) fn set_rerun_if(&mut self, predicate: Arc<Predicate>) {
        self.rerun_if = Some(predicate);
    }

    pub(super) fn set_original_uri(&mut self, target: Arc<OriginalUriFn>) {
        self.original_uri = Some(target);
    }

    /// Returns whether this request is stored for a rerun.
    pub(super) fn keeps(&self, parts: &Parts) -> bool {
        if self.dispatches {
            return true;
        }
        let may = self.rerun_if.as_ref();
        may.is_some_and(|may| may(parts))
    }

    /// Returns the URI by which the whole application knows the request, if it differs from the
    /// URI of the request.
    pub(super) fn original_uri_of(&self, parts: &Parts) -> Option<Uri> {
        match &self.original_uri {
            Some(target) => Some(target(parts)),
            None => {
                let original = original_uri(parts)?;
                self.shared.accepted_below(original, &parts.uri);
                Some(original.clone())
            }
        }
    }

    /// Returns how long a repetition waits for the first request to be answered.
    pub(super) fn key_wait(&self) -> Duration {
        let rules = self.idempotency.as_ref();
        rules.map(|rules| rules.max_wait).unwrap_or_default()
    }

    /// Returns the stored form of the request, if it can be stored.
    pub(super) fn stored_form(&self, request: &BufferedRequest) -> Option<Bytes> {
        let (parts, body) = (&request.parts, &request.body);
        stored_request::store(parts, request.target(), body, self.stores_credentials)
    }

    /// Returns the upload of the request's body, if the request can be stored.
    #[cold]
    pub(super) fn upload(
        &self,
        request: &BufferedRequest,
        results: &ResultStorage,
        id: &OperationId,
    ) -> Option<RequestUpload> {
        let (parts, body) = (&request.parts, &request.body);
        let target = request.target();
        let head =
            stored_request::store_without_body(parts, target, body, self.stores_credentials)?;
        Some(RequestUpload::new(results, id.clone(), head, body.clone()))
    }

    /// Returns the decision for this request, and the preferences that its response
    /// reports.
    pub(super) fn decide(
        &self,
        parts: &Parts,
        class: RequestClass,
    ) -> (Decision, AppliedPreferences) {
        if class == RequestClass::Acceptable {
            let preferences = Preferences::from_headers(&parts.headers);
            let needs_preference = self.shared.dialect.needs_preference();
            // A dispatched request cannot be awaited here.
            let preferences = match self.dispatches {
                true => preferences.without_wait(),
                false => preferences,
            };
            (self.mode).decide(preferences, self.max_wait, needs_preference)
        } else {
            (Decision::Pass, AppliedPreferences::default())
        }
    }

    /// Classifies a request.
    ///
    /// Requests to the operations themselves are never accepted, nor are requests that an
    /// outer layer has accepted: either would make operations of operations.
    pub(super) fn classify(&self, parts: &Parts) -> RequestClass {
        let public_path = self.shared.locator.at();
        if path_is_below(parts.uri.path(), public_path)
            || original_uri(parts).is_some_and(|uri| path_is_below(uri.path(), public_path))
            || parts.extensions.get::<OperationHandle>().is_some()
        {
            return RequestClass::OfOperations;
        }
        match (self.accept_if)(parts) {
            true => RequestClass::Acceptable,
            false => RequestClass::Another,
        }
    }
}

/// The class of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestClass {
    /// The request may become an operation.
    Acceptable,
    /// The request only passes through.
    Another,
    /// The request passes through: its target is the operations, or an outer layer has accepted
    /// it. It is drained elsewhere.
    OfOperations,
}

/// Returns whether a request is accepted unless
/// [`AsyncAcceptLayer::accept_if`](super::AsyncAcceptLayer::accept_if) says otherwise:
/// `POST`, `PUT`, `PATCH` and `DELETE`, but no upgrades (RFC 9110, section 7.8) and no gRPC
/// (`application/grpc*`).
#[must_use]
pub fn accepts_by_default(parts: &Parts) -> bool {
    let changes = matches!(
        parts.method,
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE
    );
    changes && !is_upgrade(parts) && !is_grpc(parts)
}

fn is_upgrade(parts: &Parts) -> bool {
    parts.headers.contains_key(UPGRADE)
        && parts.headers.get_all(CONNECTION).iter().any(|value| {
            let mut options = value.as_bytes().split(|byte| *byte == b',');
            options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
}

fn is_grpc(parts: &Parts) -> bool {
    let media_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    media_type
        .and_then(|media_type| media_type.get(..b"application/grpc".len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("body_limit", &self.body_limit)
            .field("body_timeout", &self.body_timeout)
            .field("run", &self.run)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
