use bytes::Bytes;
use http::HeaderValue;

/// The body of a webhook and its `Content-Type`.
///
/// [`Event`](crate::Event) makes the body of an operation that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBody {
    bytes: Bytes,
    content_type: HeaderValue,
}

impl EventBody {
    /// Creates a body of `application/json`.
    #[must_use]
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            content_type: HeaderValue::from_static("application/json"),
        }
    }

    /// Creates a body of `application/cloudevents+json`.
    #[must_use]
    pub fn cloud_event(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            content_type: HeaderValue::from_static("application/cloudevents+json"),
        }
    }

    /// Returns the bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> &HeaderValue {
        &self.content_type
    }
}
