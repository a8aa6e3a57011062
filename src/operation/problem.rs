mod members;

use std::{borrow::Cow, sync::Arc};

use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Map, Value};

use self::members::STANDARD;
use super::BufferedBody;

/// A description of an error after RFC 9457 (*Problem Details for HTTP APIs*), with
/// extension members. Clones share the members.
///
/// A problem is unchanged by a round trip through JSON. Deserialization ignores members
/// whose value has a type other than section 3.1 defines, as that section requires. `type`
/// is `about:blank` by default.
///
/// As a response, a problem is `application/problem+json` ([`Problem::into_response`]);
/// embedded in an operation, it is plain JSON.
///
/// ```
/// use http::StatusCode;
/// use tower_operations::Problem;
///
/// let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
///     .with_title("Report failed")
///     .with_detail("page 3 has no data")
///     .with("code", "InvalidInput");
/// assert_eq!(problem.code(), Some("InvalidInput"));
///
/// let text = serde_json::to_string(&problem)?;
/// assert_eq!(serde_json::from_str::<Problem>(&text)?, problem);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem(Arc<Members>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Members {
    kind: Option<Box<str>>,
    title: Option<Box<str>>,
    status: Option<StatusCode>,
    detail: Option<Box<str>>,
    instance: Option<Box<str>>,
    extensions: Map<String, Value>,
}

/// The media type of a problem as a response (RFC 9457, section 3).
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl Problem {
    /// Creates a problem with this status, and the reason phrase of the status as title.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self(Arc::new(Members {
            title: status.canonical_reason().map(Into::into),
            status: Some(status),
            ..Members::default()
        }))
    }

    /// Sets `type`, a URI reference.
    #[must_use]
    pub fn with_type(mut self, uri: impl Into<Box<str>>) -> Self {
        self.members().kind = Some(uri.into());
        self
    }

    /// Sets `title`, which is the same for every problem of one type.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<Box<str>>) -> Self {
        self.members().title = Some(title.into());
        self
    }

    /// Sets `status`.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.members().status = Some(status);
        self
    }

    /// Sets `detail`, the explanation of this occurrence.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.members().detail = Some(detail.into());
        self
    }

    /// Sets `instance`, a URI reference that names this occurrence.
    #[must_use]
    pub fn with_instance(mut self, uri: impl Into<Box<str>>) -> Self {
        self.members().instance = Some(uri.into());
        self
    }

    /// Sets an extension member (section 3.2). The names of section 3.1 have their own
    /// setters and are ignored here.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let name = name.into();
        if !STANDARD.contains(&name.as_str()) {
            self.members().extensions.insert(name, value.into());
        }
        self
    }

    /// Returns `type`; `about:blank` if none is set.
    #[must_use]
    pub fn type_uri(&self) -> &str {
        self.0.kind.as_deref().unwrap_or("about:blank")
    }

    /// Returns `title`.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.0.title.as_deref()
    }

    /// Returns `status`.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// Returns `detail`.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Returns `instance`.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }

    /// Returns an extension member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.extensions.get(name)
    }

    /// Returns the extension member `code`, if it is a string.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.get("code").and_then(Value::as_str)
    }

    /// Returns an error code for programs: `code`, or one derived from the status (`422`
    /// gives `UnprocessableEntity`).
    #[must_use]
    pub fn error_code(&self) -> Cow<'_, str> {
        self.error_code_at(self.status())
    }

    pub(super) fn error_code_at(&self, status: Option<StatusCode>) -> Cow<'_, str> {
        let reason = || status?.canonical_reason();
        match self.code() {
            Some(code) => code.into(),
            None => in_one_word(reason().unwrap_or("Failed")).into(),
        }
    }

    /// Returns whether a retry of the same request can succeed: the value of the extension
    /// member `retryable`, or else derived from the status (408, 425, 429, 502, 503 and 504 are
    /// retryable).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.is_retryable_at(self.error_status())
    }

    pub(super) fn is_retryable_at(&self, status: StatusCode) -> bool {
        let said = self.get("retryable").and_then(Value::as_bool);
        said.unwrap_or(matches!(status.as_u16(), 408 | 425 | 429 | 502..=504))
    }

    /// Returns the status of a response with this problem: the problem's own if it is 4xx
    /// or 5xx, else 500.
    pub(super) fn error_status(&self) -> StatusCode {
        self.0
            .status
            .map_or(StatusCode::INTERNAL_SERVER_ERROR, of_an_error)
    }

    /// Returns the problem as a response, with `application/problem+json` and `Cache-Control:
    /// no-store`. The status is that of the problem; 500 if the problem has none, or one that is
    /// not 4xx or 5xx.
    #[must_use]
    pub fn into_response(mut self) -> Response<BufferedBody> {
        let status = self.error_status();
        // RFC 9457, section 3.1.2: the member equals the status of the response.
        if let Some(said) = &mut self.members().status {
            *said = status;
        }
        let mut response = Response::new(BufferedBody::from(self.to_json()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(
            http::header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        );
        response
    }

    /// Returns the problem as JSON text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Serialization cannot fail: the problem is strings, a number and JSON values under
        // string keys.
        serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec())
    }

    /// Returns the members for a change. Clones of the problem keep theirs.
    fn members(&mut self) -> &mut Members {
        Arc::make_mut(&mut self.0)
    }

    /// Returns the approximate size on the heap in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let Members {
            kind,
            title,
            detail,
            instance,
            extensions,
            ..
        } = &*self.0;
        let texts = [kind, title, detail, instance];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let extensions: usize = extensions
            .iter()
            .map(|(name, value)| name.len() + weigh(value))
            .sum();
        size_of::<Members>() + texts + extensions
    }
}

/// Returns `status` if it is 4xx or 5xx, else 500.
pub(super) fn of_an_error(status: StatusCode) -> StatusCode {
    match status.is_client_error() || status.is_server_error() {
        true => status,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Converts words to one word: `Unprocessable Entity` to `UnprocessableEntity`, `timed-out`
/// to `TimedOut`.
pub(crate) fn in_one_word(words: &str) -> String {
    let mut code = String::with_capacity(words.len());
    for word in words.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        let mut letters = word.chars();
        code.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        code.push_str(letters.as_str());
    }
    code
}

/// Returns the approximate size of a value in bytes.
fn weigh(value: &Value) -> usize {
    let inside = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(weigh).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| 32 + name.len() + weigh(value))
            .sum(),
    };
    size_of::<Value>() + inside
}

#[cfg(test)]
mod tests;
