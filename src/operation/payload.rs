use std::fmt;

use serde::Serialize;

use super::RecordedResponse;

/// A result that can be sent to clients: a [`RecordedResponse`], which is replayed, or any
/// `Serialize` type, which is written as JSON.
///
/// Every read clones the result. Wrap a large type in an `Arc`.
pub trait Payload: Clone + Send + Sync + 'static {
    /// Returns the result in the form in which it is sent.
    fn view(&self) -> PayloadView<'_>;
}

/// A [`Payload`] in the form in which it is sent.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum PayloadView<'a> {
    /// A complete response, replayed byte for byte.
    Response(&'a RecordedResponse),
    /// A value, written as JSON.
    Json(&'a dyn ToJson),
}

/// A value that can be written as JSON; implemented for every `Serialize` type.
pub trait ToJson {
    /// Appends the value's JSON text to `out`.
    ///
    /// # Errors
    /// The error of the value's `Serialize`, for example for a map with keys that are not
    /// strings.
    fn to_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error>;
}

impl<T: Serialize> ToJson for T {
    fn to_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(out, self)
    }
}

impl<T: Clone + Serialize + Send + Sync + 'static> Payload for T {
    fn view(&self) -> PayloadView<'_> {
        PayloadView::Json(self)
    }
}

impl Payload for RecordedResponse {
    fn view(&self) -> PayloadView<'_> {
        PayloadView::Response(self)
    }
}

impl fmt::Debug for PayloadView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response(response) => f.debug_tuple("Response").field(response).finish(),
            Self::Json(_) => f.debug_tuple("Json").finish_non_exhaustive(),
        }
    }
}
