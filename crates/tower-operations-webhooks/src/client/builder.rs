use std::{fmt, sync::Arc, time::Duration};

use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};

use super::{
    Resolve, WebhookClient,
    connector::{Connector, ConnectorSettings},
    resolve::{DynResolve, SystemResolver},
};
use crate::TargetPolicy;

/// The default time-out of a connection: for resolving, connecting, and the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for which a connection is kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of connections to one host that are kept.
const MAX_IDLE_PER_HOST: usize = 4;

/// The maximum size of the head of an answer in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// A builder of a [`WebhookClient`].
pub struct WebhookClientBuilder {
    policy: TargetPolicy,
    resolver: Box<dyn DynResolve>,
    roots: Vec<CertificateDer<'static>>,
    tls: Option<ClientConfig>,
    connect_timeout: Duration,
}

impl Default for WebhookClientBuilder {
    fn default() -> Self {
        Self {
            policy: TargetPolicy::new(),
            resolver: Box::new(SystemResolver::new()),
            roots: Vec::new(),
            tls: None,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

impl WebhookClientBuilder {
    /// Sets the policy. The default is the strictest one.
    #[must_use]
    pub fn policy(self, policy: TargetPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Sets the resolver of names. The default is that of the operating system.
    #[must_use]
    pub fn resolver(self, resolver: impl Resolve) -> Self {
        Self {
            resolver: Box::new(resolver),
            ..self
        }
    }

    /// Trusts a certificate authority, in DER, besides those that the operating system trusts.
    #[must_use]
    pub fn add_root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.roots.push(CertificateDer::from(der.into()));
        self
    }

    /// Replaces the settings of TLS, for example to send a certificate of the client, or to trust fewer
    /// certificate authorities. The certificates of [`add_root_certificate`](Self::add_root_certificate) and
    /// of the operating system are then not used.
    #[must_use]
    pub fn tls_config(self, tls: ClientConfig) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }

    /// Sets the time-out of a connection, 10 seconds by default. It includes resolving the name, and the
    /// TLS handshake.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            ..self
        }
    }

    /// Builds the client. This reads the certificates of the operating system from files.
    ///
    /// # Errors
    /// [`ClientBuildError`] if a root certificate is invalid, or if there is none and the policy does not
    /// allow `http`.
    pub fn build(self) -> Result<WebhookClient, ClientBuildError> {
        let mut tls = match self.tls {
            Some(tls) => tls,
            None => default_tls(self.roots, self.policy.allows_http())?,
        };
        // The client speaks nothing else.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let policy = Arc::new(self.policy);
        let connector = Connector::new(ConnectorSettings {
            policy: Arc::clone(&policy),
            resolver: self.resolver,
            tls: Arc::new(tls),
            timeout: self.connect_timeout,
        });
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .http1_max_buf_size(MAX_HEAD)
            .build(connector);
        Ok(WebhookClient { http, policy })
    }
}

fn default_tls(
    added: Vec<CertificateDer<'static>>,
    may_have_no_roots: bool,
) -> Result<ClientConfig, ClientBuildError> {
    let mut roots = RootCertStore::empty();
    // Systems have certificates that rustls cannot read.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in added {
        roots
            .add(certificate)
            .map_err(|_| ClientBuildError::InvalidRootCertificate)?;
    }
    if roots.is_empty() && !may_have_no_roots {
        return Err(ClientBuildError::NoRootCertificates);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports these versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

impl fmt::Debug for WebhookClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookClientBuilder")
            .field("policy", &self.policy)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// The reason why a [`WebhookClient`] cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientBuildError {
    /// The operating system trusts no certificate authority that was found, for example because a
    /// container has no package `ca-certificates`.
    #[error("no root certificates were found")]
    NoRootCertificates,
    /// A certificate that was added is not the DER of a certificate.
    #[error("a root certificate is invalid")]
    InvalidRootCertificate,
}
