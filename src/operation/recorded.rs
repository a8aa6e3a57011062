mod digest;

use std::{
    cell::RefCell,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::CONTENT_LENGTH};

pub(crate) use digest::BodyDigest;

use super::{
    BufferedBody, Embedding, Failure, FailureKind, Outcome, explained::problem_of,
    hop_by_hop::recorded_fields,
};
use crate::codec::{HeaderBlock, HeaderFields, put_fields};

/// A response of the inner service: status, headers, body and trailers, byte for byte.
///
/// A store may read a response without its body, if the body is longer than the reader
/// [asked for](crate::store::Reader::max_body). The length of the body, and everything else, is
/// there.
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
#[derive(Debug, Clone)]
pub struct RecordedResponse(Recorded);

#[derive(Debug, Clone)]
enum Recorded {
    /// Status, form, fields and a small body in one block, so that a poll reads from one place
    /// in memory. The layout is that of [`BLOCK_HEAD`].
    Block(Arc<[u8]>),
    Parts(Arc<RecordedParts>),
}

#[derive(Debug)]
struct RecordedParts {
    status: StatusCode,
    embed: Embedding,
    headers: HeaderBlock,
    trailers: HeaderBlock,
    body: RecordedBody,
    /// The digest of the body, once it was needed.
    digest: OnceLock<BodyDigest>,
}

/// The body of a recorded response, as far as it is known.
#[derive(Debug)]
pub(crate) enum RecordedBody {
    Read(Bytes),
    /// The body was not read. This is its length in bytes.
    Unread(usize),
    /// The body is in a result store, where the holder with this token uploaded it.
    Apart {
        length: usize,
        uploader: u64,
    },
}

/// The length of the head of a block: the status and the length of the fields in bytes
/// (little-endian), and the form, then two bytes that are zero. Fields and body follow.
const BLOCK_HEAD: usize = 8;

/// Ignores the form, which is derived from the other parts. Responses without their bodies are
/// equal if their bodies have the same length, and the same digest as far as it is known.
impl PartialEq for RecordedResponse {
    fn eq(&self, other: &Self) -> bool {
        self.status() == other.status()
            && self.header_blocks() == other.header_blocks()
            && self.body() == other.body()
            && self.body_len() == other.body_len()
            && match (self.known_digest(), other.known_digest()) {
                (Some(digest), Some(other)) => digest == other,
                _ => true,
            }
    }
}

impl Eq for RecordedResponse {}

/// The maximum size in bytes of a body that is copied into the block. A slice may pin a larger
/// buffer, too.
const COPIED: usize = 16 * 1024;

impl RecordedResponse {
    /// Records a complete response.
    #[must_use]
    pub fn new(response: Response<BufferedBody>) -> Self {
        let (parts, body) = response.into_parts();
        let (data, trailers) = body.into_parts();
        let keep = recorded_fields(&parts.headers, data.len());
        let embed = Embedding::for_body(&parts.headers, &data);
        if trailers.is_none() && data.len() <= COPIED {
            return Self::block(parts.status, embed, &data, |out| {
                put_fields(&parts.headers, keep, out);
            });
        }
        let headers = HeaderBlock::from_map(&parts.headers, keep);
        let trailers = trailers.map(|it| HeaderBlock::from_map(&it, |_, _| true));
        let trailers = trailers.unwrap_or_default();
        Self::from_blocks(parts.status, embed, headers, trailers, data)
    }

    /// Records a response whose body of this length and digest is in a result store.
    pub(crate) fn apart(
        head: &http::response::Parts,
        trailers: Option<HeaderMap>,
        length: usize,
        digest: BodyDigest,
        uploader: u64,
    ) -> Self {
        let headers = HeaderBlock::from_map(&head.headers, recorded_fields(&head.headers, length));
        let trailers = trailers.map(|it| HeaderBlock::from_map(&it, |_, _| true));
        Self::from_parts(
            head.status,
            Embedding::No,
            headers,
            trailers.unwrap_or_default(),
            RecordedBody::Apart { length, uploader },
            Some(digest),
        )
    }

    /// Returns the token of the holder that uploaded the body to a result store, if it is there.
    pub(crate) fn uploader(&self) -> Option<u64> {
        match &self.0 {
            Recorded::Parts(parts) => match parts.body {
                RecordedBody::Apart { uploader, .. } => Some(uploader),
                RecordedBody::Read(_) | RecordedBody::Unread(_) => None,
            },
            Recorded::Block(_) => None,
        }
    }

    /// Writes a block, whose fields `put` appends.
    fn block(
        status: StatusCode,
        embed: Embedding,
        body: &[u8],
        put: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        SCRATCH.with_borrow_mut(|out| {
            out.clear();
            out.extend_from_slice(&[0; BLOCK_HEAD]);
            put(out);
            let fields = (out.len() - BLOCK_HEAD) as u32;
            out[..2].copy_from_slice(&status.as_u16().to_le_bytes());
            out[2..6].copy_from_slice(&fields.to_le_bytes());
            out[6] = embed.number();
            out.extend_from_slice(body);
            Self(Recorded::Block(Arc::from(&out[..])))
        })
    }

    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match &self.0 {
            Recorded::Block(block) => {
                let status = u16::from_le_bytes([block[0], block[1]]);
                // The number was that of a status.
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Recorded::Parts(parts) => parts.status,
        }
    }

    /// Returns where the body begins in a block.
    fn body_at(block: &[u8]) -> usize {
        let fields = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        BLOCK_HEAD + fields as usize
    }

    fn fields(&self) -> HeaderFields<'_> {
        let [headers, _] = self.header_blocks();
        HeaderFields::of_block(headers)
    }

    /// Returns the header fields, rebuilt from their compact form.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        self.fields().append_to(&mut map);
        map
    }

    /// Returns the `Content-Type`, if there is one and it is UTF-8.
    #[must_use]
    pub fn media_type(&self) -> Option<&str> {
        std::str::from_utf8(self.fields().get("content-type")?).ok()
    }

    /// Returns whether the body has a `Content-Encoding`.
    pub(super) fn is_encoded(&self) -> bool {
        self.fields().get("content-encoding").is_some()
    }

    /// Returns the trailer fields, if there were any.
    #[must_use]
    pub fn trailers(&self) -> Option<HeaderMap> {
        let [_, trailers] = self.header_blocks();
        (!trailers.is_empty()).then(|| {
            let mut map = HeaderMap::new();
            HeaderFields::of_block(trailers).append_to(&mut map);
            map
        })
    }

    /// Returns whether there are trailer fields.
    pub(crate) fn has_trailers(&self) -> bool {
        let [_, trailers] = self.header_blocks();
        !trailers.is_empty()
    }

    /// Returns the body; `None` if it was not read.
    #[must_use]
    pub fn body(&self) -> Option<&[u8]> {
        match &self.0 {
            Recorded::Block(block) => Some(&block[Self::body_at(block)..]),
            Recorded::Parts(parts) => match &parts.body {
                RecordedBody::Read(body) => Some(body),
                RecordedBody::Unread(_) | RecordedBody::Apart { .. } => None,
            },
        }
    }

    /// Returns the length of the body in bytes, also if the body was not read.
    #[must_use]
    pub fn body_len(&self) -> usize {
        match &self.0 {
            Recorded::Block(block) => block.len() - Self::body_at(block),
            Recorded::Parts(parts) => match &parts.body {
                RecordedBody::Read(body) => body.len(),
                RecordedBody::Unread(length) | RecordedBody::Apart { length, .. } => *length,
            },
        }
    }

    /// Returns the body as shared bytes; `None` if it was not read.
    #[must_use]
    pub fn body_bytes(&self) -> Option<Bytes> {
        match &self.0 {
            Recorded::Block(block) => {
                let body_at = Self::body_at(block);
                Some(Bytes::from_owner(Arc::clone(block)).slice(body_at..))
            }
            Recorded::Parts(parts) => match &parts.body {
                RecordedBody::Read(body) => Some(body.clone()),
                RecordedBody::Unread(_) | RecordedBody::Apart { .. } => None,
            },
        }
    }

    /// Returns the recorded response; `None` if its body was not read.
    #[must_use]
    pub fn to_response(&self) -> Option<Response<BufferedBody>> {
        self.body().map(|_| self.replayed())
    }

    /// Returns the recorded response, with an empty body if the body was not read.
    pub(crate) fn replayed(&self) -> Response<BufferedBody> {
        let body = self.body_bytes().unwrap_or_default();
        let trailers = self.trailers();
        let has_trailers = trailers.is_some();
        let mut response = Response::new(BufferedBody::new(body, trailers));
        *response.status_mut() = self.status();
        self.fields().append_to(response.headers_mut());
        if has_trailers {
            // In HTTP/1.1, trailers exclude `Content-Length`.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        response
    }

    /// Returns whether the response is final (RFC 9110, section 15), with a status from 200 to
    /// 599.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.status().as_u16(), 200..=599)
    }

    /// Returns the outcome that this response stands for. A status from 200 to 399 is a
    /// success. A status from 400 to 599 is a failure, with the problem that the response
    /// carries or with one derived from the status. The `detail` of a derived problem is a
    /// `text/plain` body of at most 1 KiB, or the `detail`, `message`, `error_description`,
    /// `error.message` or `error` of a JSON object. Without its body, a response has a problem that
    /// is derived from the status. Any other status is [`FailureKind::InnerError`].
    #[must_use]
    pub fn into_outcome(self) -> Outcome<Self> {
        match self.status().as_u16() {
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
        if trailers.as_bytes().is_empty() && body.len() <= COPIED {
            return Self::block(status, embed, &body, |out| {
                out.extend_from_slice(headers.as_bytes());
            });
        }
        let body = RecordedBody::Read(body);
        Self::from_parts(status, embed, headers, trailers, body, None)
    }

    /// Assembles a response that is too large for a block, or whose body is elsewhere.
    pub(crate) fn from_parts(
        status: StatusCode,
        embed: Embedding,
        headers: HeaderBlock,
        trailers: HeaderBlock,
        body: RecordedBody,
        digest: Option<BodyDigest>,
    ) -> Self {
        let response = Self(Recorded::Parts(Arc::new(RecordedParts {
            status,
            embed,
            headers,
            trailers,
            body,
            digest: OnceLock::new(),
        })));
        response.with_known_digest(digest)
    }

    /// Returns the same response without its body.
    pub(crate) fn as_unread(&self) -> Self {
        let [headers, trailers] = self.header_blocks().map(HeaderBlock::from_bytes);
        let (status, embed) = (self.status(), self.embed());
        let (length, digest) = (self.body_len(), self.known_digest());
        let body = RecordedBody::Unread(length);
        Self::from_parts(status, embed, headers, trailers, body, digest)
    }

    /// Returns the header fields and the trailer fields, as blocks.
    pub(crate) fn header_blocks(&self) -> [&[u8]; 2] {
        match &self.0 {
            Recorded::Block(block) => [&block[BLOCK_HEAD..Self::body_at(block)], &[]],
            Recorded::Parts(parts) => [parts.headers.as_bytes(), parts.trailers.as_bytes()],
        }
    }

    pub(crate) fn embed(&self) -> Embedding {
        match &self.0 {
            Recorded::Block(block) => Embedding::from_number(block[6]),
            Recorded::Parts(parts) => parts.embed,
        }
    }

    /// Returns the size on the heap in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Recorded::Block(block) => 2 * size_of::<usize>() + block.len(),
            Recorded::Parts(parts) => {
                let body = match &parts.body {
                    RecordedBody::Read(body) => body.len(),
                    RecordedBody::Unread(_) | RecordedBody::Apart { .. } => 0,
                };
                size_of::<RecordedParts>()
                    + body
                    + parts.headers.heap_bytes()
                    + parts.trailers.heap_bytes()
            }
        }
    }
}

thread_local! {
    /// The buffer in which blocks are written, before their length is known.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests;
