use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, Request, Response, request::Parts};
use tower::Service;

use super::{PollBody, PollFuture, answer::answer, capabilities::Capabilities, settings::Settings};
use crate::{
    accept::{ExtractOwner, PlainOwner},
    dialect::{ApiError, Dialect, ForwardingHeader, InvalidPublicUrl, RetryAfter},
    operation::{BufferedBody, OperationId, Payload, RecordedResponse},
    run::Drain,
    store::{List, MemoryStore, Owner, Repository, Store, Watch},
};

/// Answers polls, cancels and requests for results. See the
/// [module](crate::poll) for what it answers.
///
/// It is a `tower::Service` over requests with any body (which it does not
/// read) and works wherever it is mounted: the id is in the last segments of
/// the path.
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

/// A sign of life more often than this is noise.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);

/// No poll is worth holding for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

impl<S: Repository + Watch> PollService<S> {
    /// Polls, waits and cancels in `store`.
    pub fn new(store: S) -> Self {
        Self {
            settings: Arc::new(Settings::new(store, Capabilities::all())),
        }
    }
}

impl<T: Payload> PollService<MemoryStore<T>> {
    /// On whose behalf a request comes. Operations are there for their owner
    /// alone; for everybody else they are unknown. Give the
    /// [`AsyncAcceptLayer`](crate::AsyncAcceptLayer::owner) the same.
    pub fn owner(self, owner: impl Fn(&Parts) -> Option<Owner> + Send + Sync + 'static) -> Self {
        self.owner_with(PlainOwner::new(owner))
    }
}

impl<S: List> PollService<S> {
    /// Lets operations be listed: `GET` of their root gives those of whoever
    /// asks, newest first, a page at a time: 20, or `limit` up to 100, and fewer if their
    /// results have a mebibyte before. `state`
    /// takes any of the five words, repeated or with commas in between; `cursor` takes
    /// the text that the page before gave.
    ///
    /// Whoever asks for nobody gets what is nobody's. Without an
    /// [`owner_with`](Self::owner_with) that is everything, so whoever can reach the list
    /// knows every id.
    pub fn listing(self) -> Self {
        self.with(|settings| settings.powers = settings.powers.listing())
    }
}

impl<S: Store> PollService<S> {
    /// Only reads from `store`: nothing can be canceled (405), and no poll is
    /// held.
    pub fn read_only(store: S) -> Self {
        Self {
            settings: Arc::new(Settings::new(store, Capabilities::NONE)),
        }
    }

    /// Says that requests arrive with their whole path, which begins with
    /// `path`: for servers without a router that removes it. `Location` begins
    /// with it too.
    pub fn mounted_at(self, path: &str) -> Self {
        self.with(|settings| {
            settings.locator.set_at(path);
            settings.mounted_at = Some(settings.locator.at().into());
        })
    }

    /// Where the operations are, `/operations` by default, for `Location` in
    /// answers; as [`AsyncAcceptLayer::public_path`](crate::AsyncAcceptLayer::public_path).
    pub fn public_path(self, path: &str) -> Self {
        self.with(|settings| settings.locator.set_at(path))
    }

    /// Makes `Location` absolute; as
    /// [`AsyncAcceptLayer::public_url`](crate::AsyncAcceptLayer::public_url).
    ///
    /// # Errors
    /// [`InvalidPublicUrl`] unless it is `http` or `https`, with a host, and perhaps a port
    /// and a path; without user information, a query or a fragment.
    pub fn public_url(mut self, url: &str) -> Result<Self, InvalidPublicUrl> {
        Arc::make_mut(&mut self.settings).locator.set_base(url)?;
        Ok(self)
    }

    /// Makes `Location` absolute by what a trusted proxy says; as
    /// [`AsyncAcceptLayer::trust_forwarded`](crate::AsyncAcceptLayer::trust_forwarded).
    pub fn trust_forwarded(self, trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        let (by, trusted) = (ForwardingHeader::Standard, Arc::new(trusted));
        self.with(|settings| settings.locator.set_trusted(by, trusted))
    }

    /// The same by `X-Forwarded-Proto` and `X-Forwarded-Host`; as
    /// [`AsyncAcceptLayer::trust_x_forwarded`](crate::AsyncAcceptLayer::trust_x_forwarded).
    pub fn trust_x_forwarded(
        self,
        trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (by, trusted) = (ForwardingHeader::Older, Arc::new(trusted));
        self.with(|settings| settings.locator.set_trusted(by, trusted))
    }

    /// `Location` as a function of the request and the id; as
    /// [`AsyncAcceptLayer::location`](crate::AsyncAcceptLayer::location).
    pub fn location(
        self,
        location: impl Fn(&Parts, &OperationId) -> String + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.locator.set_hook(Arc::new(location)))
    }

    /// When clients are asked to come back; by default
    /// [`AdaptiveRetryAfter`](crate::dialect::AdaptiveRetryAfter). It also goes
    /// with a 503.
    pub fn retry_after(self, retry_after: impl RetryAfter) -> Self {
        self.with(|settings| settings.retry_after = Arc::new(retry_after))
    }

    /// How requests and answers are worded; by default
    /// [`Plain`](crate::dialect::Plain).
    pub fn dialect(self, dialect: impl Dialect) -> Self {
        self.with(|settings| settings.dialect = Arc::new(dialect))
    }

    /// Which header fields of a recorded response its result resource repeats;
    /// by default all but those of
    /// [`not_replayed`](crate::dialect::not_replayed).
    pub fn replay_headers(
        self,
        keep: impl Fn(&HeaderName) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.replay = settings.replay.clone().keeping(keep))
    }

    /// Changes the header of each replayed response: `change` gets what was recorded, and
    /// the fields that are sent for it.
    ///
    /// What users have made is replayed from the origin of the operations. So that no
    /// browser shows it there, have it saved:
    ///
    /// ```
    /// use http::{HeaderValue, header::CONTENT_DISPOSITION};
    /// use tower_operations::{MemoryStore, PollService};
    ///
    /// let polls = PollService::new(MemoryStore::new()).map_replay(|recorded, fields| {
    ///     if recorded.media_type() != Some("application/json") {
    ///         fields.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    ///     }
    /// });
    /// ```
    pub fn map_replay(
        self,
        change: impl Fn(&RecordedResponse, &mut HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.replay = settings.replay.clone().changed(change))
    }

    /// The largest result, in bytes, that is embedded in an operation; 64 KiB
    /// by default. A larger one is to be had from the result resource.
    pub fn inline_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.inline_limit = bytes)
    }

    /// The longest a poll is held, whatever it asks for; 30 seconds by default,
    /// an hour at the most.
    pub fn max_wait(self, limit: Duration) -> Self {
        self.with(|settings| settings.max_wait = limit.min(LONGEST_WAIT))
    }

    /// How many polls are held at a time, 10,000 by default; the others are
    /// answered at once. The bound is shared with all clones.
    pub fn max_held(self, polls: usize) -> Self {
        self.settings.held.max.store(polls, Relaxed);
        self
    }

    /// How many polls of one owner's are held at a time; a quarter of
    /// [`max_held`](Self::max_held) by default. It counts where
    /// [owners](Self::owner_with) are known; requests on nobody's behalf are one owner's
    /// here. The bound is shared with all clones.
    pub fn max_held_per_owner(self, polls: usize) -> Self {
        self.settings.held.shares.set(polls);
        self
    }

    /// Answers held polls, and holds no more, once `drain` has closed the
    /// doors.
    pub fn draining(self, drain: &Drain) -> Self {
        self.with(|settings| settings.closing = Some(drain.closed()))
    }

    /// On whose behalf a request comes: by the same
    /// [`HmacOwner`](crate::accept::HmacOwner),
    /// [`PlainOwner`](crate::accept::PlainOwner) or type of yours that the
    /// [`AsyncAcceptLayer`](crate::AsyncAcceptLayer::owner_with) has.
    pub fn owner_with(self, owner: impl ExtractOwner) -> Self {
        self.with(|settings| settings.set_owner(Arc::new(owner)))
    }

    /// How many event streams are open at a time, 1,000 by default; past it the
    /// answer is 503. The bound is shared with all clones.
    pub fn max_streams(self, streams: usize) -> Self {
        self.settings.streams.max.store(streams, Relaxed);
        self
    }

    /// How many event streams of one owner's are open at a time; a quarter of
    /// [`max_streams`](Self::max_streams) by default, past it the answer is 503. It counts
    /// where [owners](Self::owner_with) are known; requests on nobody's behalf are one
    /// owner's here. The bound is shared with all clones.
    pub fn max_streams_per_owner(self, streams: usize) -> Self {
        self.settings.streams.shares.set(streams);
        self
    }

    /// How often an event stream shows a sign of life while nothing changes; 15
    /// seconds by default, a second at the least and an hour at the most.
    pub fn keep_alive(self, interval: Duration) -> Self {
        self.with(|settings| settings.keep_alive = interval.clamp(SHORTEST_SILENCE, LONGEST_WAIT))
    }

    /// Finds the id by itself instead of where the dialect says it is; an empty
    /// one, or none, is missing.
    pub fn operation_id(
        self,
        find: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.operation_id = Some(Arc::new(find)))
    }

    /// Words the errors by itself instead of as the dialect does. `Allow` and
    /// `Retry-After` are added where they belong and are not there.
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

    /// Always ready.
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
            .field("dialect", &self.settings.dialect)
            .field("locator", &self.settings.locator)
            .finish_non_exhaustive()
    }
}
