//! The public URL of the service as a proxy reports it: `Forwarded` (RFC 7239), or
//! `X-Forwarded-Proto` and `X-Forwarded-Host`.
//!
//! The last of several values counts: the nearest proxy has added it, while a client may
//! have sent those before it. A host without a scheme has the scheme of the base URL; a
//! scheme without a host is ignored.

use http::{HeaderMap, HeaderName, header::FORWARDED};

use super::authority::is_host_and_port;
use crate::dialect::prefer::{quotes_end, split, unquote};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The header that a proxy is trusted to set. A client can send the other one, which the
/// proxy may pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForwardingHeader {
    /// The header `Forwarded`.
    Standard,
    /// The headers `X-Forwarded-Proto` and `X-Forwarded-Host`.
    Older,
}

/// Returns scheme and host as a URL without a path, if both are valid. `scheme` is the
/// default if the proxy names none.
pub(crate) fn base(headers: &HeaderMap, by: ForwardingHeader, scheme: &str) -> Option<String> {
    let (named, host) = match by {
        ForwardingHeader::Standard => {
            let element = last(headers, &FORWARDED)?;
            let parameter = |name: &[u8]| {
                split(element, b';').find_map(|pair| {
                    let mut parts = pair.splitn(2, |byte| *byte == b'=');
                    let key = parts.next()?.trim_ascii();
                    let value = parts.next()?;
                    key.eq_ignore_ascii_case(name).then(|| unquote(value))
                })
            };
            (parameter(b"proto"), parameter(b"host")?)
        }
        ForwardingHeader::Older => {
            let value = |name| last(headers, name).map(unquote);
            (value(&X_FORWARDED_PROTO), value(&X_FORWARDED_HOST)?)
        }
    };
    let scheme = match named.as_deref().map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"https") => "https",
        Some(b"http") => "http",
        Some(_) => return None,
        None => scheme,
    };
    let host = std::str::from_utf8(&host).ok()?;
    is_host_and_port(host).then(|| format!("{scheme}://{host}"))
}

/// Returns the last element. Returns `None` if a quoted string is not closed: a client
/// could open a quote to swallow the element that the proxy appends.
fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let value = headers.get_all(name).iter().next_back()?.as_bytes();
    let element = split(value, b',').last().map(<[u8]>::trim_ascii);
    element.filter(|_| quotes_end(value))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::{ForwardingHeader::*, *};

    fn base_of(by: ForwardingHeader, fields: &[(&'static str, &'static str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        base(&headers, by, "http")
    }

    #[test]
    fn the_nearest_proxy_counts() {
        let forwarded = |value| base_of(Standard, &[("forwarded", value)]);
        for (value, expected) in [
            ("host=a.example;proto=https", "https://a.example"),
            (
                "proto=https;host=\"a.example:8443\"",
                "https://a.example:8443",
            ),
            ("For=\"[::1]\";Host=a.example", "http://a.example"),
            (
                "host=evil.example, host=a.example;proto=HTTPS",
                "https://a.example",
            ),
            ("host=\"evil, x\", host=\"[::1]:80\"", "http://[::1]:80"),
        ] {
            assert_eq!(forwarded(value).as_deref(), Some(expected), "{value}");
        }
        let twice = [
            ("forwarded", "host=evil.example"),
            ("forwarded", "host=a.example"),
        ];
        assert_eq!(
            base_of(Standard, &twice).as_deref(),
            Some("http://a.example")
        );
        let older = [
            ("forwarded", "host=evil.example"),
            ("x-forwarded-host", "evil.example, a.example"),
            ("x-forwarded-proto", "http, https"),
        ];
        assert_eq!(base_of(Older, &older).as_deref(), Some("https://a.example"));
    }

    #[test]
    fn hosts_without_a_scheme_get_the_scheme_of_the_base() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, HeaderValue::from_static("host=\"[::1]:8443\""));
        headers.insert(X_FORWARDED_HOST, HeaderValue::from_static("a.example:8080"));
        for (by, host) in [(Standard, "[::1]:8443"), (Older, "a.example:8080")] {
            for scheme in ["http", "https"] {
                let expected = format!("{scheme}://{host}");
                assert_eq!(base(&headers, by, scheme), Some(expected));
            }
        }
    }

    #[test]
    fn invalid_hosts_are_ignored() {
        for value in [
            "for=1.2.3.4",
            "host=",
            "host=\"\"",
            "host=\"a b\"",
            "host=a/b",
            "host=user@a.example",
            "host=a.example;proto=ftp",
            "host=a.example;proto=\"\"",
            "host=a.example, for=1.2.3.4",
            "host=a.example:",
            "host=\"a.example:99999\"",
            "host=\"[::g]\"",
            "host=::1",
            "host=\"a.example\\\\evil\"",
            "host=evil.example;for=\", host=a.example",
        ] {
            let forwarded = base_of(Standard, &[("forwarded", value)]);
            assert_eq!(forwarded, None, "{value}");
        }
        for host in [
            "a.example:",
            "a.example:99999",
            "user@a.example",
            "a/b",
            "[::g]",
            "\"evil",
        ] {
            let older = [("x-forwarded-host", host), ("x-forwarded-proto", "https")];
            assert_eq!(base_of(Older, &older), None, "{host}");
        }
        assert_eq!(base_of(Older, &[("x-forwarded-proto", "https")]), None);
        assert_eq!(base_of(Standard, &[("forwarded", "proto=https")]), None);
        for by in [Standard, Older] {
            assert_eq!(base_of(by, &[("host", "a.example")]), None);
        }
    }
}
