//! Results as bytes, for stores that outlive the process.

use bytes::{BufMut, Bytes};
use http::StatusCode;
use serde::{Serialize, de::DeserializeOwned};

use super::HeaderBlock;
use crate::{
    BoxError,
    operation::{Embedding, Payload, RecordedResponse},
};

/// A result that can be stored as bytes: a [`RecordedResponse`], or any type that serde can
/// write and read, which is stored as JSON.
///
/// Law 10: later releases read the bytes that a release has written.
pub trait Stored: Payload + Clone {
    /// The conversion of a recorded response into this type, if every result of this type is
    /// [shown](Payload::view) as one. A store then keeps the head of the response apart from its
    /// body, and reads a body only for a reader that [asks for it](crate::store::Reader::max_body).
    /// By default there is none, and a result is read with its operation.
    const FROM_RECORDED: Option<fn(RecordedResponse) -> Self> = None;

    /// Returns the result as bytes that [`from_bytes`](Self::from_bytes) can read.
    ///
    /// # Errors
    /// The error of the type's `Serialize` or `Deserialize`, for example for a number that
    /// JSON cannot represent.
    fn to_bytes(&self) -> Result<Bytes, BoxError>;

    /// Returns the result that was stored as these bytes.
    ///
    /// # Errors
    /// Returns an error if this release cannot read the bytes.
    fn from_bytes(bytes: Bytes) -> Result<Self, BoxError>;
}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Stored for T {
    fn to_bytes(&self) -> Result<Bytes, BoxError> {
        let bytes = serde_json::to_vec(self)?;
        // The bytes are checked here, where the error can still be reported.
        let _: Self = serde_json::from_slice(&bytes)?;
        Ok(bytes.into())
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, BoxError> {
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// The number of the layout that follows, in which early answers are stored, and results were in
/// early releases. Layout 1 is the embedding (`u8`), the status
/// (`u16`), the lengths of the header and trailer blocks (`u32` each), the blocks and the
/// body; numbers are little endian.
const LAYOUT: u8 = 1;

/// The length in bytes of everything before the blocks.
const PREFIX: usize = 1 + 1 + 2 + 4 + 4;

impl Stored for RecordedResponse {
    const FROM_RECORDED: Option<fn(RecordedResponse) -> Self> = Some(std::convert::identity);

    fn to_bytes(&self) -> Result<Bytes, BoxError> {
        let [headers, trailers] = self.header_blocks();
        let body = self.body().ok_or("the body of a response was not read")?;
        let length = PREFIX + headers.len() + trailers.len() + body.len();
        let mut out = Vec::with_capacity(length);
        out.put_u8(LAYOUT);
        out.put_u8(match self.embed() {
            Embedding::No => 0,
            Embedding::Json | Embedding::JsonOfAnyDepth => 1,
            Embedding::Text => 2,
        });
        out.put_u16_le(self.status().as_u16());
        out.put_u32_le(headers.len().try_into()?);
        out.put_u32_le(trailers.len().try_into()?);
        out.put_slice(headers);
        out.put_slice(trailers);
        out.put_slice(body);
        Ok(out.into())
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, BoxError> {
        let ([layout, embed], rest) = bytes.split_first_chunk().ok_or(CUT)?;
        if *layout != LAYOUT {
            return Err(format!("a response of layout {layout} is of a newer release").into());
        }
        let embed = match embed {
            0 => Embedding::No,
            1 => Embedding::JsonOfAnyDepth,
            2 => Embedding::Text,
            _ => return Err("unknown kind of response".into()),
        };
        let (status, rest) = rest.split_first_chunk().ok_or(CUT)?;
        let (headers, rest) = rest.split_first_chunk().ok_or(CUT)?;
        let (trailers, rest) = rest.split_first_chunk().ok_or(CUT)?;
        let status = StatusCode::from_u16(u16::from_le_bytes(*status))?;
        let headers = u32::from_le_bytes(*headers) as usize;
        let trailers = u32::from_le_bytes(*trailers) as usize;
        let (headers, rest) = rest.split_at_checked(headers).ok_or(CUT)?;
        let (trailers, body) = rest.split_at_checked(trailers).ok_or(CUT)?;
        let body = bytes.slice_ref(body);
        Ok(Self::from_blocks(
            status,
            embed,
            HeaderBlock::from_bytes(headers),
            HeaderBlock::from_bytes(trailers),
            body,
        ))
    }
}

const CUT: &str = "truncated response";

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Response};

    use super::*;
    use crate::operation::{BufferedBody, Metadata, Operation, Outcome, Snapshot};

    fn response() -> RecordedResponse {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let body = BufferedBody::new("{\"pages\":3}".into(), Some(trailers));
        let response = Response::builder()
            .status(201)
            .header("content-type", "application/json")
            .header("x-twice", "a")
            .header("x-twice", HeaderValue::from_bytes(b"\xff").unwrap());
        RecordedResponse::new(response.body(body).unwrap())
    }

    #[test]
    fn responses_survive_a_round_trip() {
        let bytes = response().to_bytes().unwrap();
        assert_eq!(RecordedResponse::from_bytes(bytes).unwrap(), response());
    }

    #[test]
    fn truncated_responses_and_other_layouts_are_errors() {
        let bytes = response().to_bytes().unwrap();
        let whole = bytes.len() - response().body_len();
        for length in 0..whole {
            let cut = RecordedResponse::from_bytes(bytes.slice(..length));
            assert!(cut.is_err(), "{length}");
        }
        for (at, value) in [(0, 2), (1, 3), (3, 0xff)] {
            let mut bytes = bytes.to_vec();
            bytes[at] = value;
            assert!(RecordedResponse::from_bytes(bytes.into()).is_err(), "{at}");
        }
    }

    #[test]
    fn json_stored_by_the_first_releases_is_embedded_if_it_is_not_too_deep() {
        for (levels, is_embedded) in [(128, true), (129, false), (30_000, false)] {
            let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let response = Response::builder().header("content-type", "application/json");
            let response = response.body(BufferedBody::from(text)).unwrap();
            let mut bytes = RecordedResponse::new(response).to_bytes().unwrap().to_vec();
            // The first releases wrote this value for any JSON.
            bytes[1] = 1;
            let kept = RecordedResponse::from_bytes(bytes.into()).unwrap();
            let snapshot = Snapshot {
                status: Outcome::Succeeded(Some(kept)).into(),
                metadata: Metadata::default(),
            };
            let operation = Operation::from_parts("q3".parse().unwrap(), snapshot);
            let mut out = Vec::new();
            let written = operation.view().write_result(usize::MAX, &mut out);
            assert_eq!(written.unwrap(), is_embedded, "{levels}");
        }
    }

    #[test]
    fn other_types_are_stored_as_json() {
        let bytes = vec![0.1_f64, 2.0].to_bytes().unwrap();
        assert_eq!(&bytes[..], b"[0.1,2.0]");
        assert_eq!(Vec::<f64>::from_bytes(bytes).unwrap(), [0.1, 2.0]);
        let unreadable = vec![f64::NAN].to_bytes(); // null
        assert!(unreadable.is_err());
    }
}
