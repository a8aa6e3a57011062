//! The problem of a failed response.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Problem, RecordedResponse,
    media_type::{essence, is_json_type, is_utf8},
};
use crate::codec::is_json_down_to;

/// The maximum size in bytes of a body that is read, since the problem is part of every
/// response about the operation.
const LARGEST: usize = 64 * 1024;

/// The maximum depth of a body that is read. Records and responses nest the problem
/// further, and JSON readers commonly stop at 128.
const DEEPEST: u32 = 100;

/// The maximum length in bytes of a text that is used as `detail`.
const LONGEST: usize = 1024;

/// Returns the problem of a response: the problem that the response carries, if there is one.
/// Otherwise the problem is derived from the status, and from the plain text of the response or
/// a customary member of its JSON.
///
/// The status of the problem is that of the response: a status in the body is only advisory (RFC
/// 9457, section 3.1.2).
pub(super) fn problem_of(response: &RecordedResponse) -> Problem {
    let (status, body) = (response.status(), response.body().unwrap_or_default());
    let own = |problem: Problem| problem.with_status(status);
    let made = Problem::new(status);
    let Some(media_type) = response.media_type().map(str::as_bytes) else {
        return made;
    };
    if response.is_encoded() || body.len() > LARGEST {
        return made;
    }
    let essence = essence(media_type);
    let detail = if essence.eq_ignore_ascii_case(b"application/problem+json") {
        return read(body).map_or(made, own);
    } else if is_json_type(essence) {
        read(body).and_then(|value| detail_of(&value).map(str::to_owned))
    } else if essence.eq_ignore_ascii_case(b"text/plain") && is_utf8(media_type) {
        let text = std::str::from_utf8(body).ok();
        text.and_then(explanation).map(str::to_owned)
    } else {
        None
    };
    match detail {
        Some(detail) => made.with_detail(detail),
        None => made,
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    match is_json_down_to(DEEPEST, body) {
        true => serde_json::from_slice(body).ok(),
        false => None,
    }
}

/// Returns the explanation in a customary member of an object: that of RFC 9457, of many
/// frameworks, of RFC 6749, or of common use.
fn detail_of(value: &Value) -> Option<&str> {
    let error = value.get("error");
    [
        value.get("detail"),
        value.get("message"),
        value.get("error_description"),
        error.and_then(|error| error.get("message")),
        error,
    ]
    .into_iter()
    .flatten()
    .find_map(|text| explanation(text.as_str()?))
}

/// Returns the trimmed text, unless it is empty or too long.
fn explanation(text: &str) -> Option<&str> {
    let text = text.trim();
    (1..=LONGEST).contains(&text.len()).then_some(text)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response, StatusCode};

    use super::*;
    use crate::operation::BufferedBody;

    fn of(media_type: &'static str, body: impl Into<bytes::Bytes>) -> Problem {
        encoded(None, media_type, body)
    }

    fn encoded(
        encoding: Option<&'static str>,
        media_type: &'static str,
        body: impl Into<bytes::Bytes>,
    ) -> Problem {
        let mut response = Response::new(BufferedBody::from(body.into()));
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static(media_type));
        if let Some(encoding) = encoding {
            headers.insert("content-encoding", HeaderValue::from_static(encoding));
        }
        problem_of(&RecordedResponse::new(response))
    }

    fn bare() -> Problem {
        Problem::new(StatusCode::IM_A_TEAPOT)
    }

    #[test]
    fn problems_of_responses_get_the_status_of_the_response() {
        for status in [
            "",
            ",\"status\":200",
            ",\"status\":404",
            ",\"status\":\"x\"",
        ] {
            let own = of(
                "Application/Problem+JSON; charset=utf-8",
                format!(r#"{{"detail":"short and stout"{status}}}"#),
            );
            assert_eq!(own.detail(), Some("short and stout"));
            assert_eq!(own.status(), Some(StatusCode::IM_A_TEAPOT));
        }
    }

    #[test]
    fn bodies_without_an_explanation_give_a_problem_of_the_status_alone() {
        let deep = format!(
            "{{\"detail\":\"a\",\"b\":{}1{}}}",
            "[".repeat(100),
            "]".repeat(100)
        );
        for (media_type, body) in [
            ("application/problem+json", "{"),
            ("application/problem+json", "[]"),
            ("application/problem+json", &deep),
            ("application/json", &deep),
            ("application/json", "{"),
            ("application/json", "\"text\""),
            (
                "application/json",
                r#"{"detail":7,"message":null,"error":{"message":[]}}"#,
            ),
            ("application/json", r#"{"detail":" ","message":""}"#),
            ("text/plain", " \r\n"),
            ("text/plain; charset=iso-8859-1", "no data"),
            ("text/html", "<b>no data</b>"),
            ("text/markdown", "no data"),
            ("application/octet-stream", "no data"),
        ] {
            assert_eq!(
                of(media_type, body.to_owned()),
                bare(),
                "{media_type}: {body}"
            );
        }
        assert_eq!(of("text/plain", &b"gr\xfcn"[..]), bare());
        assert_eq!(encoded(Some("gzip"), "text/plain", "no data"), bare());
        let problem = r#"{"detail":"no data"}"#;
        assert_eq!(
            encoded(Some("gzip"), "application/problem+json", problem),
            bare()
        );
    }

    #[test]
    fn short_plain_texts_become_the_detail() {
        for media_type in ["text/plain", "text/plain; charset=utf-8", "Text/Plain"] {
            let problem = of(media_type, "page 3 has no data\n");
            assert_eq!(problem, bare().with_detail("page 3 has no data"));
        }
        let longest = "x".repeat(LONGEST);
        assert_eq!(of("text/plain", longest.clone()).detail(), Some(&*longest));
        assert_eq!(of("text/plain", "x".repeat(LONGEST + 1)), bare());
    }

    #[test]
    fn customary_members_of_json_become_the_detail() {
        for body in [
            r#"{"detail":"no data"}"#,
            r#"{"message":"no data"}"#,
            r#"{"error":"invalid_request","error_description":"no data"}"#,
            r#"{"error":{"code":"X","message":"no data"}}"#,
            r#"{"error":"no data"}"#,
            r#"{"error":"Conflict","message":" no data "}"#,
            r#"{"detail":[],"message":"no data"}"#,
        ] {
            for media_type in ["application/json", "application/vnd.api+json"] {
                let problem = of(media_type, body);
                assert_eq!(problem, bare().with_detail("no data"), "{body}");
            }
        }
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(LONGEST + 1));
        assert_eq!(of("application/json", long), bare());
    }

    #[test]
    fn bodies_that_are_too_large_are_not_read() {
        let body = format!(r#"{{"detail":"a","b":"{}"}}"#, "x".repeat(LARGEST));
        for media_type in ["application/problem+json", "application/json"] {
            assert_eq!(of(media_type, body.clone()), bare());
        }
    }
}
