//! The judge of JSON says what serde_json says, and strings are written as it reads them.

use http::{Response, header::CONTENT_TYPE};
use serde_json::value::RawValue;
use tower_operations::{
    BufferedBody, Operation, Outcome, RecordedResponse,
    fuzzing::{json, json_string},
};

/// What is deeper need not be taken for JSON.
const DEPTH: usize = 100;

pub fn check(data: &[u8]) {
    let ours = json(data);
    let text = std::str::from_utf8(data);
    let theirs = text.is_ok_and(is_json);
    if depth(data) <= DEPTH {
        assert_eq!(ours, theirs);
    } else {
        assert!(theirs || !ours);
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

/// It is only read through, so it may be as deep as it likes.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// How deep it is at the most, whether it is JSON or not.
fn depth(data: &[u8]) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for byte in data {
        match byte {
            b'[' | b'{' => now += 1,
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}
