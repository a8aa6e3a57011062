//! The requirements on every HTTP answer.

use std::{fmt::Debug, future::poll_fn, pin::pin};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri, header};
use http_body::Body;
use serde_json::{Value, value::RawValue};

/// The field that marks a response of a service, as opposed to one of this crate.
pub(crate) const MARK: HeaderName = HeaderName::from_static("x-inner");

/// The number of frames that are read from an event stream.
const FRAMES: usize = 4;

/// An answer with the part of its body that was read.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Reads a response, and asserts that its body has the announced length.
    pub(crate) async fn read<B>(response: Response<B>) -> Self
    where
        B: Body<Data = Bytes>,
        B::Error: Debug,
    {
        let (parts, body) = response.into_parts();
        let size_hint = body.size_hint();
        let mut body = pin!(body);
        let (mut data, mut ended) = (Vec::new(), false);
        for _ in 0..FRAMES {
            match poll_fn(|context| body.as_mut().poll_frame(context)).await {
                Some(frame) => {
                    if let Ok(more) = frame.expect("a body without errors").into_data() {
                        data.extend_from_slice(&more);
                    }
                }
                None => {
                    ended = true;
                    break;
                }
            }
        }
        if ended {
            let length = data.len() as u64;
            assert!(
                size_hint.lower() <= length,
                "{size_hint:?} is more than {length}"
            );
            assert!(size_hint.upper().is_none_or(|upper| length <= upper));
        } else {
            assert_eq!(parts.headers["content-type"], "text/event-stream");
            assert_eq!(size_hint.exact(), None);
        }
        Self {
            status: parts.status,
            headers: parts.headers,
            body: data.into(),
        }
    }

    pub(crate) fn media_type(&self) -> &str {
        let value = self.headers.get(header::CONTENT_TYPE);
        let text = value.and_then(|value| value.to_str().ok());
        let essence = text.and_then(|text| text.split(';').next());
        essence.unwrap_or_default().trim()
    }

    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Returns whether the answer repeats a response of a service.
    pub(crate) fn is_replay(&self) -> bool {
        self.headers.contains_key(MARK)
    }

    /// Asserts the requirements on an answer to a request of this method. An answer with a
    /// status in `ends` may report the outcome of an operation. Any other answer is no server
    /// error, unless the store is unavailable or a capability of the dialect is missing.
    pub(crate) fn check(&self, method: &Method, ends: &[StatusCode]) {
        self.check_http(method);
        match self.is_replay() {
            true => self.check_replay(),
            false => self.check_own(method, ends.contains(&self.status)),
        }
        if ends.contains(&self.status) {
            return;
        }
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                let allow = self.headers[header::ALLOW].to_str().unwrap();
                assert!(
                    !allow.split(", ").any(|it| it == method.as_str()),
                    "{self:?}"
                );
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(self.headers.contains_key(header::RETRY_AFTER), "{self:?}");
            }
            StatusCode::NOT_IMPLEMENTED => {}
            status => assert!(!status.is_server_error(), "{self:?}"),
        }
    }

    fn check_http(&self, method: &Method) {
        let status = self.status.as_u16();
        assert!((200..600).contains(&status), "{self:?}");
        let has_no_body = *method == Method::HEAD || matches!(status, 204 | 304);
        assert!(!has_no_body || self.body.is_empty(), "{self:?}");
        let lengths: Vec<_> = self
            .headers
            .get_all(header::CONTENT_LENGTH)
            .iter()
            .collect();
        assert!(lengths.len() <= 1, "{self:?}");
        if let Some(length) = lengths.first() {
            assert_ne!(status, 204, "{self:?}");
            let length: usize = length.to_str().unwrap().parse().unwrap();
            assert!(has_no_body || length == self.body.len(), "{self:?}");
        }
        for name in ["keep-alive", "transfer-encoding", "upgrade"] {
            assert!(!self.headers.contains_key(name), "{name} in {self:?}");
        }
        // The connection may close if a body is too large, or if a service that timed out has not
        // read the body.
        let cuts = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::GATEWAY_TIMEOUT];
        let is_cut = cuts.contains(&self.status);
        let connection = self.headers.get(header::CONNECTION);
        assert!(
            connection.is_none_or(|it| is_cut && it == "close"),
            "{self:?}"
        );
    }

    /// Asserts that a repeated response has no fields of a poll, and is not sniffed. A recorded
    /// 200 has the validator of its body, and may be a part.
    fn check_replay(&self) {
        assert_eq!(self.headers["x-content-type-options"], "nosniff");
        if let Some(etag) = self.headers.get(header::ETAG) {
            let is_digest = etag.len() == 46 && etag.as_bytes().starts_with(b"\"");
            assert!(is_digest, "{self:?}");
            assert!(self.headers.contains_key(header::ACCEPT_RANGES), "{self:?}");
        }
        let is_part = self.status == StatusCode::PARTIAL_CONTENT;
        if self.headers.contains_key(header::ETAG) {
            let has_range = self.headers.contains_key(header::CONTENT_RANGE);
            assert_eq!(has_range, is_part, "{self:?}");
        }
        for name in ["retry-after", "set-cookie", "date", "operation-location"] {
            assert!(!self.headers.contains_key(name), "{name} in {self:?}");
        }
    }

    /// Asserts the requirements on an answer of this crate. The problem of an outcome may
    /// lack a title.
    fn check_own(&self, method: &Method, is_end: bool) {
        if let Some(seconds) = self.headers.get(header::RETRY_AFTER) {
            let seconds: u64 = seconds.to_str().unwrap().parse().unwrap();
            assert!(seconds >= 1, "{self:?}");
        }
        for name in [
            "location",
            "content-location",
            "operation-location",
            "azure-asyncoperation",
        ] {
            if let Some(value) = self.headers.get(name) {
                assert!(value.to_str().unwrap().parse::<Uri>().is_ok(), "{self:?}");
            }
        }
        if let Some(etag) = self.headers.get(header::ETAG) {
            let etag = etag.to_str().unwrap();
            let opaque = etag.strip_prefix("W/").unwrap_or(etag);
            let inner = opaque.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
            assert!(inner.is_some_and(|it| !it.contains('"')), "{self:?}");
        }
        if *method != Method::HEAD && !self.body.is_empty() {
            self.check_body(is_end);
        }
    }

    fn check_body(&self, is_end: bool) {
        match self.media_type() {
            "application/problem+json" => {
                let problem = self.json().expect("a problem is JSON");
                assert!(is_end || problem["title"].is_string(), "{self:?}");
                assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
                let kind = &problem["type"];
                assert!(kind.is_null() || kind.is_string(), "{self:?}");
            }
            "text/event-stream" => self.check_events(),
            json if json == "application/json" || json.ends_with("+json") => {
                // `RawValue` accepts JSON of any depth.
                let text = std::str::from_utf8(&self.body).expect("JSON is UTF-8");
                let read: Result<&RawValue, _> = serde_json::from_str(text);
                assert!(read.is_ok(), "{self:?}");
            }
            other => assert!(!other.is_empty(), "{self:?}"),
        }
    }

    /// Asserts that each event has JSON data and lines of known fields.
    fn check_events(&self) {
        let text = std::str::from_utf8(&self.body).expect("events are UTF-8");
        assert!(text.ends_with("\n\n"), "{self:?}");
        for event in text.split_terminator("\n\n") {
            let mut data = String::new();
            for line in event.lines() {
                if let Some(line) = line.strip_prefix("data: ") {
                    data.push_str(line);
                    data.push('\n');
                } else {
                    let known = ["id: ", "event: ", ":", "retry: "];
                    assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
                }
            }
            let read: Result<&RawValue, _> = serde_json::from_str(&data);
            assert!(data.is_empty() || read.is_ok(), "{self:?}");
        }
    }
}
