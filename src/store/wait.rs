//! Waiting for a change without missing it.
//!
//! A [`WaitCell`] counts notifications. A [`Waiter`] remembers the count at the
//! moment it was made, so one that is made *before* a check of the state is
//! woken by every notification after that check, polled or not. This is what
//! `Notify` plus a lock cannot promise once the lock is dropped in between.

use std::{
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
    /// By the key that each waiter was given.
    wakers: Vec<Option<Waker>>,
}

impl WaitCell {
    /// Wakes every waiter there is.
    pub(crate) fn notify(&self) {
        let wakers = self.lock(|state| {
            state.notifications += 1;
            std::mem::take(&mut state.wakers)
        });
        // Woken outside of the lock: a waker may run anything.
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// How many waiters are asleep.
    #[cfg(test)]
    pub(crate) fn sleeping(&self) -> usize {
        self.lock(|state| state.wakers.iter().flatten().count())
    }

    fn lock<T>(&self, critical: impl FnOnce(&mut CellState) -> T) -> T {
        // Nothing in a critical section panics, so a poisoned lock is intact.
        critical(
            &mut self
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// Ready once its cell was notified after the waiter was made.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Waiter {
    cell: Arc<WaitCell>,
    seen: u64,
    /// Where its waker lies, while it sleeps.
    key: Option<usize>,
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
        cell.lock(|state| {
            if state.notifications != *seen {
                // The notification took all wakers, this one's too.
                *key = None;
                return Poll::Ready(());
            }
            let slot = *key.get_or_insert_with(|| {
                let free = state.wakers.iter().position(Option::is_none);
                free.unwrap_or_else(|| {
                    state.wakers.push(None);
                    state.wakers.len() - 1
                })
            });
            match &mut state.wakers[slot] {
                Some(waker) => waker.clone_from(context.waker()),
                empty => *empty = Some(context.waker().clone()),
            }
            Poll::Pending
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(slot) = self.key else { return };
        let waker = self.cell.lock(|state| {
            // After a notification the slot may be another waiter's.
            let mine = state.notifications == self.seen;
            let waker = mine.then(|| state.wakers[slot].take()).flatten();
            while state.wakers.last().is_some_and(Option::is_none) {
                state.wakers.pop();
            }
            waker
        });
        drop(waker); // outside of the lock
    }
}
