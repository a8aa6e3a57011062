//! Writes of concurrent callers, joined into one statement.
//!
//! A commit costs the server more than a row. A write leaves at once if no such statement
//! is under way on this node; otherwise it waits for its end, and leaves in one statement with all
//! that have come meanwhile. Each write has its own result, as if it had a statement of its own.
//! A statement never waits for a row that another transaction holds, since that would delay all
//! the others.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::Row;
use tokio::{sync::oneshot, time::timeout};
use tower_operations::store::{StoreError, StoreResult};

use super::{
    asking::{PATIENCE, ask, late},
    connections::PostgresConnections,
    error::{copy_of, store_error},
    rows::WriteRow,
    statements::Statements,
};

/// The maximum number of rows of a statement.
const ROWS: usize = 128;

/// The size in bytes above which a statement takes no further row.
const BYTES: usize = 1 << 20;

/// The writes of a node.
pub(super) struct Batches {
    connections: Arc<PostgresConnections>,
    statements: Arc<Statements>,
    queue: Mutex<WriteQueue>,
}

#[derive(Default)]
struct WriteQueue {
    waiting: VecDeque<QueuedWrite>,
    /// Whether a task sends statements.
    is_sending: bool,
}

struct QueuedWrite {
    row: WriteRow,
    answer: oneshot::Sender<StoreResult<bool>>,
}

impl Batches {
    pub(super) fn new(
        connections: &Arc<PostgresConnections>,
        statements: &Arc<Statements>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::clone(connections),
            statements: Arc::clone(statements),
            queue: Mutex::default(),
        })
    }

    /// Writes a row. Returns whether it was written.
    pub(super) async fn write(self: &Arc<Self>, row: WriteRow) -> StoreResult<bool> {
        let (answer, answered) = oneshot::channel();
        let was_sending = {
            let mut queue = self.queue();
            queue.waiting.push_back(QueuedWrite { row, answer });
            std::mem::replace(&mut queue.is_sending, true)
        };
        if !was_sending {
            let sender = BatchSender {
                batches: Arc::clone(self),
                is_over: false,
            };
            tokio::spawn(sender.run());
        }
        match timeout(PATIENCE, answered).await {
            Ok(Ok(written)) => written,
            // The runtime of the sender has ended.
            Ok(Err(_)) => Err(StoreError::unavailable("the statement was abandoned")),
            Err(_) => Err(late()),
        }
    }

    /// Takes the writes of the next statement, sorted so that two statements on the same rows do
    /// not deadlock. Two writes of one operation never share a statement, whose answer could not
    /// tell them apart. Without writes, the sender has ended.
    fn take(&self) -> Vec<QueuedWrite> {
        let mut queue = self.queue();
        let mut taken: Vec<QueuedWrite> = Vec::new();
        let mut ids = HashSet::new();
        let (mut bytes, mut left) = (0, VecDeque::new());
        while taken.len() < ROWS
            && bytes < BYTES
            && let Some(write) = queue.waiting.pop_front()
        {
            if write.answer.is_closed() {
                // Nobody waits for the write any longer.
            } else if ids.insert(write.row.id().to_owned()) {
                bytes += write.row.bytes();
                taken.push(write);
            } else {
                left.push_back(write);
            }
        }
        left.append(&mut queue.waiting);
        queue.waiting = left;
        queue.is_sending = !taken.is_empty();
        taken.sort_unstable_by(|one, other| one.row.id().cmp(other.row.id()));
        taken
    }

    /// Writes the rows in one statement, or in one each if a row cannot be written.
    async fn send(&self, writes: Vec<QueuedWrite>) {
        let rows: Vec<&WriteRow> = writes.iter().map(|write| &write.row).collect();
        let written = self.written(&rows).await;
        let is_one_bad = rows.len() > 1 && matches!(&written, Err(error) if !error.is_transient());
        for QueuedWrite { row, answer } in writes {
            let written = match &written {
                _ if is_one_bad => {
                    let written = self.written(&[&row]).await;
                    written.map(|ids| !ids.is_empty())
                }
                Ok(ids) => Ok(ids.contains(row.id())),
                Err(error) => Err(copy_of(error)),
            };
            // The caller may have given up.
            let _ = answer.send(written);
        }
    }

    /// Runs the statement; returns the ids of the rows that were written.
    async fn written(&self, rows: &[&WriteRow]) -> StoreResult<HashSet<String>> {
        let query = WriteRow::query(&self.statements, rows);
        let written = ask(&self.connections, async |connection| {
            query.fetch_all(connection).await
        });
        let ids = written.await?;
        let ids = ids.iter().map(|row| row.try_get("id").map_err(store_error));
        ids.collect()
    }

    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        // A critical section only moves finished values.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that sends statements until no write waits.
struct BatchSender {
    batches: Arc<Batches>,
    /// Whether the queue has noted the end of this sender.
    is_over: bool,
}

impl BatchSender {
    async fn run(mut self) {
        loop {
            let writes = self.batches.take();
            if writes.is_empty() {
                self.is_over = true;
                return;
            }
            self.batches.send(writes).await;
        }
    }
}

impl Drop for BatchSender {
    /// Ends a sender whose runtime ends. The writes that wait get an error, since no other sender
    /// may come.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let waiting = {
            let mut queue = self.batches.queue();
            queue.is_sending = false;
            std::mem::take(&mut queue.waiting)
        };
        drop(waiting);
    }
}
