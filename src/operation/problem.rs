use std::borrow::Cow;

use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use serde_json::{Map, Value};

use super::WholeBody;

/// What went wrong, after RFC 9457 (*Problem Details for HTTP APIs*), with
/// extension members.
///
/// It goes through JSON and back unchanged. Members whose value has another
/// type than section 3.1 says are ignored when reading, as that section asks.
/// `type` is `about:blank` where it is not given.
///
/// As a response of its own it is `application/problem+json`
/// ([`Problem::into_response`]); embedded in an operation it is plain JSON.
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
pub struct Problem(Box<Members>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Members {
    kind: Option<Box<str>>,
    title: Option<Box<str>>,
    status: Option<StatusCode>,
    detail: Option<Box<str>>,
    instance: Option<Box<str>>,
    extensions: Map<String, Value>,
}

/// The media type of a problem that stands alone (RFC 9457, section 3).
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl Problem {
    /// A problem with this status, titled as the status is.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self(Box::new(Members {
            title: status.canonical_reason().map(Into::into),
            status: Some(status),
            ..Members::default()
        }))
    }

    /// Sets `type`, a URI reference.
    #[must_use]
    pub fn with_type(mut self, uri: impl Into<Box<str>>) -> Self {
        self.0.kind = Some(uri.into());
        self
    }

    /// Sets `title`, the same for every problem of one type.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<Box<str>>) -> Self {
        self.0.title = Some(title.into());
        self
    }

    /// Sets `detail`, what went wrong this time.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Sets `instance`, a URI reference that names this occurrence.
    #[must_use]
    pub fn with_instance(mut self, uri: impl Into<Box<str>>) -> Self {
        self.0.instance = Some(uri.into());
        self
    }

    /// Sets an extension member (section 3.2). The names of section 3.1 have
    /// setters of their own and are left alone here.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let name = name.into();
        if !STANDARD.contains(&name.as_str()) {
            self.0.extensions.insert(name, value.into());
        }
        self
    }

    /// `type`; `about:blank` where none is given.
    #[must_use]
    pub fn type_uri(&self) -> &str {
        self.0.kind.as_deref().unwrap_or("about:blank")
    }

    /// `title`.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.0.title.as_deref()
    }

    /// `status`.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// `detail`.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// `instance`.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }

    /// An extension member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.extensions.get(name)
    }

    /// The extension member `code`, if it is a string.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.get("code").and_then(Value::as_str)
    }

    /// A word for programs: `code`, or one made of the problem's type, where that is
    /// one of this crate's (`urn:tower-operations:timed-out` is `TimedOut`), or of its
    /// status (`422` is `UnprocessableEntity`).
    #[must_use]
    pub fn error_code(&self) -> Cow<'_, str> {
        if let Some(code) = self.code() {
            return code.into();
        }
        let own = self.type_uri().strip_prefix("urn:tower-operations:");
        let reason = || self.status()?.canonical_reason();
        let words = own.or_else(reason).unwrap_or("Failed");
        let mut code = String::with_capacity(words.len());
        for word in words.split(|letter: char| !letter.is_ascii_alphanumeric()) {
            let mut letters = word.chars();
            code.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            code.push_str(letters.as_str());
        }
        code.into()
    }

    /// Whether the same request can succeed another time: what the extension member
    /// `retryable` says, or else the status (408, 425, 429, 502, 503 and 504).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let said = self.get("retryable").and_then(Value::as_bool);
        said.unwrap_or_else(|| {
            let status = self.status().map_or(500, |status| status.as_u16());
            matches!(status, 408 | 425 | 429 | 502..=504)
        })
    }

    /// The problem as a response of its own: its status (500 where it has
    /// none), `application/problem+json`, `Cache-Control: no-store`.
    #[must_use]
    pub fn into_response(self) -> Response<WholeBody> {
        let status = self.0.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(WholeBody::from(self.to_json()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(
            http::header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        );
        response
    }

    /// The problem as JSON text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, a number and JSON values under string keys: nothing that
        // serde_json refuses.
        serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec())
    }

    /// The problem that a response stands for: its own, if it carries one,
    /// else one made from its status.
    pub(crate) fn of_response(status: StatusCode, media_type: Option<&[u8]>, body: &[u8]) -> Self {
        let is_problem = media_type.is_some_and(|media_type| {
            essence(media_type).eq_ignore_ascii_case(b"application/problem+json")
        });
        let given = (is_problem && body.len() <= LARGEST)
            .then(|| serde_json::from_slice::<Self>(body).ok())
            .flatten();
        let mut problem = given.unwrap_or_else(|| Self::new(status));
        problem.0.status.get_or_insert(status);
        problem
    }

    /// About how many bytes it takes on the heap.
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

/// About how many bytes a value takes.
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

/// A larger problem, in bytes, is not taken over from a response: it would be
/// in every answer about the operation.
const LARGEST: usize = 64 * 1024;

/// A media type without its parameters.
pub(crate) fn essence(media_type: &[u8]) -> &[u8] {
    media_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii()
}

/// The problem as a response of its own.
#[cfg(feature = "axum")]
impl axum_core::response::IntoResponse for Problem {
    fn into_response(self) -> axum_core::response::Response {
        Self::into_response(self).map(axum_core::body::Body::new)
    }
}

const STANDARD: [&str; 5] = ["type", "title", "status", "detail", "instance"];

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Members {
            kind,
            title,
            status,
            detail,
            instance,
            extensions,
        } = &*self.0;
        let mut map = serializer.serialize_map(None)?;
        if let Some(kind) = kind {
            map.serialize_entry("type", kind)?;
        }
        if let Some(title) = title {
            map.serialize_entry("title", title)?;
        }
        if let Some(status) = status {
            map.serialize_entry("status", &status.as_u16())?;
        }
        if let Some(detail) = detail {
            map.serialize_entry("detail", detail)?;
        }
        if let Some(instance) = instance {
            map.serialize_entry("instance", instance)?;
        }
        for (name, value) in extensions {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Object(mut members) = Value::deserialize(deserializer)? else {
            return Err(de::Error::custom("a problem is a JSON object"));
        };
        let mut text = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Some(text.into_boxed_str()),
            _ => None,
        };
        let [kind, title, detail, instance] =
            ["type", "title", "detail", "instance"].map(&mut text);
        let status = members
            .remove("status")
            .and_then(|status| status.as_u64())
            .and_then(|status| u16::try_from(status).ok())
            .and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Self(Box::new(Members {
            kind,
            title,
            status,
            detail,
            instance,
            extensions: members,
        })))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("\\PC*", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn goes_through_json_and_back(
            kind in prop::option::of("\\PC*"),
            title in "\\PC*",
            status in 100_u16..1000,
            extensions in prop::collection::hash_map("\\PC*", json_value(), 0..4),
        ) {
            let mut problem = Problem::new(StatusCode::from_u16(status).unwrap()).with_title(title);
            if let Some(kind) = kind {
                problem = problem.with_type(kind);
            }
            for (name, value) in extensions {
                problem = problem.with(name, value);
            }
            let back: Problem = serde_json::from_slice(&problem.to_json()).unwrap();
            prop_assert_eq!(back, problem);
        }
    }

    #[test]
    fn members_of_another_type_are_ignored() {
        let problem: Problem = serde_json::from_value(json!({
            "type": 1, "title": null, "status": "422", "detail": [], "instance": {}, "code": "X",
        }))
        .unwrap();
        assert_eq!(problem, Problem::default().with("code", "X"));
        assert_eq!(problem.type_uri(), "about:blank");
        for status in [
            json!(0),
            json!(99),
            json!(1000),
            json!(70_000),
            json!(-1),
            json!(4.5),
        ] {
            let problem: Problem = serde_json::from_value(json!({ "status": status })).unwrap();
            assert_eq!(problem.status(), None);
        }
        assert!(serde_json::from_str::<Problem>("[]").is_err());
    }

    #[test]
    fn a_problem_that_is_too_large_is_made_from_the_status() {
        let body = format!(r#"{{"detail":"{}"}}"#, "x".repeat(LARGEST));
        let media_type = Some(&b"application/problem+json"[..]);
        let problem = Problem::of_response(StatusCode::CONFLICT, media_type, body.as_bytes());
        assert_eq!(problem, Problem::new(StatusCode::CONFLICT));
    }

    #[test]
    fn extensions_cannot_shadow_the_standard_members() {
        let problem = Problem::new(StatusCode::CONFLICT).with("status", 200);
        assert_eq!(problem.to_json(), br#"{"title":"Conflict","status":409}"#);
    }

    #[test]
    fn a_response_without_a_problem_gets_one_from_its_status() {
        let of = |media_type: &'static str, body: &str| {
            Problem::of_response(
                StatusCode::IM_A_TEAPOT,
                Some(media_type.as_bytes()),
                body.as_bytes(),
            )
        };
        let own = of(
            "Application/Problem+JSON; charset=utf-8",
            r#"{"detail":"short and stout"}"#,
        );
        assert_eq!(own.detail(), Some("short and stout"));
        assert_eq!(own.status(), Some(StatusCode::IM_A_TEAPOT));
        for made in [
            of("application/problem+json", "{"),
            of("text/plain", r#"{"detail":"x"}"#),
        ] {
            assert_eq!(made, Problem::new(StatusCode::IM_A_TEAPOT));
        }
    }
}
