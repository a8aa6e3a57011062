use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{self, CONTENT_LENGTH},
};

use super::{
    BufferedBody, Failure, FailureKind, Outcome,
    explained::problem_of,
    media_type::{essence, is_json_type, is_utf8},
};
use crate::codec::{HeaderBlock, is_json, push_number};

/// A response of the inner service: status, headers, body and trailers, byte for byte.
///
/// All header fields except the hop-by-hop ones (RFC 9110, section 7.6.1) are kept in their
/// order, including repeated fields and values that are not UTF-8. A `Content-Length` that
/// differs from the length of the body is dropped.
///
/// `RecordedResponse` does not implement `Serialize`: its form in the JSON of an operation
/// depends on its content. JSON is embedded unchanged and text as a string. Any other
/// content, or content with a `Content-Encoding`, is available only from the result
/// resource.
///
/// Clones share one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedResponse(Arc<RecordedParts>);

#[derive(Debug)]
struct RecordedParts {
    status: StatusCode,
    embed: Embedding,
    headers: HeaderBlock,
    /// Boxed, since most responses have none.
    trailers: Option<Box<HeaderBlock>>,
    body: Bytes,
}

/// Ignores `embed`, which is derived from the other fields.
impl PartialEq for RecordedParts {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            status,
            embed: _,
            headers,
            trailers,
            body,
        } = self;
        (status, headers) == (&other.status, &other.headers)
            && (trailers, body) == (&other.trailers, &other.body)
    }
}

impl Eq for RecordedParts {}

/// The form in which the body can be embedded in an operation's JSON. The form is determined
/// once, when the response is recorded, since every poll needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embedding {
    /// The bytes are one JSON value whose depth is within the limit for embedding.
    Json,
    /// The bytes are one JSON value of any depth: the first releases did not check the
    /// depth.
    JsonOfAnyDepth,
    /// The bytes are UTF-8 text.
    Text,
    /// The body cannot be embedded.
    No,
}

/// The maximum size in bytes of a body that is copied, since a slice may pin a larger
/// buffer.
const COPIED: usize = 16 * 1024;

impl RecordedResponse {
    /// Records a complete response.
    #[must_use]
    pub fn new(response: Response<BufferedBody>) -> Self {
        let (parts, body) = response.into_parts();
        let (data, trailers) = body.into_parts();
        let body = match data.len() {
            0..=COPIED => Bytes::copy_from_slice(&data),
            _ => data,
        };
        let named = named_by_connection(&parts.headers);
        let keep = |name: &HeaderName, value: &HeaderValue| {
            !is_hop_by_hop(name)
                && !named.contains(name)
                && (*name != CONTENT_LENGTH || is_length(value, body.len()))
        };
        Self(Arc::new(RecordedParts {
            status: parts.status,
            embed: embed(&parts.headers, &body),
            headers: HeaderBlock::from_map(&parts.headers, keep),
            trailers: trailers.map(|it| HeaderBlock::from_map(&it, |_, _| true).into()),
            body,
        }))
    }

    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Returns the header fields, rebuilt from their compact form.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        self.0.headers.append_to(&mut map);
        map
    }

    /// Returns the `Content-Type`, if there is one and it is UTF-8.
    #[must_use]
    pub fn media_type(&self) -> Option<&str> {
        std::str::from_utf8(self.0.headers.get("content-type")?).ok()
    }

    /// Returns whether the body has a `Content-Encoding`.
    pub(super) fn is_encoded(&self) -> bool {
        self.0.headers.get("content-encoding").is_some()
    }

    /// Returns the trailer fields, if there were any.
    #[must_use]
    pub fn trailers(&self) -> Option<HeaderMap> {
        self.0.trailers.as_ref().map(|trailers| {
            let mut map = HeaderMap::new();
            trailers.append_to(&mut map);
            map
        })
    }

    /// Returns the body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Returns the recorded response.
    #[must_use]
    pub fn to_response(&self) -> Response<BufferedBody> {
        let trailers = self.trailers();
        let mut response = Response::new(BufferedBody::new(self.0.body.clone(), trailers));
        *response.status_mut() = self.0.status;
        self.0.headers.append_to(response.headers_mut());
        if self.0.trailers.is_some() {
            // In HTTP/1.1, trailers exclude `Content-Length`.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        response
    }

    /// Returns whether the response is final (RFC 9110, section 15), with a status from 200 to
    /// 599.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.0.status.as_u16(), 200..=599)
    }

    /// Returns the outcome that this response stands for. A status from 200 to 399 is a
    /// success. A status from 400 to 599 is a failure, with the problem that the response
    /// carries or with one derived from the status. The `detail` of a derived problem is a
    /// `text/plain` body of at most 1 KiB, or the `detail`, `message`, `error_description`,
    /// `error.message` or `error` of a JSON object. Any other status is
    /// [`FailureKind::InnerError`].
    #[must_use]
    pub fn into_outcome(self) -> Outcome<Self> {
        match self.0.status.as_u16() {
            200..=399 => Outcome::Succeeded(Some(self)),
            400..=599 => {
                let problem = problem_of(&self);
                Outcome::Failed(Failure::from(problem).with_response(self))
            }
            _ => Outcome::failed(FailureKind::InnerError),
        }
    }

    /// Assembles a response from its stored parts.
    pub(crate) fn from_blocks(
        status: StatusCode,
        embed: Embedding,
        headers: HeaderBlock,
        trailers: HeaderBlock,
        body: Bytes,
    ) -> Self {
        Self(Arc::new(RecordedParts {
            status,
            embed,
            headers,
            trailers: (!trailers.as_bytes().is_empty()).then(|| trailers.into()),
            body,
        }))
    }

    pub(crate) fn header_blocks(&self) -> [&[u8]; 2] {
        let trailers = self.0.trailers.as_ref();
        let trailers = trailers.map(|trailers| trailers.as_bytes());
        [self.0.headers.as_bytes(), trailers.unwrap_or_default()]
    }

    pub(crate) fn embed(&self) -> Embedding {
        self.0.embed
    }

    /// Returns the size on the heap in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let trailers = self.0.trailers.as_ref();
        let trailers = trailers.map(|it| size_of::<HeaderBlock>() + it.heap_bytes());
        size_of::<RecordedParts>()
            + self.0.body.len()
            + self.0.headers.heap_bytes()
            + trailers.unwrap_or_default()
    }
}

/// Returns whether a field is about one connection (RFC 9110, section 7.6.1). `Trailer` is not:
/// it announces fields of the message.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Compared as text, which is faster than comparing header names.
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Returns whether a `Content-Length` has this value.
fn is_length(value: &HeaderValue, length: usize) -> bool {
    let mut digits = Vec::new();
    push_number::<10>(length as u64, &mut digits);
    value.as_bytes() == digits
}

/// Returns the further hop-by-hop fields that `Connection` names.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    if !headers.contains_key(header::CONNECTION) {
        return Vec::new();
    }
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

fn embed(headers: &HeaderMap, body: &[u8]) -> Embedding {
    let Some(media_type) = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) else {
        return Embedding::No;
    };
    if body.is_empty() || headers.contains_key(header::CONTENT_ENCODING) {
        return Embedding::No;
    }
    // Most JSON responses have exactly this media type.
    if media_type == b"application/json" || is_json_type(essence(media_type)) {
        return if is_json(body) {
            Embedding::Json
        } else {
            Embedding::No
        };
    }
    let is_text =
        (essence(media_type).get(..5)).is_some_and(|start| start.eq_ignore_ascii_case(b"text/"));
    if is_text && is_utf8(media_type) && std::str::from_utf8(body).is_ok() {
        return Embedding::Text;
    }
    Embedding::No
}

#[cfg(test)]
mod tests;
