//! Refusing requests before an operation exists.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response, Version,
    header::{CONNECTION, EXPECT},
    request::Parts,
};
use http_body::Body;
use tokio::sync::oneshot;

use super::{lent_body::RemainingBody, policy::Policy, request_body::discard};
use crate::{
    dialect::{ApiError, Bound, RequestName},
    environment,
    operation::{BufferedBody, FailureKind, InvalidId, OperationId},
    run::{AdmissionError, BytesExceeded, InFlight},
    store::{Record, StoreError},
};

/// The reason why a request is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    FullForOwner,
    /// The body does not fit into the memory for bodies and results.
    BytesExceeded(BytesExceeded),
    /// The store has no room for the operation.
    StoreFull,
    StoreFullForOwner,
    Closed,
    BodyTooLarge,
    BodyTimeout,
    BodyUnreadable,
    /// The operation could not be created.
    Unavailable,
    KeyMissing,
    /// The key is malformed or too short; a key needs this many characters.
    KeyInvalid {
        value: Box<str>,
        shortest: usize,
    },
    ClientIdInvalid {
        value: Box<str>,
        why: InvalidId,
    },
    /// The key came with another request before.
    KeyReused(RequestName),
    /// The first request with the key is still being answered.
    KeyInUse(RequestName),
    /// The id belongs to another owner.
    Taken(OperationId),
    /// The inner service gave no answer, and there was no operation yet.
    Failed(FailureKind),
    /// The name stands for this operation, which was deleted.
    Deleted(OperationId, RequestName),
}

impl From<AdmissionError> for Refusal {
    fn from(refused: AdmissionError) -> Self {
        match refused {
            AdmissionError::Full => Self::Full,
            AdmissionError::FullForOwner => Self::FullForOwner,
            AdmissionError::Closed => Self::Closed,
        }
    }
}

impl From<BytesExceeded> for Refusal {
    fn from(exceeded: BytesExceeded) -> Self {
        Self::BytesExceeded(exceeded)
    }
}

impl Refusal {
    /// Returns the refusal for a store without room; `None` for any other error.
    pub(super) fn of_full_store(error: &StoreError) -> Option<Self> {
        match error {
            StoreError::Full => Some(Self::StoreFull),
            StoreError::FullForOwner => Some(Self::StoreFullForOwner),
            StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::TooLarge { .. } => {
                None
            }
        }
    }

    /// Returns the refusal of a repetition whose operation was deleted.
    pub(super) fn deleted<T>(record: &Record<T>, name: RequestName) -> Self {
        Self::Deleted(record.operation().id().clone(), name)
    }

    /// Returns the response. `closes` says that the rest of the body cannot be read, so
    /// HTTP/1 closes the connection.
    pub(super) fn response(
        &self,
        policy: &Policy,
        version: Version,
        closes: bool,
    ) -> Response<BufferedBody> {
        let retry_after = policy.shared.retry_after.retry_after(Duration::ZERO);
        let overloaded = |bound| ApiError::Overloaded { bound, retry_after };
        let fault = match self {
            Self::Full => overloaded(Bound::InFlight),
            Self::FullForOwner => overloaded(Bound::InFlightPerOwner),
            Self::BytesExceeded(BytesExceeded::ForAll) => overloaded(Bound::BytesInFlight),
            Self::BytesExceeded(BytesExceeded::ForOwner) => {
                overloaded(Bound::BytesInFlightPerOwner)
            }
            Self::StoreFull => overloaded(Bound::Store),
            Self::StoreFullForOwner => overloaded(Bound::StorePerOwner),
            Self::Closed => ApiError::ShuttingDown { retry_after },
            Self::BodyTooLarge => ApiError::BodyTooLarge {
                limit: policy.body_limit,
            },
            Self::BodyTimeout => ApiError::BodyTimeout,
            Self::BodyUnreadable => ApiError::BodyUnreadable,
            Self::Unavailable => ApiError::Unavailable { retry_after },
            Self::KeyMissing => ApiError::KeyMissing,
            Self::KeyInvalid { value, shortest } => ApiError::KeyInvalid {
                value: value.clone(),
                shortest: *shortest,
            },
            Self::ClientIdInvalid { value, why } => ApiError::InvalidId {
                field: Some("Operation-Id"),
                value: value.clone(),
                why: *why,
            },
            Self::KeyReused(name) => ApiError::KeyReused { name: name.clone() },
            Self::KeyInUse(name) => ApiError::KeyInUse {
                name: name.clone(),
                retry_after,
            },
            Self::Taken(id) => ApiError::IdTaken { id: id.clone() },
            Self::Failed(kind) => ApiError::Failed { kind: *kind },
            Self::Deleted(id, name) => ApiError::Deleted {
                id: id.clone(),
                name: name.clone(),
            },
        };
        let mut response = policy.shared.dialect.error(&fault);
        fault.add_headers(response.headers_mut());
        response.extensions_mut().insert(fault);
        if closes && version <= Version::HTTP_11 {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Everything that a refusal at the end of a drain needs.
pub(super) struct DrainRefusal {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) policy: Arc<Policy>,
    pub(super) version: Version,
    /// Whether the request may become an operation.
    pub(super) is_acceptable: bool,
    pub(super) rest: RemainingBody,
}

impl DrainRefusal {
    /// Returns the response, once the call was dropped.
    pub(super) fn response(&self) -> Response<BufferedBody> {
        refuse_given_up(&self.policy, &Refusal::Closed, self.version, &self.rest)
    }
}

/// Refuses a request whose call was dropped, with the rest of its body.
pub(super) fn refuse_given_up(
    policy: &Policy,
    refusal: &Refusal,
    version: Version,
    rest: &RemainingBody,
) -> Response<BufferedBody> {
    let mut response = refusal.response(policy, version, rest.is_unread());
    rest.discard_after(version, &mut response);
    response
}

/// Refuses a request whose body is unread.
pub(super) fn refuse_unread<B>(
    policy: &Policy,
    refusal: &Refusal,
    parts: &Parts,
    body: B,
) -> Response<BufferedBody>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let unread = !body.is_end_stream();
    // A client that awaits a `100 Continue` may now omit the body or send it: the start of
    // a next request is unknown.
    let open = *refusal == Refusal::BodyTooLarge || parts.headers.contains_key(EXPECT);
    let mut response = refusal.response(policy, parts.version, unread && open);
    if unread {
        discard_after(parts.version, &mut response, Box::pin(body));
    }
    response
}

/// Discards the rest of the body of an HTTP/1 request once the client has been answered.
/// HTTP/2 resets the stream by itself.
///
/// The rest is not read earlier: before the answer, reading would ask a client that awaits
/// a `100 Continue` to send. The head of the answer is sent when the server drops its
/// extensions.
pub(super) fn discard_after<B>(
    version: Version,
    response: &mut Response<BufferedBody>,
    rest: Pin<Box<B>>,
) where
    B: Body<Data = Bytes> + Send + 'static,
{
    if version <= Version::HTTP_11 {
        let (sender, answered) = oneshot::channel();
        response.extensions_mut().insert(AnswerGuard {
            _until_dropped: Arc::new(sender),
        });
        environment::spawn(discard(rest, answered));
    }
}

/// A guard in the extensions of an answer, dropped once the head is sent.
#[derive(Clone)]
struct AnswerGuard {
    _until_dropped: Arc<oneshot::Sender<Infallible>>,
}
