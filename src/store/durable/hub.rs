use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::engine::Notice;
use crate::{
    operation::OperationId,
    store::{
        NodeId,
        mailbox::Mailboxes,
        wait::{WaitCell, Waiter},
    },
};

/// Receives notices on this node and wakes the waiters.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    waiting: Mutex<HashMap<OperationId, Arc<WaitCell>>>,
    mailboxes: Mailboxes,
    released: Arc<WaitCell>,
}

impl Hub {
    /// Handles a change made here or elsewhere.
    pub(crate) fn heard(&self, notice: &Notice) {
        let (id, recalled) = match notice {
            Notice::Changed { id, recalled } => (id, recalled),
            Notice::Released => return self.released.notify(),
        };
        let cell = self.waiting().remove(id);
        if let Some(cell) = cell {
            cell.notify();
        }
        if let Some(node) = recalled {
            self.mailboxes.send(node, id.clone());
        }
    }

    /// Wakes all waiters to check again, because notices may have been lost.
    #[allow(dead_code)] // an engine in this process loses no notices
    pub(crate) fn missed_some(&self) {
        let cells = std::mem::take(&mut *self.waiting());
        cells.into_values().for_each(|cell| cell.notify());
        self.released.notify();
    }

    /// Returns a listener for notices of `id` from now on.
    pub(crate) fn listen(&self, id: &OperationId) -> HubListener<'_> {
        let mut waiting = self.waiting();
        let cell = waiting.entry(id.clone()).or_default();
        HubListener {
            waiter: Some(Waiter::new(cell)),
            id: id.clone(),
            hub: self,
        }
    }

    /// Completes once leases were released after this call.
    pub(crate) fn released(&self) -> Waiter {
        Waiter::new(&self.released)
    }

    /// Returns the operations that `node` lost, as soon as there are any, or none after
    /// `at_most`.
    pub(crate) async fn recalled(&self, node: &NodeId, at_most: Duration) -> Vec<OperationId> {
        self.mailboxes.receive(node, at_most).await
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<OperationId, Arc<WaitCell>>> {
        // A critical section only moves finished values.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener for notices of an operation.
#[derive(Debug)]
pub(crate) struct HubListener<'a> {
    waiter: Option<Waiter>,
    id: OperationId,
    hub: &'a Hub,
}

impl HubListener<'_> {
    /// Completes once a notice arrives after the listener was created.
    pub(crate) async fn heard(&mut self) {
        if let Some(waiter) = &mut self.waiter {
            waiter.await;
        }
    }
}

impl Drop for HubListener<'_> {
    fn drop(&mut self) {
        self.waiter = None;
        let mut waiting = self.hub.waiting();
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
        Notice::Changed { id, recalled: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_notice_between_listening_and_waiting_is_heard() {
        let (hub, id) = (Hub::default(), OperationId::new());
        let mut listening = hub.listen(&id);
        hub.heard(&notice(&OperationId::new()));
        let silent = tokio::time::timeout(Duration::from_secs(1), listening.heard()).await;
        assert!(silent.is_err());
        hub.heard(&notice(&id));
        listening.heard().await;
        assert!(hub.waiting().is_empty());
        let mut listening = hub.listen(&id);
        hub.missed_some();
        listening.heard().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_release_between_listening_and_waiting_is_heard() {
        let hub = Hub::default();
        let second = Duration::from_secs(1);
        let released = hub.released();
        hub.heard(&notice(&OperationId::new()));
        assert!(tokio::time::timeout(second, released).await.is_err());
        for hear in [|hub: &Hub| hub.heard(&Notice::Released), Hub::missed_some] {
            let released = hub.released();
            hear(&hub);
            released.await;
        }
        assert!(tokio::time::timeout(second, hub.released()).await.is_err());
    }

    #[tokio::test]
    async fn who_stops_listening_leaves_nothing_and_takes_nothing_from_others() {
        let (hub, id) = (Hub::default(), OperationId::new());
        let one = hub.listen(&id);
        let mut other = hub.listen(&id);
        drop(one);
        assert_eq!(hub.waiting().len(), 1);
        {
            let mut heard = std::pin::pin!(other.heard());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(heard.as_mut().poll(&mut context).is_pending());
            hub.heard(&notice(&id));
            heard.await;
        }
        drop(other);
        assert!(hub.waiting().is_empty());
    }
}
