use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Uri,
    header::{CONNECTION, CONTENT_TYPE, UPGRADE},
    request::Parts,
};

use super::{
    ExtractOwner, Idempotency,
    mode::{AppliedPreferences, Decision, Mode},
};
use crate::{
    dialect::{
        AdaptiveRetryAfter, Dialect, Locator, Plain, Preferences, Replay, RetryAfter, path_is_below,
    },
    run::{BufferedRequest, OperationHandle, RunLimits, stored_request},
    store::Owner,
};

type Predicate = dyn Fn(&Parts) -> bool + Send + Sync;
type OriginalUriFn = dyn Fn(&Parts) -> Uri + Send + Sync;

/// What may differ from route to route; what they share is in the node.
#[derive(Clone)]
pub(super) struct Policy {
    accept_if: Arc<Predicate>,
    pub(super) mode: Mode,
    pub(super) max_wait: Duration,
    owner: Option<Arc<dyn ExtractOwner>>,
    pub(super) idempotency: Option<Idempotency>,
    /// In bytes.
    pub(super) body_limit: u64,
    pub(super) body_timeout: Duration,
    pub(super) create_timeout: Duration,
    pub(super) run: RunLimits,
    pub(super) locator: Locator,
    pub(super) retry_after: Arc<dyn RetryAfter>,
    pub(super) dialect: Arc<dyn Dialect>,
    pub(super) replay: Replay,
    pub(super) name: Option<Arc<str>>,
    /// Which requests are kept to be run again.
    rerun_if: Option<Arc<Predicate>>,
    /// The target by which the whole application knows a request.
    original_uri: Option<Arc<OriginalUriFn>>,
    pub(super) stores_credentials: bool,
    /// Requests are run elsewhere.
    pub(super) hands_off: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            accept_if: Arc::new(accepts_by_default),
            mode: Mode::Always,
            max_wait: Duration::from_secs(30),
            owner: None,
            idempotency: None,
            body_limit: 2 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            create_timeout: Duration::from_secs(5),
            run: RunLimits::default(),
            locator: Locator::default(),
            retry_after: Arc::new(AdaptiveRetryAfter),
            dialect: Arc::new(Plain::default()),
            replay: Replay::default(),
            name: None,
            rerun_if: None,
            original_uri: None,
            stores_credentials: false,
            hands_off: false,
        }
    }
}

/// The URI that axum's outermost router has seen, where nested ones took a prefix off.
#[cfg(feature = "axum")]
fn original_uri(parts: &Parts) -> Option<Uri> {
    let axum::extract::OriginalUri(original) = parts.extensions.get()?;
    (*original != parts.uri).then(|| original.clone())
}

#[cfg(not(feature = "axum"))]
fn original_uri(_: &Parts) -> Option<Uri> {
    None
}

impl Policy {
    pub(super) fn set_accept_if(&mut self, which: Arc<Predicate>) {
        self.accept_if = which;
    }

    pub(super) fn set_rerun_if(&mut self, predicate: Arc<Predicate>) {
        self.rerun_if = Some(predicate);
    }

    pub(super) fn set_original_uri(&mut self, target: Arc<OriginalUriFn>) {
        self.original_uri = Some(target);
    }

    /// Whether this request is kept to be run again.
    pub(super) fn keeps(&self, parts: &Parts) -> bool {
        if self.hands_off {
            return true;
        }
        let may = self.rerun_if.as_ref();
        may.is_some_and(|may| may(parts))
    }

    /// The target by which the whole application knows it, where that is another.
    pub(super) fn original_uri_of(&self, parts: &Parts) -> Option<Uri> {
        match &self.original_uri {
            Some(target) => Some(target(parts)),
            None => original_uri(parts),
        }
    }

    /// What is kept of it.
    pub(super) fn kept(&self, request: &BufferedRequest) -> Option<Bytes> {
        let BufferedRequest {
            parts,
            body,
            target,
        } = request;
        let target = target.as_ref().unwrap_or(&parts.uri);
        stored_request::store(parts, target, body, self.stores_credentials)
    }

    pub(super) fn set_owner(&mut self, owner: Arc<dyn ExtractOwner>) {
        self.owner = Some(owner);
    }

    pub(super) fn owner(&self, parts: &Parts) -> Option<Owner> {
        self.owner.as_ref().and_then(|owner| owner.owner(parts))
    }

    /// Whether it matters whose a request is.
    pub(super) fn knows_owners(&self) -> bool {
        self.owner.is_some()
    }

    /// What this request gets, and what is said of its preferences.
    pub(super) fn way(
        &self,
        parts: &Parts,
        concern: RequestClass,
    ) -> (Decision, AppliedPreferences) {
        if concern == RequestClass::Acceptable {
            let preferences = Preferences::from_headers(&parts.headers);
            let needs_preference = self.dialect.needs_preference();
            // What runs elsewhere cannot be waited for here.
            let preferences = match self.hands_off {
                true => preferences.without_wait(),
                false => preferences,
            };
            (self.mode).of(preferences, self.max_wait, needs_preference)
        } else {
            (Decision::Pass, AppliedPreferences::default())
        }
    }

    /// What this request is to the layer.
    ///
    /// Those to the operations themselves are never accepted, nor those that an outer
    /// layer has accepted: either would make operations of operations.
    pub(super) fn concern(&self, parts: &Parts) -> RequestClass {
        if path_is_below(parts.uri.path(), self.locator.at())
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

/// What a request is to the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestClass {
    /// It may become an operation.
    Acceptable,
    /// It only passes through.
    Another,
    /// It passes through, and asks for operations or is one: others look after it.
    OfOperations,
}

/// Which requests are accepted unless
/// [`AsyncAcceptLayer::accept_if`](super::AsyncAcceptLayer::accept_if) says otherwise:
/// `POST`, `PUT`, `PATCH` and `DELETE`, but no upgrades (RFC 9110, section 7.8)
/// and no gRPC (`application/grpc*`).
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
            .field("locator", &self.locator)
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}
