//! Requests as text, so that an input can be read, written and changed by hand:
//!
//! ```text
//! GET /operations/json?wait=3
//! Prefer: wait=1
//!
//! the body
//! ```

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use tower_operations::BufferedBody;

/// Splits the bytes into the first line and the rest.
pub(crate) fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// Parses a request; `None` if the first line is invalid. Fields that a server would refuse
/// are left out.
pub(crate) fn request(text: &[u8]) -> Option<Request<BufferedBody>> {
    let (line, mut rest) = split_line(text);
    let space = line.iter().position(|byte| *byte == b' ')?;
    let method = Method::from_bytes(&line[..space]).ok()?;
    let target = Uri::try_from(&line[space + 1..]).ok()?;
    // A server receives a path or a whole URL.
    let is_target = target.path().starts_with('/');
    let mut request = Request::new(BufferedBody::default());
    *request.method_mut() = method;
    *request.uri_mut() = is_target.then_some(target)?;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        rest = after;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    *request.body_mut() = BufferedBody::from(Bytes::copy_from_slice(rest));
    Some(request)
}
