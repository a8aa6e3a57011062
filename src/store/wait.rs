//! Waiting for a change without missing it.
//!
//! A [`WaitCell`] counts notifications. A [`Waiter`] remembers the count at the
//! moment it was made, so one that is made *before* a check of the state is
//! woken by every notification after that check, polled or not. This is what
//! `Notify` plus a lock cannot promise once the lock is dropped in between.

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
    /// Of the waiters that sleep, each with its key.
    wakers: VecDeque<(u64, Waker)>,
    /// Keys are given once and in order, so the wakers are in the order of theirs.
    next_key: u64,
}

impl CellState {
    /// The place of the waker with this key, or where it would be.
    fn place(&self, key: u64) -> Result<usize, usize> {
        self.wakers.binary_search_by_key(&key, |(key, _)| *key)
    }

    /// Keeps `waker` under `key`, and returns the one that was there.
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

    /// Removes what is kept under `key`.
    fn remove(&mut self, key: u64) -> Option<Waker> {
        let at = self.place(key).ok()?;
        self.wakers.remove(at).map(|(_, waker)| waker)
    }
}

impl WaitCell {
    /// Wakes every waiter there is.
    pub(crate) fn notify(&self) {
        let wakers = self.lock(|state| {
            state.notifications += 1;
            std::mem::take(&mut state.wakers)
        });
        // Woken outside of the lock: a waker may run anything.
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// How many waiters are asleep.
    #[cfg(test)]
    pub(crate) fn sleeping(&self) -> usize {
        self.lock(|state| state.wakers.len())
    }

    fn lock<T>(&self, critical: impl FnOnce(&mut CellState) -> T) -> T {
        // Nothing in a critical section panics, so a poisoned lock is intact.
        critical(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ready once its cell was notified after the waiter was made.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Waiter {
    cell: Arc<WaitCell>,
    seen: u64,
    /// Under which its waker lies, while it sleeps.
    key: Option<u64>,
}

impl Waiter {
    /// A waiter for the next notification of `cell` after this call.
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
                // The notification took all wakers, this one's too.
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
