use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Notice;
use crate::{
    operation::OperationId,
    store::{
        NodeId,
        mailbox::Mailboxes,
        sync::{RandomState, random_hasher},
        wait::{WaitCell, Waiter},
    },
};

/// Receives notices on this node and wakes the waiters.
///
/// An engine passes the notices of other nodes to its notifier, from any task that receives
/// them.
#[derive(Debug)]
pub struct Notifier {
    waiting: Mutex<WaitingReaders>,
    mailboxes: Mailboxes,
    released: Arc<WaitCell>,
}

type WaitingReaders = HashMap<OperationId, Arc<WaitCell>, RandomState>;

impl Default for Notifier {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(HashMap::with_hasher(random_hasher())),
            mailboxes: Mailboxes::default(),
            released: Arc::default(),
        }
    }
}

impl Notifier {
    /// Handles a change made here or elsewhere.
    pub fn notify(&self, notice: &Notice) {
        let (id, revoked_from) = match notice {
            Notice::Changed { id, revoked_from } => (id, revoked_from),
            Notice::Released => return self.released.notify(),
        };
        let cell = self.waiting().remove(id);
        if let Some(cell) = cell {
            cell.notify();
        }
        if let Some(node) = revoked_from {
            self.mailboxes.send(node, id.clone());
        }
    }

    /// Wakes all waiters to check again, because notices may have been lost.
    pub fn notify_all(&self) {
        let cells: Vec<_> = self.waiting().drain().map(|(_, cell)| cell).collect();
        cells.iter().for_each(|cell| cell.notify());
        self.released.notify();
    }

    /// Returns a listener for notices of `id` from now on.
    pub(crate) fn listen(&self, id: &OperationId) -> Listener<'_> {
        let mut waiting = self.waiting();
        let cell = waiting.entry(id.clone()).or_default();
        Listener {
            waiter: Some(Waiter::new(cell)),
            id: id.clone(),
            notifier: self,
        }
    }

    /// Completes once leases were released after this call.
    pub(crate) fn released(&self) -> Waiter {
        Waiter::new(&self.released)
    }

    /// Returns the operations that `node` lost, as soon as there are any. Returns none after
    /// `at_most`.
    pub(crate) async fn revoked(&self, node: &NodeId, at_most: Duration) -> Vec<OperationId> {
        self.mailboxes.receive(node, at_most).await
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingReaders> {
        // A critical section only moves finished values.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener for notices of an operation.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    waiter: Option<Waiter>,
    id: OperationId,
    notifier: &'a Notifier,
}

impl Listener<'_> {
    /// Completes once a notice arrives after the listener was created.
    pub(crate) async fn notified(&mut self) {
        if let Some(waiter) = &mut self.waiter {
            waiter.await;
        }
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.waiter = None;
        let mut waiting = self.notifier.waiting();
        // The last listener removes the cell.
        if waiting
            .get(&self.id)
            .is_some_and(|cell| Arc::strong_count(cell) == 1)
        {
            waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    fn notice(id: &OperationId) -> Notice {
        let id = id.clone();
        Notice::Changed {
            id,
            revoked_from: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn notices_between_listening_and_waiting_are_received() {
        let (notifier, id) = (Notifier::default(), OperationId::new());
        let mut listening = notifier.listen(&id);
        notifier.notify(&notice(&OperationId::new()));
        let silent = tokio::time::timeout(Duration::from_secs(1), listening.notified()).await;
        assert!(silent.is_err());
        notifier.notify(&notice(&id));
        listening.notified().await;
        assert!(notifier.waiting().is_empty());
        let mut listening = notifier.listen(&id);
        notifier.notify_all();
        listening.notified().await;
    }

    #[tokio::test(start_paused = true)]
    async fn releases_between_listening_and_waiting_are_received() {
        let notifier = Notifier::default();
        let second = Duration::from_secs(1);
        let released = notifier.released();
        notifier.notify(&notice(&OperationId::new()));
        assert!(tokio::time::timeout(second, released).await.is_err());
        for hear in [
            |notifier: &Notifier| notifier.notify(&Notice::Released),
            Notifier::notify_all,
        ] {
            let released = notifier.released();
            hear(&notifier);
            released.await;
        }
        assert!(
            tokio::time::timeout(second, notifier.released())
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn dropped_listeners_leave_nothing_and_do_not_affect_others() {
        let (notifier, id) = (Notifier::default(), OperationId::new());
        let one = notifier.listen(&id);
        let mut other = notifier.listen(&id);
        drop(one);
        assert_eq!(notifier.waiting().len(), 1);
        {
            let mut heard = std::pin::pin!(other.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(heard.as_mut().poll(&mut context).is_pending());
            notifier.notify(&notice(&id));
            heard.await;
        }
        drop(other);
        assert!(notifier.waiting().is_empty());
    }
}
