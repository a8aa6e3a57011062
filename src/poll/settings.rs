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
    dialect::ApiError,
    operation::BufferedBody,
    run::{OwnerPermit, OwnerQuotas, Runtime},
    settings::SharedSettings,
    store::{Owner, Store},
};

type IdFn = dyn Fn(&Parts) -> Option<String> + Send + Sync;
type ErrorFn = dyn Fn(&ApiError) -> Response<BufferedBody> + Send + Sync;

pub(super) struct Settings<S: Store> {
    pub(super) runtime: Arc<Runtime<S>>,
    pub(super) shared: Arc<SharedSettings>,
    pub(super) powers: Capabilities<S>,
    /// The path that requests begin with, unless a router has removed it.
    pub(super) mounted_at: Option<Arc<str>>,
    /// The largest result that is embedded in an operation, in bytes.
    pub(super) inline_limit: usize,
    pub(super) max_wait: Duration,
    pub(super) held: Arc<HeldPolls>,
    pub(super) streams: Arc<HeldPolls>,
    pub(super) keep_alive: Duration,
    pub(super) operation_id: Option<Arc<IdFn>>,
    pub(super) error_writer: Option<Arc<ErrorFn>>,
}

impl<S: Store> Settings<S> {
    pub(super) fn new(
        runtime: Arc<Runtime<S>>,
        shared: Arc<SharedSettings>,
        powers: Capabilities<S>,
    ) -> Self {
        Self {
            runtime,
            shared,
            powers,
            mounted_at: None,
            inline_limit: 64 * 1024,
            max_wait: Duration::from_secs(30),
            held: HeldPolls::new(10_000, None),
            streams: HeldPolls::new(1_000, None),
            keep_alive: Duration::from_secs(15),
            operation_id: None,
            error_writer: None,
        }
    }

    pub(super) fn store(&self) -> &S {
        &self.runtime.store
    }

    pub(super) fn fault(&self, fault: &ApiError) -> Response<BufferedBody> {
        let mut response = match &self.error_writer {
            Some(write) => write(fault),
            None => self.shared.dialect.error(fault),
        };
        fault.add_headers(response.headers_mut());
        response.extensions_mut().insert(fault.clone());
        response
    }

    /// Returns the token that is canceled once a drain has begun: no poll is held after that.
    pub(super) fn closing(&self) -> &CancellationToken {
        self.runtime.in_flight.closed()
    }
}

impl<S: Store> Clone for Settings<S> {
    fn clone(&self) -> Self {
        Self {
            runtime: Arc::clone(&self.runtime),
            shared: Arc::clone(&self.shared),
            powers: self.powers,
            mounted_at: self.mounted_at.clone(),
            inline_limit: self.inline_limit,
            max_wait: self.max_wait,
            held: Arc::clone(&self.held),
            streams: Arc::clone(&self.streams),
            keep_alive: self.keep_alive,
            operation_id: self.operation_id.clone(),
            error_writer: self.error_writer.clone(),
        }
    }
}

/// The number of held polls and its bounds, in total and for each owner.
#[derive(Debug)]
pub(super) struct HeldPolls {
    now: AtomicUsize,
    max: usize,
    per_owner: Option<usize>,
    shares: Arc<OwnerQuotas>,
}

/// The bound that was reached.
pub(super) enum HeldLimit {
    ForAll,
    ForOwner,
}

impl HeldPolls {
    fn new(max: usize, per_owner: Option<usize>) -> Arc<Self> {
        let shares = OwnerQuotas::new();
        if let Some(polls) = per_owner {
            shares.set(polls);
        }
        Arc::new(Self {
            now: AtomicUsize::new(0),
            max,
            per_owner,
            shares: Arc::new(shares),
        })
    }

    /// Returns the same bounds with another total, and no polls held.
    pub(super) fn with_max(&self, polls: usize) -> Arc<Self> {
        Self::new(polls, self.per_owner)
    }

    /// Returns the same bounds with another share for each owner, and no polls held.
    pub(super) fn with_max_per_owner(&self, polls: usize) -> Arc<Self> {
        Self::new(self.max, Some(polls))
    }

    /// Takes a place until it is dropped. The place counts for the share of the owner where
    /// owners are known.
    pub(super) fn one(
        self: &Arc<Self>,
        asker: Option<Option<Owner>>,
    ) -> Result<HeldPoll, HeldLimit> {
        let before = self.now.fetch_add(1, Relaxed);
        let mut place = HeldPoll {
            held: Arc::clone(self),
            share: None,
        };
        if before >= self.max {
            return Err(HeldLimit::ForAll);
        }
        if let Some(owner) = asker {
            let share = self.shares.take(owner, self.max);
            place.share = Some(share.ok_or(HeldLimit::ForOwner)?);
        }
        Ok(place)
    }
}

pub(super) struct HeldPoll {
    held: Arc<HeldPolls>,
    /// The place in the share of the owner.
    share: Option<OwnerPermit>,
}

impl Drop for HeldPoll {
    fn drop(&mut self) {
        self.held.now.fetch_sub(1, Relaxed);
    }
}
