//! A request as bytes, for a rerun after its node has died.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request::Parts,
};
use serde::{Deserialize, Serialize};

use super::in_flight::ByteBudget;
use crate::{
    BoxError,
    codec::HeaderBlock,
    operation::{BodyDigest, BufferedBody},
    store::FencingToken,
};

/// The layout of a request with its body: the lengths of the line, of the header and of the trailer
/// block (`u32` each, little endian), the line as JSON, the blocks, the body.
const WITH_BODY: u8 = 1;

/// The layout of a request whose body is in a result store. It has a [`BodyReference`] instead of the
/// body.
const WITH_REFERENCE: u8 = 2;

/// The length of everything before the line.
const PREFIX: usize = 1 + 3 * 4;

/// The parts of a request that are not header fields.
#[derive(Serialize, Deserialize)]
struct RequestLine {
    method: String,
    target: String,
    version: String,
}

/// The fields by which a client authenticates (RFC 9110, sections 11.6 and 11.7; RFC 6265).
/// Fields that are marked as sensitive are credentials too.
static CREDENTIALS: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
];

/// The place of a body in a result store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyReference {
    /// The token in the key of the upload.
    pub(crate) token: FencingToken,
    /// The length in bytes.
    pub(crate) length: u64,
    pub(crate) digest: BodyDigest,
}

/// The length of a reference: the token and the length (`u64` each, little endian), and the digest.
const REFERENCE: usize = 8 + 8 + 32;

impl BodyReference {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (token, rest) = bytes.split_first_chunk()?;
        let (length, digest) = rest.split_first_chunk()?;
        Some(Self {
            token: FencingToken::from_number(u64::from_le_bytes(*token)),
            length: u64::from_le_bytes(*length),
            digest: BodyDigest(digest.try_into().ok()?),
        })
    }

    /// Returns the request as bytes, whose head is `head`.
    pub(super) fn store_after(&self, head: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(head.len() + REFERENCE);
        out.put_slice(head);
        out.put_u64_le(self.token.get());
        out.put_u64_le(self.length);
        out.put_slice(&self.digest.0);
        out.into()
    }
}

/// A request that was restored from its bytes.
pub(crate) struct StoredRequest {
    /// The request, without the data of a body that is in a result store.
    pub(crate) request: Request<BufferedBody>,
    /// The place of the body, if it is in a result store.
    pub(crate) reference: Option<BodyReference>,
}

impl StoredRequest {
    /// Returns the length of the body in bytes.
    pub(super) fn body_length(&self) -> u64 {
        let here = self.request.body().data().len() as u64;
        self.reference.map_or(here, |it| it.length)
    }

    /// Counts the bytes of the body from now on, also if the body is still to be read.
    pub(super) fn count_in(&mut self, budget: &Arc<ByteBudget>) {
        let length = self.body_length();
        let body = std::mem::take(self.request.body_mut());
        *self.request.body_mut() = budget.count_body(body, length);
    }
}

/// Returns the request as bytes, with `target` as its target. Credentials are left out, unless
/// the layer stores them.
pub(crate) fn store(
    parts: &Parts,
    target: &Uri,
    body: &BufferedBody,
    with_credentials: bool,
) -> Option<Bytes> {
    let mut out = store_head(WITH_BODY, parts, target, body, with_credentials)?;
    out.put_slice(body.data());
    Some(out.into())
}

/// Returns the beginning of the bytes of a request whose body goes to a result store.
pub(crate) fn store_without_body(
    parts: &Parts,
    target: &Uri,
    body: &BufferedBody,
    with_credentials: bool,
) -> Option<Bytes> {
    let head = store_head(WITH_REFERENCE, parts, target, body, with_credentials)?;
    Some(head.into())
}

/// Returns everything before the body, with room for the body of this layout.
fn store_head(
    layout: u8,
    parts: &Parts,
    target: &Uri,
    body: &BufferedBody,
    with_credentials: bool,
) -> Option<Vec<u8>> {
    let line = RequestLine {
        method: parts.method.to_string(),
        target: match with_credentials {
            true => target.to_string(),
            false => without_userinfo(target)?.to_string(),
        },
        version: format!("{:?}", parts.version),
    };
    let line = serde_json::to_vec(&line).ok()?;
    let block = |fields: &HeaderMap| {
        let is_secret = |name: &HeaderName| {
            CREDENTIALS.contains(name) || fields.get_all(name).iter().any(HeaderValue::is_sensitive)
        };
        HeaderBlock::from_map(fields, |name, _| with_credentials || !is_secret(name))
    };
    let headers = block(&parts.headers);
    let trailers = body.trailers().map_or_else(HeaderBlock::default, block);
    let blocks = [&line[..], headers.as_bytes(), trailers.as_bytes()];
    let length: usize = blocks.iter().map(|block| block.len()).sum();
    let of_body = match layout {
        WITH_BODY => body.data().len(),
        _ => 0,
    };
    let mut out = Vec::with_capacity(PREFIX + length + of_body);
    out.put_u8(layout);
    for block in blocks {
        out.put_u32_le(block.len().try_into().ok()?);
    }
    blocks.iter().for_each(|block| out.put_slice(block));
    Some(out)
}

/// Returns the target without the user information in its authority (RFC 3986, section
/// 3.2.1).
fn without_userinfo(target: &Uri) -> Option<Uri> {
    let mut parts = target.clone().into_parts();
    parts.authority = match &parts.authority {
        Some(authority) => match authority.as_str().rsplit_once('@') {
            Some((_, host)) => Some(host.parse().ok()?),
            None => return Some(target.clone()),
        },
        None => return Some(target.clone()),
    };
    Uri::from_parts(parts).ok()
}

/// Restores the request from its bytes.
///
/// # Errors
/// Returns an error if this release cannot read the bytes.
pub(crate) fn restore(bytes: &Bytes) -> Result<StoredRequest, BoxError> {
    let (layout, rest) = bytes.split_first().ok_or(CUT)?;
    if !matches!(*layout, WITH_BODY | WITH_REFERENCE) {
        return Err(format!("a request of layout {layout} is of a newer release").into());
    }
    let (line, rest) = rest.split_first_chunk().ok_or(CUT)?;
    let (headers, rest) = rest.split_first_chunk().ok_or(CUT)?;
    let (trailers, rest) = rest.split_first_chunk().ok_or(CUT)?;
    let length = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) as usize;
    let (line, rest) = rest.split_at_checked(length(line)).ok_or(CUT)?;
    let (headers, rest) = rest.split_at_checked(length(headers)).ok_or(CUT)?;
    let (trailers, data) = rest.split_at_checked(length(trailers)).ok_or(CUT)?;
    let line: RequestLine = serde_json::from_slice(line)?;
    let fields = |block| {
        let mut map = HeaderMap::new();
        HeaderBlock::from_bytes(block).append_to(&mut map);
        map
    };
    let (data, reference) = match *layout {
        WITH_BODY => (bytes.slice_ref(data), None),
        _ => {
            let reference = BodyReference::from_bytes(data).ok_or(CUT)?;
            (Bytes::new(), Some(reference))
        }
    };
    let body = BufferedBody::new(data, Some(fields(trailers)));
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(line.method.as_bytes())?;
    *request.uri_mut() = line.target.parse()?;
    *request.version_mut() = version(&line.version)?;
    *request.headers_mut() = fields(headers);
    Ok(StoredRequest { request, reference })
}

const CUT: &str = "truncated request";

fn version(text: &str) -> Result<Version, BoxError> {
    let known = [
        Version::HTTP_09,
        Version::HTTP_10,
        Version::HTTP_11,
        Version::HTTP_2,
        Version::HTTP_3,
    ];
    known
        .into_iter()
        .find(|version| format!("{version:?}") == text)
        .ok_or_else(|| format!("{text} is no version of HTTP").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<BufferedBody> {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let body = BufferedBody::new("{\"pages\":3}".into(), Some(trailers));
        let mut secret = HeaderValue::from_static("s3cret");
        secret.set_sensitive(true);
        Request::post("http://example.com/reports?a=%20b")
            .version(Version::HTTP_2)
            .header("content-type", "application/json")
            .header("x-twice", "a")
            .header("x-twice", HeaderValue::from_bytes(b"\xff").unwrap())
            .header("authorization", "Bearer abc")
            .header("cookie", "session=1")
            .header("x-api-key", secret)
            .body(body)
            .unwrap()
    }

    fn round_trip(with_credentials: bool) -> Request<BufferedBody> {
        let (parts, body) = request().into_parts();
        let bytes = store(&parts, &parts.uri, &body, with_credentials).unwrap();
        let leaks = |secret: &[u8]| bytes.windows(secret.len()).any(|at| at == secret);
        assert_eq!(leaks(b"s3cret"), with_credentials);
        assert_eq!(leaks(b"abc"), with_credentials);
        assert_eq!(leaks(b"session=1"), with_credentials);
        let stored = restore(&bytes).unwrap();
        assert_eq!(stored.reference, None);
        stored.request
    }

    #[test]
    fn requests_survive_a_round_trip_except_for_credentials() {
        for with_credentials in [true, false] {
            let (back, there) = (round_trip(with_credentials), request());
            assert_eq!(back.method(), there.method());
            assert_eq!(back.uri(), there.uri());
            assert_eq!(back.version(), there.version());
            assert_eq!(back.body().data(), there.body().data());
            assert_eq!(back.body().trailers(), there.body().trailers());
            let mut headers = there.headers().clone();
            if !with_credentials {
                for name in ["authorization", "cookie", "x-api-key"] {
                    headers.remove(name);
                }
            }
            assert_eq!(back.headers(), &headers);
        }
    }

    #[test]
    fn credentials_are_left_out_wherever_they_are() {
        let mut trailers = HeaderMap::new();
        trailers.insert("authorization", HeaderValue::from_static("Bearer abc"));
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let body = BufferedBody::new(Bytes::new(), Some(trailers));
        let request = Request::post("http://anna:abc@example.com:81/reports?a=b");
        let (parts, body) = request.body(body).unwrap().into_parts();
        for with_credentials in [true, false] {
            let bytes = store(&parts, &parts.uri, &body, with_credentials).unwrap();
            assert_eq!(bytes.windows(3).any(|at| at == b"abc"), with_credentials);
            let back = restore(&bytes).unwrap().request;
            assert_eq!(back.uri().host(), Some("example.com"));
            assert_eq!(back.uri().port_u16(), Some(81));
            assert_eq!(back.uri().path_and_query(), parts.uri.path_and_query());
            assert_eq!(back.body().trailers().unwrap()["x-sum"], "7");
        }
    }

    #[test]
    fn truncated_requests_and_other_layouts_are_errors() {
        let (parts, body) = request().into_parts();
        let bytes = store(&parts, &parts.uri, &body, true).unwrap();
        for length in 0..bytes.len() - body.data().len() {
            assert!(restore(&bytes.slice(..length)).is_err(), "{length}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = 3;
        assert!(restore(&newer.into()).is_err());
    }

    /// Law 10: written requests remain readable.
    #[test]
    fn written_requests_have_not_changed() {
        let (parts, body) = request().into_parts();
        let bytes = store(&parts, &parts.uri, &body, false).unwrap();
        assert_eq!(&bytes[..], include_bytes!("golden/request-1.bin"));
        assert_eq!(&stored_apart()[..], include_bytes!("golden/request-2.bin"));
    }

    fn reference() -> BodyReference {
        BodyReference {
            token: FencingToken::from_number(0xab),
            length: 11,
            digest: BodyDigest([7; 32]),
        }
    }

    fn stored_apart() -> Bytes {
        let (parts, body) = request().into_parts();
        let head = store_without_body(&parts, &parts.uri, &body, false).unwrap();
        reference().store_after(&head)
    }

    #[test]
    fn requests_without_their_body_survive_a_round_trip() {
        let bytes = stored_apart();
        let back = restore(&bytes).unwrap();
        assert_eq!(back.reference, Some(reference()));
        assert_eq!(back.body_length(), 11);
        assert!(back.request.body().data().is_empty());
        assert_eq!(back.request.body().trailers().unwrap()["x-sum"], "7");
        assert_eq!(back.request.uri(), request().uri());
        for length in 0..bytes.len() {
            assert!(restore(&bytes.slice(..length)).is_err(), "{length}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(restore(&longer.into()).is_err());
    }
}
