//! Waiting for a change without missing it.
//!
//! A [`WaitCell`] counts notifications. A [`Waiter`] remembers the count at its creation. A
//! waiter that is created *before* a check of the state is therefore woken by every
//! notification after that check, even if it was not polled before. `Notify` plus a lock
//! cannot promise this once the lock is dropped in between.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use super::sync::{Arc, Mutex};

#[derive(Debug, Default)]
pub(crate) struct WaitCell {
    state: Mutex<CellState>,
}

#[derive(Debug, Default)]
struct CellState {
    notifications: u64,
    /// The wakers of sleeping waiters, each with its key.
    wakers: VecDeque<(u64, Waker)>,
    /// Keys are assigned once and in order, so `wakers` is sorted by key.
    next_key: u64,
}

impl CellState {
    /// Returns the index of the waker with this key, or the index to insert it at.
    fn place(&self, key: u64) -> Result<usize, usize> {
        self.wakers.binary_search_by_key(&key, |(key, _)| *key)
    }

    /// Stores `waker` under `key`, and returns the waker that it replaces.
    fn keep(&mut self, key: u64, waker: &Waker) -> Option<Waker> {
        match self.place(key) {
            Ok(at) if self.wakers[at].1.will_wake(waker) => None,
            Ok(at) => Some(std::mem::replace(&mut self.wakers[at].1, waker.clone())),
            Err(at) => {
                if self.wakers.is_empty() {
                    // Most operations have one waiter.
                    self.wakers.reserve_exact(1);
                }
                self.wakers.insert(at, (key, waker.clone()));
                None
            }
        }
    }

    /// Removes the waker stored under `key`.
    fn remove(&mut self, key: u64) -> Option<Waker> {
        let at = self.place(key).ok()?;
        self.wakers.remove(at).map(|(_, waker)| waker)
    }
}

impl WaitCell {
    /// Wakes all waiters.
    pub(crate) fn notify(&self) {
        let wakers = self.lock(|state| {
            state.notifications += 1;
            std::mem::take(&mut state.wakers)
        });
        // Wakers run outside of the lock, because a waker may run anything.
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Returns the number of sleeping waiters.
    #[cfg(test)]
    pub(crate) fn sleeping(&self) -> usize {
        self.lock(|state| state.wakers.len())
    }

    fn lock<T>(&self, critical: impl FnOnce(&mut CellState) -> T) -> T {
        // Nothing in a critical section panics, so a poisoned lock is intact.
        critical(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Completes once its cell is notified after the waiter was created.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Waiter {
    cell: Arc<WaitCell>,
    seen: u64,
    /// The key of its waker in the cell, while the waiter sleeps.
    key: Option<u64>,
}

impl Waiter {
    /// Returns a waiter for the next notification of `cell` after this call.
    pub(crate) fn new(cell: &Arc<WaitCell>) -> Self {
        Self {
            seen: cell.lock(|state| state.notifications),
            key: None,
            cell: Arc::clone(cell),
        }
    }
}

impl Future for Waiter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { cell, seen, key } = &mut *self;
        let (ready, replaced) = cell.lock(|state| {
            if state.notifications != *seen {
                // The notification took all wakers, including this waiter's.
                *key = None;
                return (Poll::Ready(()), None);
            }
            let key = *key.get_or_insert_with(|| {
                state.next_key += 1;
                state.next_key
            });
            (Poll::Pending, state.keep(key, context.waker()))
        });
        drop(replaced); // outside of the lock: a waker may be anything
        ready
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.cell.lock(|state| state.remove(key));
            drop(waker); // outside of the lock
        }
    }
}
