//! The host of a URL: a DNS name or an address, in its plain form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The maximum length of a DNS name.
const MAX_NAME: usize = 253;

/// The maximum length of a label of a DNS name.
const MAX_LABEL: usize = 63;

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A DNS name in lower case.
    Name(Box<str>),
    Address(IpAddr),
}

impl Host {
    /// Parses the host of a URL. Forms that other software could read as another host are refused:
    /// numbers that are no address in its usual form, escapes, characters outside of ASCII, and a
    /// trailing dot.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']')?;
            let address: Ipv6Addr = inner.parse().ok()?;
            return (address.to_string() == inner).then_some(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        is_name(&text).then(|| Self::Name(text.into()))
    }

    /// Returns whether this is a name that leads to this machine, or into its network.
    pub(crate) fn is_local_name(&self) -> bool {
        match self {
            Self::Name(name) => !name.contains('.') || name.ends_with(".localhost"),
            Self::Address(_) => false,
        }
    }
}

/// Returns whether a text in lower case is a DNS name. Its last label begins with a letter, as those
/// of all top-level domains do: a number there makes an address of the name elsewhere.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_valid =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(is_valid)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= MAX_NAME
        && text.split('.').all(is_label)
        && last.starts_with(|first: char| first.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_and_addresses_are_hosts() {
        for (text, expected) in [
            ("example.com", "example.com"),
            ("Hooks.Example.COM", "hooks.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1and1.com", "1and1.com"),
            ("0x7f.example", "0x7f.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(Host::parse(text), Some(Host::Name(expected.into())));
        }
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("[::1]", "::1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ] {
            let address = expected.parse().unwrap();
            assert_eq!(Host::parse(text), Some(Host::Address(address)));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let label = "a".repeat(64);
        let long = format!("{}com", "aaa.".repeat(64));
        for text in [
            "",
            ".",
            "..",
            "example.com.",
            "localhost.",
            ".example.com",
            "a..b",
            "-a.com",
            "a-.com",
            "a_b.com",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "017700000001",
            "127.1",
            "127.0.1",
            "127.0.0.01",
            "0177.0.0.1",
            "0x7f.0.0.1",
            "127.0.0.1.",
            "1.2.3.4.5",
            "256.0.0.1",
            "1.2.3.-4",
            "example.0x7f",
            "example.1",
            "bücher.example",
            "ⓔxample.com",
            "１２７.0.0.1",
            "example%2ecom",
            "%6cocalhost",
            "exa mple.com",
            "a,b",
            "a*b.com",
            "[::1",
            "::1",
            "[]",
            "[::1%25eth0]",
            "[fe80::1%eth0]",
            "[v1.x]",
            "[0:0:0:0:0:0:0:1]",
            "[::0001]",
            "[1::0]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1",
            "[127.0.0.1]",
            &label,
            &long,
        ] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }

    #[test]
    fn local_names_are_known() {
        for (text, expected) in [
            ("localhost", true),
            ("intranet", true),
            ("a.localhost", true),
            ("localhost.example", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(Host::parse(text).unwrap().is_local_name(), expected);
        }
    }
}
