//! Waiting for a change without missing it.
//!
//! A [`WaitCell`] counts notifications. A [`Waiter`] remembers the count at the
//! moment it was made, so one that is made *before* a check of the state is
//! woken by every notification after that check, polled or not. This is what
//! `Notify` plus a lock cannot promise once the lock is dropped in between.

use std::{
    collections::BTreeMap,
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
    /// Of the waiters that sleep, by a key that is given once.
    wakers: BTreeMap<u64, Waker>,
    next_key: u64,
}

impl WaitCell {
    /// Wakes every waiter there is.
    pub(crate) fn notify(&self) {
        let wakers = self.lock(|state| {
            state.notifications += 1;
            std::mem::take(&mut state.wakers)
        });
        // Woken outside of the lock: a waker may run anything.
        wakers.into_values().for_each(Waker::wake);
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
            let waker = context.waker();
            let is_there = state
                .wakers
                .get(&key)
                .is_some_and(|known| known.will_wake(waker));
            let replaced = if is_there {
                None
            } else {
                state.wakers.insert(key, waker.clone())
            };
            (Poll::Pending, replaced)
        });
        drop(replaced); // outside of the lock: a waker may be anything
        ready
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.cell.lock(|state| state.wakers.remove(&key));
            drop(waker); // outside of the lock
        }
    }
}
