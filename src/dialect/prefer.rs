use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// The preferences of a client (RFC 7240, *Prefer Header for HTTP*) that this crate uses.
///
/// `Prefer` may be repeated and may be a list; if a preference is given twice, the first
/// counts (section 2). Names are case-insensitive and values may be quoted. Parameters and
/// unknown or malformed preferences are ignored, as the RFC requires.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use std::time::Duration;
/// use tower_operations::dialect::Preferences;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("prefer", HeaderValue::from_static("Respond-Async, wait = \"10\"; x=1"));
/// headers.append("prefer", HeaderValue::from_static("wait=99"));
///
/// let preferences = Preferences::from_headers(&headers);
/// assert!(preferences.respond_async());
/// assert_eq!(preferences.wait(), Some(Duration::from_secs(10)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preferences {
    respond_async: bool,
    wait: Option<u64>,
}

static PREFER: HeaderName = HeaderName::from_static("prefer");

impl Preferences {
    /// Reads the preferences from the headers of a request.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut preferences = Self::default();
        let mut wait_given = false;
        for value in headers.get_all(&PREFER) {
            for preference in split(value.as_bytes(), b',') {
                let token = split(preference, b';').next().unwrap_or_default();
                let mut parts = token.splitn(2, |byte| *byte == b'=');
                let name = parts.next().unwrap_or_default().trim_ascii();
                let value = parts.next().map(unquote);
                if name.eq_ignore_ascii_case(b"respond-async") {
                    preferences.respond_async = true;
                } else if name.eq_ignore_ascii_case(b"wait") && !wait_given {
                    wait_given = true;
                    preferences.wait = value.as_deref().and_then(delta_seconds);
                }
            }
        }
        preferences
    }

    pub(crate) fn without_wait(self) -> Self {
        Self { wait: None, ..self }
    }

    /// Returns whether the client prefers a 202 (section 4.1).
    #[must_use]
    pub fn respond_async(self) -> bool {
        self.respond_async
    }

    /// Returns the wait as stated, including zero seconds.
    pub(crate) fn stated_wait(self) -> Option<Duration> {
        self.wait.map(Duration::from_secs)
    }

    /// Returns how long the client is willing to wait (section 4.3); `None` for zero
    /// seconds.
    #[must_use]
    pub fn wait(self) -> Option<Duration> {
        self.wait
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs)
    }
}

/// Splits `text` at each `separator` outside quoted strings.
pub(super) fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quotes = Quotes::default();
    text.split(move |byte| !quotes.enclose(*byte) && *byte == separator)
}

/// Returns whether every quoted string in `text` is closed.
pub(super) fn quotes_end(text: &[u8]) -> bool {
    let mut quotes = Quotes::default();
    !text.iter().fold(false, |_, byte| quotes.enclose(*byte))
}

/// Tracks quoted strings (RFC 9110, section 5.6.4).
#[derive(Default)]
struct Quotes {
    quoted: bool,
    escaped: bool,
}

impl Quotes {
    /// Reads the next byte; returns whether it is in a quoted string.
    fn enclose(&mut self, byte: u8) -> bool {
        if std::mem::take(&mut self.escaped) {
            return true;
        }
        match byte {
            b'"' => self.quoted = !self.quoted,
            b'\\' if self.quoted => self.escaped = true,
            _ => {}
        }
        self.quoted
    }
}

/// Returns the text of a token or a quoted string (RFC 9110, section 5.6.4).
pub(super) fn unquote(value: &[u8]) -> Vec<u8> {
    let value = value.trim_ascii();
    let Some(inner) = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    else {
        return value.to_vec();
    };
    let mut escaped = false;
    let keep = |byte: &&u8| {
        escaped = !escaped && **byte == b'\\';
        !escaped
    };
    inner.iter().filter(keep).copied().collect()
}

/// Parses whole seconds (RFC 9110, section 10.2.3); larger values saturate.
pub(super) fn delta_seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(text.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Preferences {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&PREFER, HeaderValue::from_str(value).unwrap());
        }
        Preferences::from_headers(&headers)
    }

    fn wait(values: &[&str]) -> Option<u64> {
        of(values).wait().map(|wait| wait.as_secs())
    }

    #[test]
    fn lists_repetitions_quotes_and_parameters_are_read() {
        assert_eq!(wait(&["wait=10"]), Some(10));
        assert_eq!(wait(&["WAIT = 10 ; foo=bar"]), Some(10));
        assert_eq!(wait(&["wait=\"1\\0\""]), Some(10));
        assert_eq!(wait(&["wait=5, wait=6", "wait=7"]), Some(5));
        assert_eq!(wait(&["wait=x, wait=6"]), None);
        assert_eq!(wait(&["foo=\"a, wait=3\"", "wait=4"]), Some(4));
        assert_eq!(wait(&["foo=\"\\\", wait=3\", wait=4"]), Some(4));
        assert_eq!(wait(&["foo; wait=3"]), None);
        assert_eq!(wait(&["wait=0"]), None);
        assert_eq!(wait(&["wait=-1"]), None);
        assert_eq!(wait(&["wait=1.5"]), None);
        assert_eq!(wait(&["wait=99999999999999999999999"]), Some(u64::MAX));
        assert!(of(&["return=minimal,, respond-async"]).respond_async());
        assert!(of(&["Respond-Async=\"\""]).respond_async());
        assert!(!of(&["respond-asynchronously"]).respond_async());
        assert!(!of(&["x; respond-async"]).respond_async());
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_ignored(value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(&PREFER, value);
                let _ = Preferences::from_headers(&headers);
            }
        }

        #[test]
        fn the_first_wait_counts_at_any_position(
            others in prop::collection::vec("[a-v][a-z]{0,6}(=([a-z0-9]{1,5}|\"[a-z, ;=]{0,8}\"))?( ?; ?[a-z]{1,4}=[a-z]{1,4})?", 0..5),
            at in 0_usize..5,
            seconds in 1_u64..100_000,
            lines in any::<bool>(),
        ) {
            let mut parts = others;
            let at = at.min(parts.len());
            parts.insert(at, format!("wait={seconds}"));
            parts.push("wait=7".into());
            let joined = parts.join(", ");
            let values: Vec<&str> = match lines {
                true => parts.iter().map(String::as_str).collect(),
                false => vec![&joined],
            };
            prop_assert_eq!(wait(&values), Some(seconds));
        }
    }
}
