use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, request::Parts};
use tower_service::Service;

use super::{PollBody, PollFuture, answer::answer, capabilities::Capabilities, settings::Settings};
use crate::{
    dialect::{ApiError, absolute},
    operation::BufferedBody,
    run::Runtime,
    settings::SharedSettings,
    store::{List, Repository, Store, Watch},
};

/// A service that answers polls, cancels and requests for results. The
/// [module](crate::poll) lists its answers.
///
/// The service is a `tower::Service` over requests with any body, and does not read the body.
/// The service works wherever it is mounted: the id is in the last segments of the path.
///
/// ```
/// use axum::Router;
/// use tower_operations::{MemoryStore, PollService};
///
/// let app: Router = Router::new().nest_service("/operations", PollService::new(MemoryStore::new()));
/// ```
#[must_use]
pub struct PollService<S: Store> {
    settings: Arc<Settings<S>>,
}

/// The shortest interval between two keep-alive comments.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);

/// The longest time that a poll is held.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

impl<S: Repository + Watch> PollService<S> {
    /// Creates a service that reads, waits and cancels in `store`.
    ///
    /// This is [`Operations::new`](crate::Operations::new) with its
    /// [`poll_service`](crate::Operations::poll_service).
    pub fn new(store: S) -> Self {
        Self::from_runtime(Arc::new(Runtime::new(store)), Arc::default())
    }

    pub(crate) fn from_runtime(runtime: Arc<Runtime<S>>, shared: Arc<SharedSettings>) -> Self {
        Self {
            settings: Arc::new(Settings::new(runtime, shared, Capabilities::all())),
        }
    }
}

impl<S: List> PollService<S> {
    /// Turns on lists: `GET` of the root returns the operations of the client, newest first. A
    /// page has 20 operations, or `limit` up to 100, and ends earlier once its results have a
    /// mebibyte. `state` takes any of the five words, repeated or separated by commas. `cursor`
    /// takes the text that the previous page returned.
    ///
    /// A request without an owner lists only operations without an owner. Without a [function
    /// for owners](crate::Operations::owner) no operation has an owner, so everybody who can
    /// reach the list learns every id.
    pub fn listing(self) -> Self {
        self.with(|settings| settings.powers = settings.powers.listing())
    }
}

impl<S: Store> PollService<S> {
    /// Creates a service that only reads from `store`: nothing can be canceled (405), and no
    /// poll is held.
    ///
    /// This is [`Operations::new`](crate::Operations::new) with its
    /// [`read_only_poll_service`](crate::Operations::read_only_poll_service).
    pub fn read_only(store: S) -> Self {
        Self::reading(Arc::new(Runtime::new(store)), Arc::default())
    }

    pub(crate) fn reading(runtime: Arc<Runtime<S>>, shared: Arc<SharedSettings>) -> Self {
        Self {
            settings: Arc::new(Settings::new(runtime, shared, Capabilities::NONE)),
        }
    }

    /// Sets the path that requests begin with, for servers without a router that removes it.
    /// Clients may know the operations by another path,
    /// the [public path](crate::Operations::public_path).
    pub fn mounted_at(self, path: &str) -> Self {
        self.with(|settings| settings.mounted_at = Some(absolute(path).into()))
    }

    /// Sets the largest result, in bytes, that is embedded in an operation; 64 KiB by default.
    /// Larger results are available only from the result resource.
    pub fn inline_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.inline_limit = bytes)
    }

    /// Sets the longest time that a poll is held, whatever the poll asks for; 30 seconds by
    /// default, at most an hour.
    pub fn max_wait(self, limit: Duration) -> Self {
        self.with(|settings| settings.max_wait = limit.min(LONGEST_WAIT))
    }

    /// Sets how many polls are held at a time; 10,000 by default. Further polls are answered
    /// at once. Later clones share the bound.
    pub fn max_held(self, polls: usize) -> Self {
        self.with(|settings| settings.held = settings.held.with_max(polls))
    }

    /// Sets how many polls of one owner are held at a time; a quarter of
    /// [`max_held`](Self::max_held) by default. The bound applies where
    /// [owners](crate::Operations::owner) are known. Requests without an owner count as those of
    /// one owner.
    pub fn max_held_per_owner(self, polls: usize) -> Self {
        self.with(|settings| settings.held = settings.held.with_max_per_owner(polls))
    }

    /// Sets how many event streams are open at a time; 1,000 by default. A request above the
    /// bound is answered with 503. Later clones share the bound.
    pub fn max_streams(self, streams: usize) -> Self {
        self.with(|settings| settings.streams = settings.streams.with_max(streams))
    }

    /// Sets how many event streams of one owner are open at a time; a quarter of
    /// [`max_streams`](Self::max_streams) by default. A request above the bound is answered with
    /// 503. The bound applies where [owners](crate::Operations::owner) are known. Requests
    /// without an owner count as those of one owner.
    pub fn max_streams_per_owner(self, streams: usize) -> Self {
        self.with(|settings| settings.streams = settings.streams.with_max_per_owner(streams))
    }

    /// Sets the interval of keep-alive comments in an event stream; 15 seconds by default, at
    /// least a second and at most an hour.
    pub fn keep_alive(self, interval: Duration) -> Self {
        self.with(|settings| settings.keep_alive = interval.clamp(SHORTEST_SILENCE, LONGEST_WAIT))
    }

    /// Sets the function that extracts the id of a request, in place of the dialect. An empty id
    /// counts as a missing one.
    pub fn operation_id(
        self,
        find: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.operation_id = Some(Arc::new(find)))
    }

    /// Sets the function that writes errors, in place of the dialect. `Allow`, `Retry-After` and
    /// `Cache-Control` are added to an error that requires and lacks them.
    pub fn error_writer(
        self,
        write: impl Fn(&ApiError) -> Response<BufferedBody> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.error_writer = Some(Arc::new(write)))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings<S>)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S: Store, B> Service<Request<B>> for PollService<S> {
    type Response = Response<PollBody>;
    type Error = Infallible;
    type Future = PollFuture;

    /// Returns `Ready` always.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> PollFuture {
        answer(&self.settings, request.into_parts().0)
    }
}

impl<S: Store> Clone for PollService<S> {
    fn clone(&self) -> Self {
        Self {
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<S: Store> fmt::Debug for PollService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollService")
            .field("shared", &self.settings.shared)
            .finish_non_exhaustive()
    }
}
