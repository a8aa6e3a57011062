//! Writing JSON member by member: a result that is kept as bytes is embedded as the
//! bytes it is, which serde has no word for.

use std::{io::Write, time::SystemTime};

use http::{Response, StatusCode};
use serde::Serialize;

use super::{Context, Fault, answers::typed};
use crate::operation::{OperationView, WholeBody, rfc3339};

/// A JSON object.
pub(super) struct Object {
    text: Vec<u8>,
    /// The first error of a value, if one could not be written.
    failed: Option<serde_json::Error>,
}

impl Object {
    pub(super) fn new() -> Self {
        Self::with_capacity(256)
    }

    /// Of an operation, with room for its result.
    pub(super) fn of(operation: &OperationView<'_>) -> Self {
        let body = operation.recorded().map_or(0, |it| it.body().len());
        Self::with_capacity(512 + body)
    }

    fn with_capacity(bytes: usize) -> Self {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'{');
        Self { text, failed: None }
    }

    /// Begins a member; its value is what is pushed next.
    fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        self.text.push(b'"');
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
        &mut self.text
    }

    pub(super) fn value(mut self, name: &str, value: impl Serialize) -> Self {
        let written = serde_json::to_writer(self.member(name), &value);
        self.failed = self.failed.or(written.err());
        self
    }

    /// Leaves the member out where there is no value.
    pub(super) fn some(self, name: &str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.value(name, value),
            None => self,
        }
    }

    /// A moment after RFC 3339, if it is known.
    pub(super) fn time(mut self, name: &str, at: Option<SystemTime>) -> Self {
        if let Some(at) = at {
            // Writing to a Vec cannot fail.
            let _ = write!(self.member(name), "\"{}\"", rfc3339(at));
        }
        self
    }

    pub(super) fn object(mut self, name: &str, inner: Self) -> Self {
        let Self { mut text, failed } = inner;
        text.push(b'}');
        self.member(name).extend_from_slice(&text);
        self.failed = self.failed.or(failed);
        self
    }

    pub(super) fn objects(mut self, name: &str, inner: impl IntoIterator<Item = Self>) -> Self {
        let (list, failed) = array(inner);
        self.member(name).extend_from_slice(&list);
        self.failed = self.failed.or(failed);
        self
    }

    /// A value that is JSON already.
    pub(super) fn raw(mut self, name: &str, json: &[u8]) -> Self {
        self.member(name).extend_from_slice(json);
        self
    }

    /// Something in it could not be written.
    pub(super) fn failed(self, error: serde_json::Error) -> Self {
        Self {
            failed: Some(error),
            ..self
        }
    }

    /// The result, or the response that came with a failure, if it can be embedded;
    /// says whether it was.
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

    /// The text as it is, to be embedded or sent.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Fault> {
        self.text.push(b'}');
        whole(self.text, self.failed)
    }

    pub(super) fn into_response(
        self,
        status: StatusCode,
        media_type: &'static str,
    ) -> Result<Response<WholeBody>, Fault> {
        Ok(typed(status, media_type, self.finish()?))
    }

    /// As an answer to what cannot fail: nothing in it is a result.
    pub(super) fn into_error(
        self,
        status: StatusCode,
        media_type: &'static str,
    ) -> Response<WholeBody> {
        typed(
            status,
            media_type,
            self.finish().unwrap_or_else(|_| b"{}".to_vec()),
        )
    }
}

/// Objects as an array of its own.
pub(super) fn list(objects: impl IntoIterator<Item = Object>) -> Result<Vec<u8>, Fault> {
    let (text, failed) = array(objects);
    whole(text, failed)
}

fn array(objects: impl IntoIterator<Item = Object>) -> (Vec<u8>, Option<serde_json::Error>) {
    let mut text = b"[".to_vec();
    let mut first_failed = None;
    for (
        index,
        Object {
            text: inner,
            failed,
        },
    ) in objects.into_iter().enumerate()
    {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&inner);
        text.push(b'}');
        first_failed = first_failed.or(failed);
    }
    text.push(b']');
    (text, first_failed)
}

fn whole(text: Vec<u8>, failed: Option<serde_json::Error>) -> Result<Vec<u8>, Fault> {
    match failed {
        None => Ok(text),
        Some(error) => {
            tracing::error!(%error, "a result cannot be written as JSON");
            Err(Fault::Unpresentable)
        }
    }
}
