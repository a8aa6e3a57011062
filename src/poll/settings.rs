use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Response, request::Parts};
use tokio_util::sync::CancellationToken;

use super::capabilities::Capabilities;
use crate::{
    accept::ExtractOwner,
    dialect::{AdaptiveRetryAfter, ApiError, Dialect, Locator, Plain, Replay, RetryAfter},
    operation::BufferedBody,
    run::{OwnerPermit, OwnerQuotas},
    store::{Owner, Store},
};

type IdFn = dyn Fn(&Parts) -> Option<String> + Send + Sync;
type ErrorFn = dyn Fn(&ApiError) -> Response<BufferedBody> + Send + Sync;

pub(super) struct Settings<S: Store> {
    pub(super) store: Arc<S>,
    pub(super) powers: Capabilities<S>,
    pub(super) dialect: Arc<dyn Dialect>,
    pub(super) locator: Locator,
    /// The path that requests begin with, where nothing has removed it.
    pub(super) mounted_at: Option<Arc<str>>,
    pub(super) retry_after: Arc<dyn RetryAfter>,
    pub(super) replay: Replay,
    /// In bytes.
    pub(super) inline_limit: usize,
    pub(super) max_wait: Duration,
    pub(super) held: Arc<HeldPolls>,
    pub(super) streams: Arc<HeldPolls>,
    pub(super) keep_alive: Duration,
    owner: Option<Arc<dyn ExtractOwner>>,
    pub(super) closing: Option<CancellationToken>,
    pub(super) operation_id: Option<Arc<IdFn>>,
    pub(super) error_writer: Option<Arc<ErrorFn>>,
}

impl<S: Store> Settings<S> {
    pub(super) fn new(store: S, powers: Capabilities<S>) -> Self {
        Self {
            store: Arc::new(store),
            powers,
            dialect: Arc::new(Plain::default()),
            locator: Locator::default(),
            mounted_at: None,
            retry_after: Arc::new(AdaptiveRetryAfter),
            replay: Replay::default(),
            inline_limit: 64 * 1024,
            max_wait: Duration::from_secs(30),
            held: Arc::new(HeldPolls::up_to(10_000)),
            streams: Arc::new(HeldPolls::up_to(1_000)),
            keep_alive: Duration::from_secs(15),
            owner: None,
            closing: None,
            operation_id: None,
            error_writer: None,
        }
    }

    pub(super) fn set_owner(&mut self, owner: Arc<dyn ExtractOwner>) {
        self.owner = Some(owner);
    }

    /// On whose behalf a request comes.
    pub(super) fn owner(&self, parts: &Parts) -> Option<Owner> {
        self.owner.as_ref().and_then(|owner| owner.owner(parts))
    }

    /// The same, where it matters whose a request is.
    pub(super) fn asker(&self, parts: &Parts) -> Option<Option<Owner>> {
        let owner = self.owner.as_ref()?;
        Some(owner.owner(parts))
    }

    /// Whether an operation of `owner` is there for this request. Where nobody
    /// asks on anybody's behalf, only what is nobody's is.
    pub(super) fn owns(&self, parts: &Parts, owner: Option<&Owner>) -> bool {
        match &self.owner {
            Some(extract) => extract.owns(parts, owner),
            None => owner.is_none(),
        }
    }

    pub(super) fn fault(&self, fault: &ApiError) -> Response<BufferedBody> {
        let mut response = match &self.error_writer {
            Some(write) => write(fault),
            None => self.dialect.error(fault),
        };
        fault.add_headers(response.headers_mut());
        response.extensions_mut().insert(fault.clone());
        response
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
            .as_ref()
            .is_some_and(CancellationToken::is_cancelled)
    }
}

impl<S: Store> Clone for Settings<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            powers: self.powers,
            dialect: Arc::clone(&self.dialect),
            locator: self.locator.clone(),
            mounted_at: self.mounted_at.clone(),
            retry_after: Arc::clone(&self.retry_after),
            replay: self.replay.clone(),
            inline_limit: self.inline_limit,
            max_wait: self.max_wait,
            held: Arc::clone(&self.held),
            streams: Arc::clone(&self.streams),
            keep_alive: self.keep_alive,
            owner: self.owner.clone(),
            closing: self.closing.clone(),
            operation_id: self.operation_id.clone(),
            error_writer: self.error_writer.clone(),
        }
    }
}

/// How many polls are held, and may be, in all and for each owner.
#[derive(Debug)]
pub(super) struct HeldPolls {
    now: AtomicUsize,
    pub(super) max: AtomicUsize,
    pub(super) shares: Arc<OwnerQuotas>,
}

/// Why no more are held.
pub(super) enum HeldLimit {
    ForAll,
    ForOwner,
}

impl HeldPolls {
    fn up_to(max: usize) -> Self {
        Self {
            now: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            shares: Arc::new(OwnerQuotas::new()),
        }
    }

    /// A place among them, until it is dropped; of this owner's share, where owners are
    /// known.
    pub(super) fn one(
        self: &Arc<Self>,
        asker: Option<Option<Owner>>,
    ) -> Result<HeldPoll, HeldLimit> {
        let before = self.now.fetch_add(1, Relaxed);
        let mut place = HeldPoll {
            held: Arc::clone(self),
            share: None,
        };
        let max = self.max.load(Relaxed);
        if before >= max {
            return Err(HeldLimit::ForAll);
        }
        if let Some(owner) = asker {
            let share = self.shares.take(owner, max);
            place.share = Some(share.ok_or(HeldLimit::ForOwner)?);
        }
        Ok(place)
    }
}

pub(super) struct HeldPoll {
    held: Arc<HeldPolls>,
    /// Of its owner's.
    share: Option<OwnerPermit>,
}

impl Drop for HeldPoll {
    fn drop(&mut self) {
        self.held.now.fetch_sub(1, Relaxed);
    }
}
