use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};
use tower_operations::run::{InvalidMessage, QueuedRequest};

/// A [`QueuedRequest`] as the arguments of a task.
///
/// The task is serialized as a string, each character of which is a byte of the
/// [message](QueuedRequest::to_bytes) (ISO 8859-1). Every codec of every engine accepts strings,
/// and the text in a request can be read in the engine's tables. A byte that is not text takes
/// two to six bytes. The message is decoded only by the worker that runs it: a task that cannot
/// be decoded earlier stops the whole worker that fetched it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApalisTask(Bytes);

impl ApalisTask {
    /// Returns the request.
    ///
    /// # Errors
    /// [`InvalidMessage`] if this release cannot read the message.
    pub fn request(&self) -> Result<QueuedRequest, InvalidMessage> {
        QueuedRequest::from_bytes(&self.0)
    }
}

impl From<&QueuedRequest> for ApalisTask {
    fn from(request: &QueuedRequest) -> Self {
        Self(request.to_bytes())
    }
}

impl Serialize for ApalisTask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().copied().map(char::from).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for ApalisTask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Message;

        impl Visitor<'_> for Message {
            type Value = ApalisTask;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message as ISO 8859-1")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ApalisTask, E> {
                let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
                let bytes = bytes.map_err(|_| E::invalid_value(Unexpected::Str(text), &self))?;
                Ok(ApalisTask(bytes.into()))
            }
        }

        deserializer.deserialize_str(Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_a_round_trip() {
        let task = ApalisTask((0..=u8::MAX).collect());
        let text = serde_json::to_string(&task).unwrap();
        assert_eq!(serde_json::from_str::<ApalisTask>(&text).unwrap(), task);
        let value = serde_json::to_value(&task).unwrap();
        assert_eq!(serde_json::from_value::<ApalisTask>(value).unwrap(), task);
    }

    #[test]
    fn invalid_messages_are_errors_only_when_they_are_read() {
        let task: ApalisTask = serde_json::from_str("\"hello\"").unwrap();
        assert!(task.request().is_err());
        for other in ["\"\u{100}\"", "7", "[1]"] {
            assert!(serde_json::from_str::<ApalisTask>(other).is_err());
        }
    }
}
