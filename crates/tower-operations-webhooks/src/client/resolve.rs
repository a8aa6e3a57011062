use std::{
    future::Future,
    io,
    net::{IpAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
};

use tokio::{sync::Semaphore, task::spawn_blocking};

/// A resolver of names, for a [`WebhookClient`](crate::WebhookClient). The default one is that of the
/// operating system.
///
/// A client calls the resolver once for each connection, and with names alone: an address in a URL is
/// used as it is.
pub trait Resolve: Send + Sync + 'static {
    /// Returns the addresses of a DNS name, the preferred one first.
    fn resolve(&self, name: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// The number of names that the operating system resolves at a time. Each takes a thread, also after
/// its time-out.
const AT_ONCE: usize = 32;

/// The resolver of the operating system.
#[derive(Debug, Clone)]
pub(super) struct SystemResolver(Arc<Semaphore>);

impl SystemResolver {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let name = name.to_owned();
        let resolved = spawn_blocking(move || {
            let _permit = permit;
            // The port is not used.
            let addresses = (&*name, 0).to_socket_addrs()?;
            Ok(addresses.map(|address| address.ip()).collect())
        });
        resolved.await?
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
