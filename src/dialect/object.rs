//! A writer of JSON objects, member by member, since serde cannot embed the bytes of a
//! recorded result.

use std::time::SystemTime;

use http::{Response, StatusCode};
use serde::Serialize;

use super::{ApiError, Context, answers::typed};
use crate::{
    codec::push_rfc3339,
    operation::{BufferedBody, OperationId, OperationView, RecordedResponse},
};

/// A JSON object. Nested objects are written into the same text.
pub(super) struct Object {
    text: Vec<u8>,
    /// The first error of a value that could not be written.
    failed: Option<serde_json::Error>,
}

impl Object {
    pub(super) fn new() -> Self {
        Self::begin(Vec::with_capacity(256))
    }

    /// Begins an object for an operation, with capacity for its result.
    pub(super) fn begin_operation(operation: &OperationView<'_>) -> Self {
        let body = operation.recorded().and_then(RecordedResponse::body);
        let body = body.map_or(0, <[u8]>::len);
        Self::begin(Vec::with_capacity(512 + body))
    }

    fn begin(mut text: Vec<u8>) -> Self {
        text.push(b'{');
        Self { text, failed: None }
    }

    /// Begins a member; the caller appends the value.
    fn member(&mut self, name: &str) -> &mut Vec<u8> {
        // No value ends with `{`, so this is the first member.
        if self.text.last() != Some(&b'{') {
            self.text.push(b',');
        }
        self.text.push(b'"');
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
        &mut self.text
    }

    /// Appends a nested object.
    fn inner(mut self, fill: impl FnOnce(Self) -> Self) -> Self {
        self.text.push(b'{');
        let mut filled = fill(self);
        filled.text.push(b'}');
        filled
    }

    pub(super) fn value(mut self, name: &str, value: impl Serialize) -> Self {
        let written = serde_json::to_writer(self.member(name), &value);
        self.failed = self.failed.or(written.err());
        self
    }

    /// Adds the id of an operation, which needs no escapes.
    pub(super) fn id(mut self, name: &str, id: &OperationId) -> Self {
        let text = self.member(name);
        text.push(b'"');
        id.push_to(text);
        text.push(b'"');
        self
    }

    /// Adds a member, if there is a value.
    pub(super) fn some(self, name: &str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.value(name, value),
            None => self,
        }
    }

    /// Adds a time after RFC 3339, if it is known.
    pub(super) fn time(mut self, name: &str, at: Option<SystemTime>) -> Self {
        if let Some(at) = at {
            let text = self.member(name);
            text.push(b'"');
            push_rfc3339(at, text);
            text.push(b'"');
        }
        self
    }

    pub(super) fn object(mut self, name: &str, fill: impl FnOnce(Self) -> Self) -> Self {
        self.member(name);
        self.inner(fill)
    }

    /// Adds an array of objects, one for each item.
    pub(super) fn objects<T>(
        mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        fill: impl Fn(Self, T) -> Self,
    ) -> Self {
        self.member(name);
        self.array(items, fill)
    }

    fn array<T>(
        mut self,
        items: impl IntoIterator<Item = T>,
        fill: impl Fn(Self, T) -> Self,
    ) -> Self {
        self.text.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.text.push(b',');
            }
            self = self.inner(|object| fill(object, item));
        }
        self.text.push(b']');
        self
    }

    /// Adds a value that is already JSON.
    pub(super) fn raw(mut self, name: &str, json: &[u8]) -> Self {
        self.member(name).extend_from_slice(json);
        self
    }

    /// Records the error of a value that could not be written.
    pub(super) fn failed(self, error: serde_json::Error) -> Self {
        Self {
            failed: Some(error),
            ..self
        }
    }

    /// Adds the result, or the response that came with a failure, if it can be embedded.
    /// Returns whether it was added.
    pub(super) fn result(
        mut self,
        name: &str,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> (Self, bool) {
        let before = self.text.len();
        self.member(name);
        let written = operation.write_result(context.inline_limit, &mut self.text);
        let is_embedded = matches!(written, Ok(true));
        if !is_embedded {
            self.text.truncate(before);
        }
        self.failed = self.failed.or(written.err());
        (self, is_embedded)
    }

    fn finish(mut self) -> Result<Vec<u8>, ApiError> {
        self.text.push(b'}');
        self.whole()
    }

    fn whole(self) -> Result<Vec<u8>, ApiError> {
        match self.failed {
            None => Ok(self.text),
            Some(error) => {
                tracing::error!(%error, "result not serialized");
                Err(ApiError::Unpresentable)
            }
        }
    }

    pub(super) fn into_response(
        self,
        status: StatusCode,
        media_type: &'static str,
    ) -> Result<Response<BufferedBody>, ApiError> {
        Ok(typed(status, media_type, self.finish()?))
    }

    /// Returns the response of an object without a result, which cannot fail.
    pub(super) fn into_error(
        self,
        status: StatusCode,
        media_type: &'static str,
    ) -> Response<BufferedBody> {
        typed(
            status,
            media_type,
            self.finish().unwrap_or_else(|_| b"{}".to_vec()),
        )
    }
}

/// Returns an array of objects.
pub(super) fn list<T>(
    items: impl IntoIterator<Item = T>,
    fill: impl Fn(Object, T) -> Object,
) -> Result<Vec<u8>, ApiError> {
    let nothing = Object {
        text: Vec::with_capacity(1024),
        failed: None,
    };
    nothing.array(items, fill).whole()
}
