use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::{ClientError, connection::ReceiverConnection, resolve::DynResolve};
use crate::{FailureReason, Target, TargetError, TargetPolicy, host::Host, timeouts::after};

/// The connector of the client: it connects only to addresses that it has checked.
#[derive(Clone)]
pub(super) struct Connector(Arc<ConnectorSettings>);

pub(super) struct ConnectorSettings {
    pub(super) policy: Arc<TargetPolicy>,
    pub(super) resolver: Box<dyn DynResolve>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) timeout: Duration,
}

impl Connector {
    pub(super) fn new(settings: ConnectorSettings) -> Self {
        Self(Arc::new(settings))
    }
}

type ConnectFuture =
    Pin<Box<dyn Future<Output = Result<TokioIo<ReceiverConnection>, ClientError>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<ReceiverConnection>;
    type Error = ClientError;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> ConnectFuture {
        let settings = Arc::clone(&self.0);
        Box::pin(async move {
            let deadline = after(settings.timeout);
            let connected = timeout_at(deadline, settings.connect(&uri, deadline)).await;
            let late = |late| Err(ClientError::new(FailureReason::Timeout, late));
            connected.unwrap_or_else(late).map(TokioIo::new)
        })
    }
}

impl ConnectorSettings {
    async fn connect(
        &self,
        uri: &Uri,
        deadline: Instant,
    ) -> Result<ReceiverConnection, ClientError> {
        let target = self.policy.check(&uri.to_string());
        let target = target.map_err(|refused| ClientError::new(FailureReason::Refused, refused))?;
        let addresses = self.addresses(&target).await?;
        let stream = connect_to_any(&addresses, target.port(), deadline).await?;
        match target.is_https() {
            true => self.handshake(&target, stream).await,
            false => Ok(ReceiverConnection::Plain(stream)),
        }
    }

    /// Returns the addresses of a target, each of which the policy admits.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, ClientError> {
        let addresses = match target.host() {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let resolved = self.resolver.resolve(name).await;
                resolved.map_err(|error| ClientError::new(FailureReason::Resolve, error))?
            }
        };
        if addresses.is_empty() {
            let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(ClientError::new(FailureReason::Resolve, none));
        }
        // A name with public and private addresses is an attempt to pass the check, or a mistake.
        match addresses.iter().all(|address| self.policy.admits(*address)) {
            true => Ok(addresses),
            false => Err(ClientError::new(
                FailureReason::Refused,
                TargetError::Address,
            )),
        }
    }

    async fn handshake(
        &self,
        target: &Target,
        stream: TcpStream,
    ) -> Result<ReceiverConnection, ClientError> {
        let name = match target.host() {
            Host::Name(name) => ServerName::try_from(name.to_string()),
            Host::Address(address) => Ok(ServerName::from(*address)),
        };
        let name = name.map_err(|error| ClientError::new(FailureReason::Tls, error))?;
        let connected = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await;
        match connected {
            Ok(stream) => Ok(ReceiverConnection::Tls(Box::new(stream))),
            Err(error) => Err(ClientError::new(FailureReason::Tls, error)),
        }
    }
}

/// The number of addresses of a name that are tried. All are checked.
const TRIED: usize = 8;

/// Connects to the first address that answers, of the first eight. Each address has its share of the time that is left, so
/// that one that does not answer leaves time for the others.
async fn connect_to_any(
    addresses: &[IpAddr],
    port: u16,
    deadline: Instant,
) -> Result<TcpStream, ClientError> {
    let mut last = None;
    let addresses = &addresses[..addresses.len().min(TRIED)];
    for (index, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = now + deadline.saturating_duration_since(now) / left;
        let connect = TcpStream::connect(SocketAddr::new(*address, port));
        match timeout_at(share, connect).await {
            Ok(Ok(stream)) => {
                // A request is one write, which should not wait for an acknowledgment.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(ClientError::new(FailureReason::Connect, error)),
            Err(late) => last = Some(ClientError::new(FailureReason::Timeout, late)),
        }
    }
    Err(last.expect("there is at least one address"))
}
