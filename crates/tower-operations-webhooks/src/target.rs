use std::fmt;

use http::Uri;

use crate::host::Host;

/// The URL of a receiver, as a [`TargetPolicy`](crate::TargetPolicy) has checked it.
///
/// `Debug` and `Display` show the origin alone. The path and the query may have tokens, and are left
/// out.
///
/// ```
/// use tower_operations_webhooks::TargetPolicy;
///
/// let target = TargetPolicy::new().check("https://hooks.example.com/T0/k3y?token=1")?;
/// assert_eq!(target.to_string(), "https://hooks.example.com/…");
/// assert_eq!(target.expose_url(), "https://hooks.example.com/T0/k3y?token=1");
/// # Ok::<(), tower_operations_webhooks::TargetError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
    host: Host,
    port: u16,
}

impl Target {
    pub(crate) fn new(uri: Uri, host: Host, port: u16) -> Self {
        Self { uri, host, port }
    }

    /// Returns the URL with path and query.
    #[must_use]
    pub fn expose_url(&self) -> String {
        self.uri.to_string()
    }

    /// Returns the URL.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the host: a DNS name in lower case, or an address.
    #[cfg(any(feature = "client", test))]
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the scheme is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://")?;
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Address(std::net::IpAddr::V4(address)) => write!(f, "{address}")?,
            Host::Address(std::net::IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        if self.uri.port().is_some() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str("/…")
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// The reason why a URL is not a [`Target`]. The URL is not repeated: it may have tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The URL has more than 2,048 bytes.
    #[error(
        "the URL of a webhook has at most {} characters",
        crate::target_policy::MAX_URL
    )]
    TooLong,
    /// The text is not an absolute URL in ASCII.
    #[error("the URL of a webhook is an absolute URL in ASCII")]
    Malformed,
    /// The scheme is not `https`, or one that the policy allows.
    #[error("the scheme of the URL is not allowed")]
    Scheme,
    /// The URL has a user name or a password.
    #[error("the URL of a webhook has no user name and no password")]
    UserInfo,
    /// The URL has a fragment.
    #[error("the URL of a webhook has no fragment")]
    Fragment,
    /// The host is not a DNS name or an address in its plain form.
    #[error("the host of the URL is neither a DNS name nor a plain IP address")]
    Host,
    /// The host is not one of those that the policy allows.
    #[error("the host of the URL is not allowed")]
    HostNotAllowed,
    /// The port is not one of those that the policy allows.
    #[error("the port of the URL is not allowed")]
    Port,
    /// The host is an address, or a name of one, to which the policy admits no webhooks.
    #[error("the address of the host is not allowed")]
    Address,
}
