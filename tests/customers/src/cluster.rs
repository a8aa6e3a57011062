use bytes::Bytes;
use http::{Request, Response};

/// The nodes that customers send their requests to.
pub trait Cluster: Send + Sync + 'static {
    /// Returns the number of nodes that serve requests.
    fn nodes(&self) -> usize;

    /// Returns the name of a node in the log.
    fn name(&self, node: usize) -> &str;

    /// Returns the URL that requests to a node begin with; empty for a path alone.
    fn url(&self, node: usize) -> &str;

    /// Sends a request to a node. Returns `None` if no answer comes.
    ///
    /// The customer drops the future when the time-out of the answer is over.
    fn send(
        &self,
        node: usize,
        request: Request<Bytes>,
    ) -> impl Future<Output = Option<Response<Bytes>>> + Send;

    /// Sends a request for a stream to a node, and appends the body to `body` as it comes. Returns
    /// the head of the answer at the end of the body, which may have broken off. Returns `None` if
    /// no answer comes.
    fn stream(
        &self,
        node: usize,
        request: Request<Bytes>,
        body: &mut Vec<u8>,
    ) -> impl Future<Output = Option<Response<()>>> + Send;
}
