//! The ready client: HTTP/1.1 on hyper, with rustls.

mod body;
mod builder;
mod connection;
mod connector;
mod error;
mod resolve;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy;
use tower_service::Service;

use crate::{FailureReason, TargetPolicy};
use connector::Connector;

pub use body::ClientBody;
pub use builder::{ClientBuildError, WebhookClientBuilder};
pub use error::ClientError;
pub use resolve::Resolve;

/// A client for webhooks that connects only where its [`TargetPolicy`] admits it.
///
/// 1. The URL of each request is checked by the policy.
/// 2. The name is resolved once. Every address has to be admitted: one that is not refuses the request.
/// 3. The connection is made to an address that was checked. A name whose addresses change between the
///    check and the connection, by DNS rebinding, is therefore no way into the network.
/// 4. The certificate is verified against the name.
/// 5. Redirects are not followed. No proxy is used, also if the environment names one. No cookies are
///    kept.
///
/// An exchange has no time-out but that of the connection: [`Attempt`](crate::Attempt) sets one.
///
/// Clones share their connections. A connection is kept for 30 seconds for the next request to the same
/// host.
///
/// ```
/// use tower_operations_webhooks::{TargetPolicy, WebhookClient};
///
/// let policy = TargetPolicy::new().hosts(["*.example.com"]);
/// # fn client(policy: TargetPolicy) -> Result<WebhookClient, tower_operations_webhooks::ClientBuildError> {
/// let client = WebhookClient::builder().policy(policy).build()?;
/// # Ok(client)
/// # }
/// ```
#[derive(Clone)]
pub struct WebhookClient {
    http: legacy::Client<Connector, Full<Bytes>>,
    policy: Arc<TargetPolicy>,
}

impl WebhookClient {
    /// Creates a client with the strictest policy, which trusts the certificates that the operating
    /// system trusts.
    ///
    /// # Errors
    /// [`ClientBuildError`] if the operating system has none.
    pub fn new() -> Result<Self, ClientBuildError> {
        Self::builder().build()
    }

    /// Returns a builder.
    #[must_use]
    pub fn builder() -> WebhookClientBuilder {
        WebhookClientBuilder::default()
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &TargetPolicy {
        &self.policy
    }
}

impl Service<Request<Full<Bytes>>> for WebhookClient {
    type Response = Response<ClientBody>;
    type Error = ClientError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> ResponseFuture {
        // A connection that is kept for a host is used again without the connector.
        let checked = self.policy.check(&request.uri().to_string());
        let response = checked.map(|_| self.http.request(request));
        ResponseFuture(Box::pin(async move {
            match response {
                Err(refused) => Err(ClientError::new(FailureReason::Refused, refused)),
                Ok(response) => match response.await {
                    Ok(response) => Ok(response.map(ClientBody::new)),
                    Err(error) => Err(ClientError::from_exchange(error)),
                },
            }
        }))
    }
}

impl fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookClient")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// The future of a response of a [`WebhookClient`].
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(
    Pin<Box<dyn Future<Output = Result<Response<ClientBody>, ClientError>> + Send>>,
);

impl Future for ResponseFuture {
    type Output = Result<Response<ClientBody>, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
