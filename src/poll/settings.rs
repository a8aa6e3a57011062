use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Response, request::Parts};
use tokio_util::sync::CancellationToken;

use super::powers::Powers;
use crate::{
    dialect::{Dialect, Fault, GrowingRetryAfter, Locator, Plain, Replay, RetryAfter},
    operation::WholeBody,
    store::Store,
};

type IdFn = dyn Fn(&Parts) -> Option<String> + Send + Sync;
type FaultFn = dyn Fn(&Fault) -> Response<WholeBody> + Send + Sync;

pub(super) struct Settings<S: Store> {
    pub(super) store: Arc<S>,
    pub(super) powers: Powers<S>,
    pub(super) dialect: Arc<dyn Dialect>,
    pub(super) locator: Locator,
    /// The path that requests begin with, where nothing has removed it.
    pub(super) mounted_at: Option<Arc<str>>,
    pub(super) retry_after: Arc<dyn RetryAfter>,
    pub(super) replay: Replay,
    /// In bytes.
    pub(super) inline_limit: usize,
    pub(super) max_wait: Duration,
    pub(super) held: Arc<Held>,
    pub(super) closing: Option<CancellationToken>,
    pub(super) operation_id: Option<Arc<IdFn>>,
    pub(super) error_writer: Option<Arc<FaultFn>>,
}

impl<S: Store> Settings<S> {
    pub(super) fn new(store: S, powers: Powers<S>) -> Self {
        Self {
            store: Arc::new(store),
            powers,
            dialect: Arc::new(Plain::default()),
            locator: Locator::default(),
            mounted_at: None,
            retry_after: Arc::new(GrowingRetryAfter),
            replay: Replay::default(),
            inline_limit: 64 * 1024,
            max_wait: Duration::from_secs(30),
            held: Arc::default(),
            closing: None,
            operation_id: None,
            error_writer: None,
        }
    }

    pub(super) fn fault(&self, fault: &Fault) -> Response<WholeBody> {
        let mut response = match &self.error_writer {
            Some(write) => write(fault),
            None => self.dialect.fault(fault),
        };
        fault.add_headers(response.headers_mut());
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
            closing: self.closing.clone(),
            operation_id: self.operation_id.clone(),
            error_writer: self.error_writer.clone(),
        }
    }
}

/// How many polls are held, and may be.
#[derive(Debug)]
pub(super) struct Held {
    now: AtomicUsize,
    pub(super) max: AtomicUsize,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            now: AtomicUsize::new(0),
            max: AtomicUsize::new(10_000),
        }
    }
}

impl Held {
    /// A place among them, until it is dropped; `None` if all are taken.
    pub(super) fn one(self: &Arc<Self>) -> Option<HeldOne> {
        let place = HeldOne(Arc::clone(self));
        let before = self.now.fetch_add(1, Relaxed);
        (before < self.max.load(Relaxed)).then_some(place)
    }
}

pub(super) struct HeldOne(Arc<Held>);

impl Drop for HeldOne {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Relaxed);
    }
}
