//! The settings that the layers and the poll services share.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, request::Parts};

use super::Operations;
use crate::{
    dialect::{Dialect, ForwardingHeader, InvalidPublicUrl, RetryAfter},
    operation::{OperationId, RecordedResponse},
    owner::ExtractOwner,
    results::{ResultStorage, ResultStore},
    run::{Hook, RunLimits, Runtime, TerminalHook},
    settings::SharedSettings,
    store::LeaseConfig,
};

impl<R, D> Operations<R, D> {
    pub(super) fn from_runtime(runtime: Runtime<R>) -> Self {
        Self {
            runtime: Arc::new(runtime),
            shared: Arc::default(),
            limits: RunLimits::default(),
            runs: PhantomData,
        }
    }

    /// Sets the function that extracts the owner of a request. Each owner sees only its own
    /// operations; those of other owners are unknown (404). Without this setting, an operation
    /// has no owner, and everybody who knows its id sees it.
    /// A closure keeps owners in the store in plain text, as the closure returns them. A
    /// [`HmacOwner`](crate::HmacOwner) keeps them as keyed hashes.
    ///
    /// # Panics
    /// Panics if a layer, a service, a recovery, a drain handle or a clone was created before:
    /// an earlier layer would create operations without an owner.
    pub fn owner(mut self, owner: impl ExtractOwner) -> Self {
        self.own_runtime();
        self.with(|shared| shared.owner = Some(Arc::new(owner)))
    }

    /// Sets the wording of answers; [`Plain`](crate::dialect::Plain) by default.
    pub fn dialect(self, dialect: impl Dialect) -> Self {
        self.with(|shared| shared.dialect = Arc::new(dialect))
    }

    /// Sets the path of the operations as clients know it, `/operations` by default. `Location`
    /// begins with this path. Requests at and below the path pass the layer, so that the layer
    /// can wrap an application that has the poll service inside.
    ///
    /// Under a nested router, set the whole path, for example `/api/v1/operations`.
    pub fn public_path(self, path: &str) -> Self {
        self.with(|shared| shared.locator.set_at(path))
    }

    /// Makes `Location` absolute: `url`, then the [public path](Self::public_path).
    ///
    /// # Errors
    /// Returns [`InvalidPublicUrl`] unless `url` is an `http` or `https` URL with a host. The
    /// URL may have a port and a path, but no user information, query or fragment.
    pub fn public_url(mut self, url: &str) -> Result<Self, InvalidPublicUrl> {
        Arc::make_mut(&mut self.shared).locator.set_base(url)?;
        Ok(self)
    }

    /// Makes `Location` absolute by the scheme and the host in `Forwarded` (RFC 7239), for
    /// requests from a trusted proxy. `trusted` recognizes the proxy, for example by its address
    /// or by a secret that the proxy adds. Of several elements the last one counts, which the
    /// nearest proxy added. If a host comes without a scheme, the scheme of the [public
    /// URL](Self::public_url) is used. The path, and the whole origin if there is no valid host,
    /// is that of the public URL.
    ///
    /// Do not trust every request: clients could then choose where other clients are sent.
    pub fn trust_forwarded(self, trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        let (by, trusted) = (ForwardingHeader::Standard, Arc::new(trusted));
        self.with(|shared| shared.locator.set_trusted(by, trusted))
    }

    /// Makes `Location` absolute like [`trust_forwarded`](Self::trust_forwarded), by
    /// `X-Forwarded-Proto` and `X-Forwarded-Host`. Only one of the two settings can be used,
    /// since a client may send the header of the other.
    pub fn trust_x_forwarded(
        self,
        trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (by, trusted) = (ForwardingHeader::Older, Arc::new(trusted));
        self.with(|shared| shared.locator.set_trusted(by, trusted))
    }

    /// Sets `Location` as a function of the request and the id. White space around the text is
    /// left out; an empty text means no `Location`.
    ///
    /// The parts have the request's extensions, for example axum's `OriginalUri`. Do not build
    /// the text from an untrusted `Host`.
    pub fn location(
        self,
        location: impl Fn(&Parts, &OperationId) -> String + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.locator.set_hook(Arc::new(location)))
    }

    /// Sets the `Retry-After` of answers;
    /// [`AdaptiveRetryAfter`](crate::dialect::AdaptiveRetryAfter) by default. A 503 carries the
    /// same `Retry-After`.
    pub fn retry_after(self, retry_after: impl RetryAfter) -> Self {
        self.with(|shared| shared.retry_after = Arc::new(retry_after))
    }

    /// Sets which header fields of a recorded response a replay repeats; by default all
    /// except those of [`not_replayed`](crate::dialect::not_replayed).
    pub fn replay_headers(
        self,
        keep: impl Fn(&HeaderName) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.replay = shared.replay.clone().keeping(keep))
    }

    /// Changes the header of each replayed response: `change` gets the recorded response, with its
    /// body unless that is in the [result store](Self::result_store), and the fields that are sent
    /// for it, except those that a dialect adds, and the validator and the digest of a recorded 200.
    /// It turns these and ranges off by setting `Accept-Ranges: none`.
    ///
    /// Content that users have made is replayed from the origin of the operations. To keep
    /// browsers from showing such content there, send it as an attachment:
    ///
    /// ```
    /// use http::{HeaderValue, header::CONTENT_DISPOSITION};
    /// use tower_operations::{MemoryStore, Operations};
    ///
    /// let operations = Operations::new(MemoryStore::new()).map_replay(|recorded, fields| {
    ///     if recorded.media_type() != Some("application/json") {
    ///         fields.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    ///     }
    /// });
    /// ```
    pub fn map_replay(
        self,
        change: impl Fn(&RecordedResponse, &mut HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.replay = shared.replay.clone().changed(change))
    }

    /// Sets how long a request may wait for the inner service to be ready; 1 hour by
    /// default, at most 30 days. A layer may have a limit of its own.
    pub fn pending_timeout(mut self, limit: Duration) -> Self {
        self.limits.set_pending(limit);
        self
    }

    /// Sets how long the inner service may take, its response body included; 1 hour by
    /// default, at most 30 days. A layer may have a limit of its own.
    pub fn running_timeout(mut self, limit: Duration) -> Self {
        self.limits.set_running(limit);
        self
    }

    /// Sets the largest response body that is recorded, in bytes; by default 8 MiB, and no limit with
    /// a [result store](Self::result_store). A larger body makes the operation fail as
    /// `result-too-large`. A layer may have a limit of its own.
    pub fn result_limit(mut self, bytes: u64) -> Self {
        self.limits.result = Some(bytes);
        self
    }

    /// Sets how long the inner service may continue after its operation was canceled, to clean
    /// up, before it is dropped; half a second by default. A layer may have a grace of its own.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.limits.set_grace(grace);
        self
    }

    /// Sets the name of this node and the term of its leases: how long the node may be silent
    /// before another node reclaims the operations that it runs. By default the name is random
    /// and the term 30 seconds. The term is at least 100 milliseconds.
    ///
    /// The name must differ from that of every other node, and of every earlier start of this
    /// node.
    ///
    /// # Panics
    /// Panics if a layer, a service, a recovery, a drain handle or a clone was created before.
    pub fn lease(mut self, lease: LeaseConfig) -> Self {
        self.own_runtime().set_lease(lease);
        self
    }

    /// Sets the hook that is called when an operation has ended on this node.
    ///
    /// ```
    /// use tower_operations::{EndedOperation, MemoryStore, Operations};
    ///
    /// let operations = Operations::new(MemoryStore::new()).on_terminal(|ended: EndedOperation| async move {
    ///     let operation = ended.operation();
    ///     println!("{} has {}", operation.id(), operation.state());
    /// });
    /// ```
    ///
    /// See [`TerminalHook`] for what is promised.
    ///
    /// # Panics
    /// Panics if a layer, a service, a recovery, a drain handle or a clone was created before.
    pub fn on_terminal(mut self, hook: impl TerminalHook) -> Self {
        self.own_runtime().hook = Some(Hook::new(hook));
        self
    }

    /// Sets the store for long results. A response body of more than 256 KiB
    /// ([`result_threshold`](Self::result_threshold)) then goes there frame by frame while the
    /// service produces it, and to clients from there. So does the body of such a request if the
    /// request is stored for a rerun or dispatched. Every node needs the same store. Direct answers
    /// under an idempotency key do not use it: they are recorded up to 8 MiB.
    ///
    /// # Panics
    /// Panics if a layer, a service, a recovery, a drain handle or a clone was created before.
    pub fn result_store(mut self, results: impl ResultStore) -> Self {
        self.own_runtime().results = Some(ResultStorage::new(results));
        self
    }

    /// Sets the greatest length in bytes of a body that is recorded in the store of the operations, or
    /// in a message of a queue; 256 KiB by default. A longer one goes to the
    /// [result store](Self::result_store).
    ///
    /// # Panics
    /// Panics if there is no result store, or if a layer, a service, a recovery, a drain handle or a
    /// clone was created before.
    pub fn result_threshold(mut self, bytes: u64) -> Self {
        let results = self.own_runtime().results.as_mut();
        let results = results.expect("the result store is set before its threshold");
        results.threshold = bytes;
        self
    }

    /// Sets how many requests may be accepted, pending or running at a time; 10,000 by default.
    /// A request above the bound is answered with 503. A request that was
    /// [dispatched](Self::dispatching) does not count once it is in the queue.
    ///
    /// The memory that their bodies take is bounded by
    /// [`max_bytes_in_flight`](Self::max_bytes_in_flight).
    ///
    /// # Panics
    /// Panics if a layer, a service, a recovery, a drain handle or a clone was created before.
    pub fn max_in_flight(mut self, operations: usize) -> Self {
        self.own_runtime().in_flight.set_max(operations);
        self
    }

    /// Sets how many of the requests in flight may be of one owner, so that no owner shuts out
    /// the others; a quarter of [`max_in_flight`](Self::max_in_flight) by default. Requests
    /// without an owner count as those of one owner. A request above the bound is answered with
    /// 503. The bound applies where [owners](Self::owner) are known.
    ///
    /// # Panics
    /// Panics if a layer, a service, a recovery, a drain handle or a clone was created before.
    pub fn max_in_flight_per_owner(mut self, operations: usize) -> Self {
        self.own_runtime().in_flight.set_max_per_owner(operations);
        self
    }

    /// Sets how many bytes of request bodies and results may be in memory at a time; 256 MiB by
    /// default. A request whose body has no room is answered with 503, before the body is read if
    /// its announced length has no room. A body that is alone has room whatever its length, up to
    /// the [`body_limit`](crate::AsyncAcceptLayer::body_limit).
    ///
    /// A request body of more than a kibibyte counts until the service reads or drops it. A result
    /// counts from its first byte until it is recorded. Of a body that goes to a [result
    /// store](Self::result_store), the chunk that is being written counts, and what the upload has
    /// [in memory](crate::results::ResultUpload::buffered). Results are never refused, so they may
    /// exceed the bound. Half of the bound is left to bodies, however many results there are.
    ///
    /// Heads of requests and responses, copies that a store encodes, and answers to polls do not
    /// count. A [`MemoryStore`](crate::MemoryStore) has a bound of its own. A node whose bound is
    /// reached reclaims no operations that it would run again.
    ///
    /// # Panics
    /// Panics if a layer, a service, a recovery, a drain handle or a clone was created before.
    pub fn max_bytes_in_flight(mut self, bytes: usize) -> Self {
        self.own_runtime().in_flight.bytes().set_max(bytes);
        self
    }

    /// Sets how many bytes of request bodies of one owner may be in memory; a quarter of
    /// [`max_bytes_in_flight`](Self::max_bytes_in_flight) by default. Requests without an owner count
    /// as those of one owner. A request above the bound is answered with 503, unless its body is
    /// the only one of the owner. The bound applies where [owners](Self::owner) are known.
    ///
    /// # Panics
    /// Panics if a layer, a service, a recovery, a drain handle or a clone was created before.
    pub fn max_bytes_in_flight_per_owner(mut self, bytes: usize) -> Self {
        self.own_runtime()
            .in_flight
            .bytes()
            .set_max_per_owner(bytes);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut SharedSettings)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    fn own_runtime(&mut self) -> &mut Runtime<R> {
        Arc::get_mut(&mut self.runtime)
            .expect("the owner, the lease and the bounds are set before anything is made")
    }
}
