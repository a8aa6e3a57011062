use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, LINK, LOCATION, RETRY_AFTER},
};

use super::{
    Urls,
    answers::{JSON, NO_STORE, typed},
    retry_after::whole_seconds,
};
use crate::{
    codec::{push_number, push_string},
    operation::{BufferedBody, OperationId, State},
};

/// The `202 Accepted` response of an operation (RFC 9110, section 15.3.3), for use without
/// the layer.
///
/// ```
/// use std::time::Duration;
/// use tower_operations::{Accepted, OperationId};
///
/// let id: OperationId = "q3".parse()?;
/// let response = Accepted::new(&id)
///     .with_location("/operations/q3")
///     .with_retry_after(Duration::from_millis(1500))
///     .into_response();
///
/// assert_eq!(response.status(), 202);
/// assert_eq!(response.headers()["location"], "/operations/q3");
/// assert_eq!(response.headers()["retry-after"], "2");
/// assert_eq!(
///     response.body().data(),
///     r#"{"id":"q3","state":"pending","location":"/operations/q3"}"#,
/// );
/// # Ok::<(), tower_operations::InvalidId>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Accepted<'a> {
    id: &'a OperationId,
    state: State,
    urls: Cow<'a, Urls>,
    retry_after: Option<u64>,
}

impl<'a> Accepted<'a> {
    /// Creates the response for the pending operation `id`.
    pub fn new(id: &'a OperationId) -> Self {
        Self {
            id,
            state: State::Pending,
            urls: Cow::default(),
            retry_after: None,
        }
    }

    /// Sets the URL or path of the operation. White space around the text is trimmed; if the
    /// text is empty, no `Location` is sent.
    pub fn with_location(self, url: impl Into<String>) -> Self {
        Self {
            urls: Cow::Owned(Urls::new(url)),
            ..self
        }
    }

    /// Sets the delay before the first poll, which is sent in whole seconds, rounded up. If
    /// it is zero, no `Retry-After` is sent.
    pub fn with_retry_after(self, after: Duration) -> Self {
        let retry_after = (!after.is_zero()).then(|| whole_seconds(after));
        Self {
            retry_after,
            ..self
        }
    }

    pub(super) fn of_operation(
        self,
        state: State,
        urls: &'a Urls,
        retry_after: Option<u64>,
    ) -> Self {
        Self {
            state,
            urls: Cow::Borrowed(urls),
            retry_after,
            ..self
        }
    }

    /// Returns the response.
    #[must_use]
    pub fn into_response(self) -> Response<BufferedBody> {
        // One allocation for the URL, the body and the values of the header fields, in this
        // order.
        let url = self.urls.length();
        let mut text = Vec::with_capacity(192 + self.id.text_len() + 3 * url);
        self.urls.push_to(&mut text);
        self.push_body(url, &mut text);
        let body = text.len() - url;
        if url > 0 {
            self.push_link(url, &mut text);
        }
        let link = text.len() - url - body;
        if let Some(seconds) = self.retry_after {
            push_number::<10>(seconds, &mut text);
        }

        let mut text = Bytes::from(text);
        let location = text.split_to(url);
        let mut response = typed(StatusCode::ACCEPTED, JSON, text.split_to(body));
        let headers = response.headers_mut();
        headers.append(CACHE_CONTROL, NO_STORE);
        append(headers, LOCATION, location);
        append(headers, LINK, text.split_to(link));
        append(headers, RETRY_AFTER, text);
        response
    }

    /// Appends the body to `text`, whose first `url` bytes are the URL.
    fn push_body(&self, url: usize, text: &mut Vec<u8>) {
        let is_plain = self.urls.is_plain(self.id);
        text.extend_from_slice(b"{\"id\":\"");
        match is_plain {
            true => text.extend_from_within(url - self.id.text_len()..url),
            false => self.id.push_to(text),
        }
        text.extend_from_slice(b"\",\"state\":\"");
        text.extend_from_slice(self.state.as_str().as_bytes());
        text.push(b'"');
        if url > 0 {
            text.extend_from_slice(b",\"location\":");
            match is_plain {
                true => {
                    text.push(b'"');
                    text.extend_from_within(..url);
                    text.push(b'"');
                }
                false => push_string(self.urls.status().unwrap_or_default(), text),
            }
        }
        text.push(b'}');
    }

    /// Appends the link to the result to `text`, whose first `url` bytes are the URL.
    fn push_link(&self, url: usize, text: &mut Vec<u8>) {
        text.push(b'<');
        match self.urls.is_plain(self.id) {
            true => {
                text.extend_from_within(..url);
                text.extend_from_slice(b"/result");
            }
            false => {
                let result = self.urls.below("result").unwrap_or_default();
                text.extend_from_slice(result.as_bytes());
            }
        }
        text.extend_from_slice(b">; rel=\"result\"");
    }
}

/// Appends a field that is not set yet, if the value is valid in a header and not empty.
fn append(headers: &mut HeaderMap, name: HeaderName, value: Bytes) {
    match HeaderValue::from_maybe_shared(value) {
        Ok(value) if value.is_empty() => {}
        Ok(value) => {
            headers.append(name, value);
        }
        Err(_) => tracing::error!(%name, "header value invalid, field left out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_are_left_out() {
        let id: OperationId = "q3".parse().unwrap();
        let response = Accepted::new(&id)
            .with_location("  ")
            .with_retry_after(Duration::ZERO)
            .into_response();
        assert_eq!(response.body().data(), r#"{"id":"q3","state":"pending"}"#);
        for name in ["location", "retry-after", "link"] {
            assert!(!response.headers().contains_key(name), "{name}");
        }
        let response = Accepted::new(&id).with_location(" /a/q3\t").into_response();
        assert_eq!(response.headers()["location"], "/a/q3");
        assert_eq!(response.headers()["link"], "</a/q3/result>; rel=\"result\"");
    }

    #[test]
    fn locations_that_are_no_header_values_are_left_out() {
        let id: OperationId = "q3".parse().unwrap();
        let response = Accepted::new(&id)
            .with_location("/a\r\nset-cookie: x")
            .into_response();
        assert!(!response.headers().contains_key("location"));
        assert!(!response.headers().contains_key("link"));
    }
}
