use std::{future::Future, io, net::IpAddr, pin::Pin};

/// A resolver of names, for a [`WebhookClient`](crate::WebhookClient). The default one is that of the
/// operating system.
///
/// A client calls the resolver once for each connection, and with names alone: an address in a URL is
/// used as it is.
pub trait Resolve: Send + Sync + 'static {
    /// Returns the addresses of a DNS name, the preferred one first.
    fn resolve(&self, name: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// The resolver of the operating system.
#[derive(Debug, Clone, Copy)]
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // The port is not used.
        let addresses = tokio::net::lookup_host((name, 0)).await?;
        Ok(addresses.map(|address| address.ip()).collect())
    }
}

/// A type-erased [`Resolve`].
pub(super) trait DynResolve: Send + Sync {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;
}

impl<R: Resolve> DynResolve for R {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(Resolve::resolve(self, name))
    }
}
