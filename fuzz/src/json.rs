//! The JSON check agrees with serde_json, and serde_json reads written strings unchanged.

use http::{Response, header::CONTENT_TYPE};
use serde_json::value::RawValue;
use tower_operations::{
    BufferedBody, Operation, Outcome, RecordedResponse,
    fuzzing::{json, json_string},
};

/// The depth up to which the check has to recognize JSON.
const DEPTH: usize = 100;

pub fn check(data: &[u8]) {
    let found = json(data);
    let text = std::str::from_utf8(data);
    let expected = text.is_ok_and(is_json);
    if depth(data) <= DEPTH {
        assert_eq!(found, expected);
    } else {
        assert!(expected || !found);
    }
    if let Ok(text) = text {
        let written = json_string(text);
        let read: String = serde_json::from_slice(&written).unwrap();
        assert_eq!(read, text);
    }
    for media_type in ["application/json", "text/plain"] {
        let mut response = Response::new(BufferedBody::from(data.to_vec()));
        let media_type = http::HeaderValue::from_static(media_type);
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        let outcome = Outcome::Succeeded(Some(RecordedResponse::new(response)));
        let mut operation = Operation::new("q3".parse().unwrap());
        operation
            .transition(outcome, std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let answer = operation.into_response(http::StatusCode::OK);
        let text = std::str::from_utf8(answer.body().data()).unwrap();
        assert!(is_json(text), "{text}");
    }
}

/// Returns whether a text is JSON of any depth.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Returns the maximum depth of brackets, whether the data is JSON or not.
fn depth(data: &[u8]) -> usize {
    let (mut now, mut maximum) = (0_usize, 0);
    for byte in data {
        match byte {
            b'[' | b'{' => now += 1,
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
        maximum = maximum.max(now);
    }
    maximum
}
