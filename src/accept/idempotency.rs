use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use sha2::{Digest, Sha256};

use super::refuse::Refusal;
use crate::{
    dialect::RequestName,
    operation::{InvalidId, OperationId},
    run::LONGEST_WAIT,
    store::IdempotencyKey,
};

type FingerprintFn = dyn Fn(&Parts, &Bytes) -> Vec<u8> + Send + Sync;

/// Idempotency settings: repeated requests with the same key run once.
///
/// A client names a request by `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header)
/// and repeats it with the same key if it does not know the outcome:
///
/// * The same key with the same request, of the same owner, gives the same 202 and `Location`.
///   The inner service runs once, however many requests come at the same moment, on any node.
/// * The same key with another request is 422. Keys are scoped by owner: the same key of
///   another owner is another key.
/// * A request that was answered 503 because the store did not say in time whether its operation
///   was created can be repeated with its key. The operation then runs once, whether the first
///   request or the repetition created it. Where the inner service is called first, a call that
///   was answered before its operation was found leaves that operation `interrupted`.
/// * A repetition needs a [place in flight](crate::Operations::max_in_flight) like any other
///   request, since its body is collected for the fingerprint.
/// * While the first request is being answered, repetitions wait for a time and then get 409.
/// * An answer without an operation ([after](super::AsyncAcceptLayer::after) a time, or [when
///   signaled](super::AsyncAcceptLayer::when_signaled)) below 500 is stored and repeated. An
///   answer of 500 or above, or a disconnected client, frees the key. A crash frees the key once
///   its lease has expired. If the store does not store the answer [in
///   time](super::AsyncAcceptLayer::create_timeout), the answer is sent all the same, and the key
///   stays in use while the store renews its reservation. After that a repetition runs again.
///
/// A key is a structured-field string (RFC 9651, section 3.3.3) of at most 255 characters.
/// Without known owners a key needs at least 16 characters, since only the key separates
/// clients. With known owners, all requests without an owner share their keys. An outer layer
/// should refuse such requests if they come from unrelated clients. The body of a request with a
/// key is collected in every mode. The fingerprint covers the URI that the layer sees, so nested
/// routers that share a store should use different [fingerprints](Self::fingerprint).
#[derive(Clone)]
#[must_use]
pub struct Idempotency {
    required: bool,
    bare: bool,
    client_ids: bool,
    fingerprint: Arc<FingerprintFn>,
    pub(super) max_wait: Duration,
}

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static OPERATION_ID: HeaderName = HeaderName::from_static("operation-id");

/// The greatest length of a key, and the smallest where the layer knows no owners, in
/// characters.
const LONGEST: usize = 255;
const SHORTEST_WITHOUT_OWNER: usize = 16;

impl Idempotency {
    /// Accepts requests with and without a key.
    pub fn optional() -> Self {
        Self {
            required: false,
            bare: false,
            client_ids: false,
            fingerprint: Arc::new(whole_request),
            max_wait: Duration::from_secs(10),
        }
    }

    /// Refuses requests without a key, with 400.
    pub fn required() -> Self {
        Self {
            required: true,
            ..Self::optional()
        }
    }

    /// Accepts keys without quotes too, which many clients send.
    pub fn bare_tokens(self) -> Self {
        Self { bare: true, ..self }
    }

    /// Sets the function that returns the fingerprint of a request. Two requests are the same if
    /// their fingerprints are equal; the fingerprints are compared as SHA-256 digests. By
    /// default the fingerprint covers method, path, query and body. Set another one where a
    /// repetition differs in bytes: multipart bodies, for example, differ in the boundary.
    pub fn fingerprint(
        self,
        of: impl Fn(&Parts, &Bytes) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self {
            fingerprint: Arc::new(of),
            ..self
        }
    }

    /// Lets clients choose the id of the operation, in `Operation-Id`. The same rules
    /// apply: the same id with the same request gives the same operation, with another
    /// request it is 422, and an id of another owner is 409.
    pub fn client_ids(self) -> Self {
        Self {
            client_ids: true,
            ..self
        }
    }

    /// Sets how long a repetition waits for the first request to be answered; 10 seconds by
    /// default, at most 15 minutes.
    pub fn max_wait(self, limit: Duration) -> Self {
        Self {
            max_wait: limit.min(LONGEST_WAIT),
            ..self
        }
    }

    /// Returns whether the body of this request is needed for its fingerprint.
    pub(super) fn concerns(&self, headers: &HeaderMap) -> bool {
        self.required
            || headers.contains_key(&IDEMPOTENCY_KEY)
            || (self.client_ids && headers.contains_key(&OPERATION_ID))
    }

    /// Returns the id that the client chose for the operation, where that is allowed.
    pub(super) fn client_id(&self, parts: &Parts) -> Result<Option<OperationId>, Refusal> {
        match self.client_ids {
            true => client_id(&parts.headers),
            false => Ok(None),
        }
    }

    /// Returns the key of a request: the key that the request names, or one that stands for the
    /// `id` that it names. `owned` says whether the layer knows owners; the operation of the key
    /// names the owner.
    pub(super) fn key(
        &self,
        parts: &Parts,
        body: &Bytes,
        id: Option<&OperationId>,
        owned: bool,
    ) -> Result<Option<IdempotencyKey>, Refusal> {
        let shortest = if owned { 1 } else { SHORTEST_WITHOUT_OWNER };
        let invalid = || Refusal::KeyInvalid {
            value: all_of(&parts.headers, &IDEMPOTENCY_KEY),
            shortest,
        };
        let mut values = parts.headers.get_all(&IDEMPOTENCY_KEY).iter();
        let name = match (values.next(), values.next()) {
            (None, _) if self.required => return Err(Refusal::KeyMissing),
            (None, _) => {
                return Ok(id.map(|id| self.named(&format!("{ID}{id}"), parts, body, None)));
            }
            (Some(value), None) => self.parse(value.as_bytes()).ok_or_else(invalid)?,
            (Some(_), Some(_)) => return Err(invalid()),
        };
        if name.len() < shortest || name.len() > LONGEST {
            return Err(invalid());
        }
        Ok(Some(self.named(&format!("{KEY}{name}"), parts, body, id)))
    }

    /// Returns the key of this name. The `id` is part of the digest: the same key with another
    /// id is another request.
    fn named(
        &self,
        name: &str,
        parts: &Parts,
        body: &Bytes,
        id: Option<&OperationId>,
    ) -> IdempotencyKey {
        let mut digest = Sha256::new();
        if let Some(id) = id {
            digest.update(format!("{id}\n"));
        }
        digest.update((self.fingerprint)(parts, body));
        IdempotencyKey::new(None, name, digest.finalize().into())
    }

    pub(crate) fn parse(&self, value: &[u8]) -> Option<String> {
        let value = value.trim_ascii();
        match value.strip_prefix(b"\"") {
            Some(rest) => quoted(rest),
            None if self.bare => bare(value),
            None => None,
        }
    }
}

/// The prefixes of the names of keys in a store: of an `Idempotency-Key`, and of an
/// `Operation-Id`.
const KEY: &str = "key:";
const ID: &str = "id:";

/// Returns the name that the client of a key has sent.
pub(super) fn request_name(key: &IdempotencyKey) -> RequestName {
    let id = key.name.strip_prefix(ID).and_then(|id| id.parse().ok());
    match id {
        Some(id) => RequestName::Id(id),
        None => RequestName::Key(key.name.strip_prefix(KEY).unwrap_or(&key.name).into()),
    }
}

/// Returns the id that a client chose for its operation.
fn client_id(headers: &HeaderMap) -> Result<Option<OperationId>, Refusal> {
    let mut values = headers.get_all(&OPERATION_ID).iter();
    let id = match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => return Ok(None),
        (Some(Ok(text)), None) => text.parse(),
        _ => Err(InvalidId::Character),
    };
    id.map(Some).map_err(|why| Refusal::ClientIdInvalid {
        value: all_of(headers, &OPERATION_ID),
        why,
    })
}

/// Returns the values of a field, which form one list (RFC 9110, section 5.3).
fn all_of(headers: &HeaderMap, field: &HeaderName) -> Box<str> {
    let values = headers.get_all(field).iter();
    let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
    values.collect::<Vec<_>>().join(", ").into()
}

/// Parses a structured-field string after its opening quote. Parameters are ignored, as the
/// draft defines none.
fn quoted(rest: &[u8]) -> Option<String> {
    let mut name = String::new();
    let mut bytes = rest.iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => match bytes.next()? {
                escaped @ (b'"' | b'\\') => name.push(char::from(*escaped)),
                _ => return None,
            },
            printable @ 0x20..=0x7e => name.push(char::from(*printable)),
            _ => return None,
        }
    }
    let after = bytes.as_slice().trim_ascii_start();
    (after.is_empty() || after.starts_with(b";")).then_some(name)
}

fn bare(value: &[u8]) -> Option<String> {
    let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"\",;\\".contains(byte);
    (!value.is_empty() && value.iter().all(is_token))
        .then(|| String::from_utf8_lossy(value).into_owned())
}

fn whole_request(parts: &Parts, body: &Bytes) -> Vec<u8> {
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    // Neither a method nor a target contains a line break.
    let head = format!("{}\n{target}\n", parts.method);
    [head.as_bytes(), body].concat()
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("required", &self.required)
            .field("bare_tokens", &self.bare)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
