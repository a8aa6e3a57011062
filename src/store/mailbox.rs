//! Notifies nodes of operations that they hold and that were ended from outside.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    NodeId,
    wait::{WaitCell, Waiter},
};
use crate::operation::OperationId;

/// The maximum number of ids that wait for one node. Further revocations are dropped: they
/// are wake-ups, and renewal is authoritative.
const CAPACITY: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Mailboxes(Mutex<HashMap<NodeId, Mailbox>>);

#[derive(Debug, Default)]
struct Mailbox {
    ids: Vec<OperationId>,
    cell: Arc<WaitCell>,
}

impl Mailboxes {
    pub(crate) fn send(&self, node: &NodeId, id: OperationId) {
        let cell = {
            let mut mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Only nodes that have listened before have a mailbox.
            let Some(mailbox) = mailboxes.get_mut(node) else {
                return;
            };
            if mailbox.ids.len() < CAPACITY {
                mailbox.ids.push(id);
            }
            Arc::clone(&mailbox.cell)
        };
        cell.notify();
    }

    /// Returns the ids sent to `node` as soon as there are any, or none after `at_most`.
    pub(crate) async fn receive(&self, node: &NodeId, at_most: Duration) -> Vec<OperationId> {
        let received = timeout(at_most, async {
            loop {
                match self.take(node) {
                    Ok(ids) => return ids,
                    Err(waiter) => waiter.await,
                }
            }
        });
        received.await.unwrap_or_default()
    }

    /// Returns the ids sent to `node`, or a waiter for the next one.
    fn take(&self, node: &NodeId) -> Result<Vec<OperationId>, Waiter> {
        let mut mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mailbox = mailboxes.entry(node.clone()).or_default();
        if mailbox.ids.is_empty() {
            Err(Waiter::new(&mailbox.cell))
        } else {
            Ok(std::mem::take(&mut mailbox.ids))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ids_are_kept_only_for_nodes_that_listened_and_up_to_the_capacity() {
        let mailboxes = Mailboxes::default();
        let (node, id) = (NodeId::named("a"), OperationId::new());
        mailboxes.send(&node, id.clone());
        assert_eq!(mailboxes.receive(&node, Duration::from_secs(1)).await, []);
        let cell = Arc::clone(&mailboxes.0.lock().unwrap()[&node].cell);
        assert_eq!(cell.sleeping(), 0);

        let receive = mailboxes.receive(&node, Duration::from_secs(1));
        let send = async {
            tokio::task::yield_now().await;
            assert_eq!(cell.sleeping(), 1);
            mailboxes.send(&node, id.clone());
        };
        assert_eq!(
            tokio::join!(receive, send).0.as_slice(),
            std::slice::from_ref(&id)
        );

        for _ in 0..2 * CAPACITY {
            mailboxes.send(&node, id.clone());
        }
        assert_eq!(
            mailboxes.receive(&node, Duration::ZERO).await.len(),
            CAPACITY
        );
    }
}
