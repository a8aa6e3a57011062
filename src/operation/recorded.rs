use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{self, CONTENT_LENGTH},
};

use super::{
    BufferedBody, Failure, FailureKind, Outcome, explained::problem_of, headers::HeaderBlock,
    problem::essence, push_number, syntax::is_json,
};

/// What the inner service answered: status, headers, body and trailers, byte
/// for byte.
///
/// Kept are all header fields but the hop-by-hop ones (RFC 9110, section
/// 7.6.1), in their order, repeated ones and values that are not UTF-8
/// included. A `Content-Length` that the body does not have is dropped.
///
/// It is not `Serialize`: how a recorded response appears in the JSON of an
/// operation depends on what it is. JSON is embedded as it is, text as a
/// string, anything else (or with a `Content-Encoding`) is only to be had from
/// the result resource.
///
/// Clones share one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedResponse(Arc<RecordedParts>);

#[derive(Debug)]
struct RecordedParts {
    status: StatusCode,
    embed: Embedding,
    headers: HeaderBlock,
    /// Most have none.
    trailers: Option<Box<HeaderBlock>>,
    body: Bytes,
}

/// How it is embedded follows from the rest.
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

/// How the body can stand in an operation's JSON. Found once, when the
/// response is recorded, since every poll needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embedding {
    /// The bytes are one JSON value, no deeper than what embeds it may be.
    Json,
    /// They are one JSON value, of any depth: the first releases did not look at that.
    #[cfg_attr(
        not(any(feature = "redb", feature = "postgres", feature = "redis")),
        allow(dead_code, reason = "only stores that keep bytes read it")
    )]
    JsonOfAnyDepth,
    /// The bytes are UTF-8 text.
    Text,
    /// Not at all.
    No,
}

/// Bodies up to this size are copied, since they may pin a larger buffer.
const COPIED: usize = 16 * 1024;

impl RecordedResponse {
    /// Records a whole response.
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

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The header fields, rebuilt from their compact form.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        self.0.headers.append_to(&mut map);
        map
    }

    /// Its `Content-Type`, if it has one that is text.
    #[must_use]
    pub fn media_type(&self) -> Option<&str> {
        std::str::from_utf8(self.0.headers.get("content-type")?).ok()
    }

    /// Whether its body is in a `Content-Encoding`.
    pub(super) fn is_encoded(&self) -> bool {
        self.0.headers.get("content-encoding").is_some()
    }

    /// The trailer fields, if there were any.
    #[must_use]
    pub fn trailers(&self) -> Option<HeaderMap> {
        self.0.trailers.as_ref().map(|trailers| {
            let mut map = HeaderMap::new();
            trailers.append_to(&mut map);
            map
        })
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The response as it was.
    #[must_use]
    pub fn to_response(&self) -> Response<BufferedBody> {
        let trailers = self.trailers();
        let mut response = Response::new(BufferedBody::new(self.0.body.clone(), trailers));
        *response.status_mut() = self.0.status;
        self.0.headers.append_to(response.headers_mut());
        if self.0.trailers.is_some() {
            // HTTP/1.1 has room for one or the other.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        response
    }

    /// Whether it is an answer: final (RFC 9110, section 15), of a status that there is,
    /// 200 to 599.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.0.status.as_u16(), 200..=599)
    }

    /// The outcome this response means. Below 400 it succeeded, else it failed: with the
    /// problem it carries, or with one made of its status. `detail` is then what a short
    /// `text/plain` says, of 1 KiB at the most, or a JSON object in `detail`, `message`,
    /// `error_description`, `error.message` or `error`. What is no final response, of a
    /// status from 200 to 599, is [`FailureKind::InnerError`].
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

    /// The response that consists of these.
    #[cfg(any(feature = "redb", feature = "postgres", feature = "redis"))]
    pub(super) fn of(
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

    #[cfg(any(feature = "redb", feature = "postgres", feature = "redis"))]
    pub(super) fn header_blocks(&self) -> [&[u8]; 2] {
        let trailers = self.0.trailers.as_ref();
        let trailers = trailers.map(|trailers| trailers.as_bytes());
        [self.0.headers.as_bytes(), trailers.unwrap_or_default()]
    }

    pub(crate) fn embed(&self) -> Embedding {
        self.0.embed
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let trailers = self.0.trailers.as_ref();
        let trailers = trailers.map(|it| size_of::<HeaderBlock>() + it.heap_bytes());
        size_of::<RecordedParts>()
            + self.0.body.len()
            + self.0.headers.heap_bytes()
            + trailers.unwrap_or_default()
    }
}

/// Whether a field is about one connection (RFC 9110, section 7.6.1). `Trailer` is not: it
/// announces what the message carries.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    // As text, since a header name takes longer to compare.
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

/// Whether a `Content-Length` says this length.
fn is_length(value: &HeaderValue, length: usize) -> bool {
    let mut digits = Vec::new();
    push_number::<10>(length as u64, &mut digits);
    value.as_bytes() == digits
}

/// The further fields that `Connection` says are about this connection.
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
    // Most say just that.
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

/// Whether what has this media type, without parameters, is JSON (RFC 6839, section 3.1).
pub(super) fn is_json_type(essence: &[u8]) -> bool {
    let ends_with = |end: &[u8]| {
        let at = essence.len().saturating_sub(end.len());
        essence[at..].eq_ignore_ascii_case(end)
    };
    essence.eq_ignore_ascii_case(b"application/json") || ends_with(b"+json")
}

/// Whether a text's `charset` is UTF-8 or not said.
pub(super) fn is_utf8(media_type: &[u8]) -> bool {
    media_type
        .split(|byte| *byte == b';')
        .skip(1)
        .filter_map(|parameter| {
            let parameter = parameter.trim_ascii().to_ascii_lowercase();
            parameter.strip_prefix(b"charset=").map(<[u8]>::to_vec)
        })
        .all(|charset| matches!(charset.as_slice(), b"utf-8" | b"\"utf-8\"" | b"us-ascii"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(headers: &[(&'static str, &'static str)], body: &'static [u8]) -> RecordedResponse {
        let mut response = Response::new(BufferedBody::from(body));
        for (name, value) in headers {
            response
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        RecordedResponse::new(response)
    }

    #[test]
    fn hop_by_hop_fields_are_left_out() {
        let recorded = recorded(
            &[
                ("connection", "close, X-Mine"),
                ("x-mine", "1"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("trailer", "x-checksum"),
                ("content-length", "7"),
                ("x-kept", "a"),
                ("x-kept", "b"),
            ],
            b"four",
        );
        let names: Vec<_> = recorded.headers().keys().map(ToString::to_string).collect();
        assert_eq!(names, ["trailer", "x-kept"]);
        assert_eq!(recorded.headers().get_all("x-kept").iter().count(), 2);
    }

    #[test]
    fn only_what_is_json_or_text_is_embedded() {
        let embed = |media_type: &'static str, body: &'static [u8]| {
            recorded(&[("content-type", media_type)], body).embed()
        };
        assert_eq!(embed("application/json", b"{\"a\":1}"), Embedding::Json);
        assert_eq!(
            embed("application/vnd.api+JSON; v=1", b" [1] "),
            Embedding::Json
        );
        assert_eq!(embed("application/json", b"{\"a\":1"), Embedding::No);
        assert_eq!(embed("application/json", b"{} {}"), Embedding::No);
        assert_eq!(embed("application/json", b"\"\xff\""), Embedding::No);
        assert_eq!(embed("application/json", b""), Embedding::No);
        assert_eq!(embed("text/plain", "grün".as_bytes()), Embedding::Text);
        assert_eq!(
            embed("text/csv; charset=\"UTF-8\"", b"a,b"),
            Embedding::Text
        );
        assert_eq!(embed("text/plain; charset=iso-8859-1", b"a"), Embedding::No);
        assert_eq!(embed("text/plain", b"gr\xfcn"), Embedding::No);
        assert_eq!(embed("application/pdf", b"%PDF"), Embedding::No);
        let zipped = recorded(
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
            ],
            b"{}",
        );
        assert_eq!(zipped.embed(), Embedding::No);
    }

    #[test]
    fn trailers_make_room_for_themselves() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("abc"));
        let mut response = Response::new(BufferedBody::new("four".into(), Some(trailers.clone())));
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("4"));
        let replayed = RecordedResponse::new(response).to_response();
        assert!(replayed.headers().is_empty());
        assert_eq!(replayed.body().trailers(), Some(&trailers));
        assert_eq!(http_body::Body::size_hint(replayed.body()).exact(), None);
    }
}
