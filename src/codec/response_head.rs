//! A recorded response without its body, as a part of the JSON of a record.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{HeaderBlock, HeaderFields, header_block::put_field};
use crate::{
    BoxError,
    operation::{BodyDigest, Embedding, RecordedBody, RecordedResponse},
};

/// Status, fields, form, length and digest of a response, whose body is stored apart.
#[derive(Serialize, Deserialize)]
pub(crate) struct ResponseHead<'a> {
    status: u16,
    /// The length of the body in bytes.
    length: usize,
    /// The form in which the body can be embedded, if it can be: `json` or `text`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    form: Option<Cow<'a, str>>,
    /// The token of the holder that uploaded the body to a result store, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uploader: Option<u64>,
    /// The SHA-256 of a long body, in hexadecimal.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    digest: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldHead<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    trailers: Vec<FieldHead<'a>>,
}

/// A header field. A value has one character for each of its bytes, with the number of that byte.
#[derive(Serialize, Deserialize)]
struct FieldHead<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_sensitive: bool,
}

const JSON: &str = "json";
const TEXT: &str = "text";

impl<'a> From<&'a RecordedResponse> for ResponseHead<'a> {
    fn from(response: &'a RecordedResponse) -> Self {
        let [fields, trailers] = response.header_blocks();
        Self {
            status: response.status().as_u16(),
            length: response.body_len(),
            form: match response.embed() {
                Embedding::Json => Some(JSON.into()),
                Embedding::Text => Some(TEXT.into()),
                // The first releases wrote JSON of any depth. Nothing is written from it again.
                Embedding::JsonOfAnyDepth | Embedding::No => None,
            },
            uploader: response.uploader(),
            digest: response.stored_digest().map(|it| hex(&it.0).into()),
            fields: field_heads(fields),
            trailers: field_heads(trailers),
        }
    }
}

impl ResponseHead<'_> {
    /// Returns whether the body is empty, and so not stored.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0 && self.uploader.is_none()
    }

    /// Returns the response with this body, or without a body that was not read.
    ///
    /// # Errors
    /// Returns an error if the head is not of a response, or the body not of this length.
    pub(crate) fn into_response(self, body: Option<Bytes>) -> Result<RecordedResponse, BoxError> {
        if body.as_ref().is_some_and(|body| body.len() != self.length) {
            return Err("a body of another length than its head says".into());
        }
        let embed = match self.form.as_deref() {
            Some(JSON) => Embedding::Json,
            Some(TEXT) => Embedding::Text,
            _ => Embedding::No,
        };
        let status = StatusCode::from_u16(self.status)?;
        let digest = self.digest.as_deref().map(digest_of).transpose()?;
        let (fields, trailers) = (block_of(&self.fields)?, block_of(&self.trailers)?);
        Ok(match body {
            Some(body) => RecordedResponse::from_blocks(status, embed, fields, trailers, body)
                .with_known_digest(digest),
            None => {
                let body = match self.uploader {
                    Some(uploader) => RecordedBody::Apart {
                        length: self.length,
                        uploader,
                    },
                    None => RecordedBody::Unread(self.length),
                };
                RecordedResponse::from_parts(status, embed, fields, trailers, body, digest)
            }
        })
    }
}

fn field_heads(block: &[u8]) -> Vec<FieldHead<'_>> {
    let fields = HeaderFields::of_block(block);
    let head = fields.map(|field| FieldHead {
        name: text_of(field.name),
        value: text_of(field.value),
        is_sensitive: field.sensitive,
    });
    head.collect()
}

fn block_of(fields: &[FieldHead<'_>]) -> Result<HeaderBlock, BoxError> {
    let mut block = Vec::new();
    for field in fields {
        let (name, value) = (bytes_of(&field.name)?, bytes_of(&field.value)?);
        put_field(&name, &value, field.is_sensitive, &mut block);
    }
    Ok(HeaderBlock::from_bytes(&block))
}

/// Returns a text with one character for each byte.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text.into(),
        _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Returns one byte for each character of a text.
fn bytes_of(text: &str) -> Result<Cow<'_, [u8]>, BoxError> {
    if text.is_ascii() {
        return Ok(text.as_bytes().into());
    }
    let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
    Ok(bytes?.into())
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    digits.collect()
}

fn digest_of(hex: &str) -> Result<BodyDigest, BoxError> {
    let mut digest = [0; 32];
    if hex.len() != 2 * digest.len() || !hex.is_ascii() {
        return Err("a digest of another length".into());
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..][..2], 16)?;
    }
    Ok(BodyDigest(digest))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};

    use super::*;
    use crate::operation::BufferedBody;

    fn round_trip(response: &RecordedResponse, is_read: bool) -> RecordedResponse {
        let json = serde_json::to_string(&ResponseHead::from(response)).unwrap();
        let head: ResponseHead<'_> = serde_json::from_str(&json).unwrap();
        let body = response.body_bytes().filter(|_| is_read);
        head.into_response(body).unwrap()
    }

    fn response(body: impl Into<Bytes>) -> RecordedResponse {
        let mut secret = HeaderValue::from_static("7");
        secret.set_sensitive(true);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let response = Response::builder()
            .status(201)
            .header("content-type", "application/json")
            .header("x-secret", secret)
            .header("x-twice", "a")
            .header(
                "x-twice",
                HeaderValue::from_bytes(b"\xff\"\t\xc3\xbc").unwrap(),
            );
        let body = BufferedBody::new(body.into(), Some(trailers));
        RecordedResponse::new(response.body(body).unwrap())
    }

    #[test]
    fn responses_survive_a_round_trip() {
        for body in [
            "{\"pages\":3}".to_owned(),
            "3".repeat(100_000),
            String::new(),
        ] {
            let written = response(body);
            let read = round_trip(&written, true);
            assert_eq!((&read, read.embed()), (&written, written.embed()));
            assert!(read.headers()["x-secret"].is_sensitive());
        }
    }

    #[test]
    fn a_response_without_its_body_has_everything_else() {
        let written = response("3".repeat(100_000));
        let read = round_trip(&written, false);
        assert_eq!((read.body(), read.body_len()), (None, 100_000));
        assert_eq!(read.headers(), written.headers());
        assert_eq!(read.trailers(), written.trailers());
        assert_eq!(read.digest(), written.digest());
        assert!(read.digest().is_some() && read.to_response().is_none());
        assert!(read != written && read == read.clone());
    }

    #[test]
    fn heads_that_no_release_wrote_are_errors() {
        for (head, body) in [
            (r#"{"status":200,"length":3}"#, Some("four")),
            (r#"{"status":7,"length":0}"#, Some("")),
            (r#"{"status":200,"length":1,"digest":"zz"}"#, None),
            (
                r#"{"status":200,"length":1,"fields":[{"name":"a","value":"\u0100"}]}"#,
                None,
            ),
        ] {
            let parsed: ResponseHead<'_> = serde_json::from_str(head).unwrap();
            assert!(
                parsed.into_response(body.map(Bytes::from)).is_err(),
                "{head}"
            );
        }
    }
}
