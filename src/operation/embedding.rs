use http::{HeaderMap, HeaderValue, header};

use super::media_type::{essence, is_json_type, is_utf8};
use crate::codec::{has_field, is_json};

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

impl Embedding {
    /// Every form, at the index of its number in a block.
    const ALL: [Self; 4] = [Self::Json, Self::JsonOfAnyDepth, Self::Text, Self::No];

    pub(super) fn number(self) -> u8 {
        let index = Self::ALL.iter().position(|form| *form == self);
        index.unwrap_or_default() as u8
    }

    pub(super) fn from_number(number: u8) -> Self {
        Self::ALL
            .get(usize::from(number))
            .copied()
            .unwrap_or(Self::No)
    }

    /// Returns the form of a body with these fields.
    pub(super) fn for_body(headers: &HeaderMap, body: &[u8]) -> Self {
        let Some(media_type) = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) else {
            return Self::No;
        };
        if body.is_empty() || has_field(headers, &header::CONTENT_ENCODING) {
            return Self::No;
        }
        // Most JSON responses have exactly this media type.
        if media_type == b"application/json" || is_json_type(essence(media_type)) {
            return if is_json(body) { Self::Json } else { Self::No };
        }
        let is_text = (essence(media_type).get(..5))
            .is_some_and(|start| start.eq_ignore_ascii_case(b"text/"));
        if is_text && is_utf8(media_type) && std::str::from_utf8(body).is_ok() {
            return Self::Text;
        }
        Self::No
    }
}
