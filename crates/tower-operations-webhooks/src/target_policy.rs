use std::net::IpAddr;

use http::{Uri, uri::Authority};

use crate::{Target, TargetError, addresses::AddressKind, host::Host};

/// The maximum length of a URL in bytes.
pub(crate) const MAX_URL: usize = 2048;

/// The rules of where webhooks may be sent: a guard against server-side request forgery.
///
/// A URL is chosen by somebody outside, and requested from inside of the network. The rules are:
///
/// 1. The scheme is `https`. [`allow_http`](Self::allow_http) admits `http`.
/// 2. The port is 443, or also 80 with `http`, or one of [`ports`](Self::ports).
/// 3. There are no user name, no password and no fragment.
/// 4. The host is a DNS name with a dot, or an IP address in its plain form. Numbers such as `127.1`
///    and `0x7f000001`, escapes, and a trailing dot are refused. So are characters outside of ASCII: an
///    internationalized name is given as `xn--…`.
/// 5. The host is one of [`hosts`](Self::hosts), if they are set.
/// 6. The address is public. [`allow_private_addresses`](Self::allow_private_addresses) admits
///    loopback, private networks, unique-local addresses and carrier-grade NAT. Link-local addresses,
///    metadata services of clouds, multicast, reserved addresses, those for documentation, and those
///    of 6to4 and Teredo are never admitted. An address that embeds one of IPv4, mapped or of NAT64, is
///    judged by that.
///
/// [`check`](Self::check) applies these rules to a URL before anything is sent. The address of a name is
/// known only when the name is resolved, so a client has to apply [`admits`](Self::admits) to the address
/// to which it connects, as `WebhookClient` does.
///
/// ```
/// use tower_operations_webhooks::{TargetError, TargetPolicy};
///
/// let policy = TargetPolicy::new();
/// assert!(policy.check("https://hooks.example.com/operations?tenant=7").is_ok());
/// assert_eq!(policy.check("http://hooks.example.com/"), Err(TargetError::Scheme));
/// assert_eq!(policy.check("https://169.254.169.254/"), Err(TargetError::Address));
/// ```
#[derive(Debug, Clone, Default)]
pub struct TargetPolicy {
    allows_http: bool,
    allows_private: bool,
    ports: Ports,
    /// The hosts in lower case; `None` allows each.
    hosts: Option<Vec<Box<str>>>,
}

#[derive(Debug, Clone, Default)]
enum Ports {
    /// The port of the scheme.
    #[default]
    Standard,
    These(Vec<u16>),
    Any,
}

impl TargetPolicy {
    /// Creates the strictest policy: https, port 443, public addresses, any host.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows `http`, and port 80 unless the ports are set. Such webhooks are signed, and not
    /// encrypted.
    #[must_use]
    pub fn allow_http(self) -> Self {
        Self {
            allows_http: true,
            ..self
        }
    }

    /// Admits loopback, private networks, unique-local addresses and carrier-grade NAT, and names
    /// without a dot, for tests and for receivers inside of the network. Set [`hosts`](Self::hosts), too,
    /// where URLs come from outside.
    #[must_use]
    pub fn allow_private_addresses(self) -> Self {
        Self {
            allows_private: true,
            ..self
        }
    }

    /// Sets the ports that are allowed with either scheme.
    #[must_use]
    pub fn ports(self, ports: impl IntoIterator<Item = u16>) -> Self {
        let ports = Ports::These(ports.into_iter().collect());
        Self { ports, ..self }
    }

    /// Allows every port except 0.
    #[must_use]
    pub fn any_port(self) -> Self {
        Self {
            ports: Ports::Any,
            ..self
        }
    }

    /// Sets the hosts that are allowed: a name, an address as in a URL, or `*.` and a domain for all
    /// names below the domain. The other rules apply to them, too.
    #[must_use]
    pub fn hosts<H: AsRef<str>>(self, hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts = hosts.into_iter();
        let hosts = hosts.map(|host| host.as_ref().to_ascii_lowercase().into());
        Self {
            hosts: Some(hosts.collect()),
            ..self
        }
    }

    /// Returns the target that a URL is, if the policy allows its form. What its name resolves to is
    /// not known yet.
    ///
    /// # Errors
    /// [`TargetError`] says which rule refuses the URL.
    pub fn check(&self, url: &str) -> Result<Target, TargetError> {
        if url.len() > MAX_URL {
            return Err(TargetError::TooLong);
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
        if !url.bytes().all(is_plain) {
            return Err(TargetError::Malformed);
        }
        // `Uri` drops a fragment.
        if url.contains('#') {
            return Err(TargetError::Fragment);
        }
        let uri: Uri = url.parse().map_err(|_| TargetError::Malformed)?;
        let standard_port = match uri.scheme_str() {
            Some("https") => 443,
            Some("http") if self.allows_http => 80,
            Some(_) => return Err(TargetError::Scheme),
            None => return Err(TargetError::Malformed),
        };
        let authority = uri.authority().ok_or(TargetError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInfo);
        }
        let host = Host::parse(authority.host()).ok_or(TargetError::Host)?;
        if !self.allows_host(authority.host()) {
            return Err(TargetError::HostNotAllowed);
        }
        let port = port(authority, standard_port).ok_or(TargetError::Port)?;
        if !self.allows_port(port, standard_port) {
            return Err(TargetError::Port);
        }
        let is_admitted = match &host {
            Host::Address(address) => self.admits(*address),
            Host::Name(_) => self.allows_private || !host.is_local_name(),
        };
        match is_admitted {
            true => Ok(Target::new(uri, host, port)),
            false => Err(TargetError::Address),
        }
    }

    /// Returns whether webhooks may be sent to an address.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        match AddressKind::of(address) {
            AddressKind::Public => true,
            AddressKind::Private => self.allows_private,
            AddressKind::Special => false,
        }
    }

    /// Returns whether the policy allows `http`.
    #[cfg(feature = "client")]
    pub(crate) fn allows_http(&self) -> bool {
        self.allows_http
    }

    fn allows_port(&self, port: u16, standard: u16) -> bool {
        match &self.ports {
            Ports::Standard => port == standard,
            Ports::These(ports) => ports.contains(&port),
            Ports::Any => true,
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        let Some(allowed) = &self.hosts else {
            return true;
        };
        let host = host.to_ascii_lowercase();
        allowed
            .iter()
            .any(|allowed| match allowed.strip_prefix('*') {
                // With the dot, so that `*.example.com` is not `evilexample.com`.
                Some(domain) => domain.starts_with('.') && host.ends_with(domain),
                None => **allowed == *host,
            })
    }
}

/// Returns the port; `None` if it is empty, 0, or not a plain number.
fn port(authority: &Authority, standard: u16) -> Option<u16> {
    let rest = authority.as_str().strip_prefix(authority.host())?;
    let Some(digits) = rest.strip_prefix(':') else {
        return rest.is_empty().then_some(standard);
    };
    let port: u16 = digits.parse().ok()?;
    (port != 0 && port.to_string() == digits).then_some(port)
}

#[cfg(test)]
mod tests;
