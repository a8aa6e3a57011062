//! The authority of a URL: host and port.

use std::{net::Ipv6Addr, num::NonZeroU16};

/// Returns whether `text` is a host, with an optional port, to which clients can be sent. The
/// host is a name or an address of unreserved characters, or an IPv6 address in brackets (RFC
/// 3986, section 3.2.2). User information is invalid (RFC 9110, section 4.2.4), and so is port 0
/// (RFC 6335, section 6).
pub(crate) fn is_host_and_port(text: &str) -> bool {
    let (host, after) = match text.strip_prefix('[') {
        Some(address) => match address.split_once(']') {
            Some((address, after)) => (address.parse::<Ipv6Addr>().is_ok(), after),
            None => return false,
        },
        None => {
            let (name, after) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(name), after)
        }
    };
    host && match after.strip_prefix(':') {
        Some(port) => is_port(port),
        None => after.is_empty(),
    }
}

fn is_name(text: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_name)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<NonZeroU16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port_and_nothing_else() {
        for good in [
            "a.example",
            "A-1_b.example.",
            "127.0.0.1:80",
            "localhost:65535",
            "[::1]",
            "[2001:DB8::1]:8443",
        ] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a.example:",
            "a.example:65536",
            "a.example:99999",
            "a.example:0",
            "a.example:00000",
            "[::1]:0",
            "a.example:+80",
            "a.example:80:80",
            "a.example:8o",
            "user@a.example",
            "user:pass@a.example",
            "a b",
            "a/b",
            "a\\b",
            "a\"b",
            "a,b",
            "a?b",
            "a#b",
            "a\u{e4}",
            "a\r\nb",
            "a%41",
            "::1",
            "[::1",
            "[::1]8",
            "[::1]:",
            "[::g]",
            "[a.example]",
            "[fe80::1%25eth0]",
        ] {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }
}
