//! Writes of concurrent callers, joined into one statement.
//!
//! A commit costs the server more than a row. A write is sent at once if no joint statement is
//! under way. Otherwise it waits until that statement ends. All waiting writes then share the next
//! statement. Each write has its own result, as if it had a statement of its own.
//!
//! A statement that takes long does not hold up the writes behind it: they begin another one.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{PgConnection, Row};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tower_operations::store::{StoreError, StoreResult};

use super::{
    asking::{PATIENCE, ask, late},
    connections::PostgresConnections,
    error::{copy_of, may_be_of_one_row},
    rows::WriteRow,
    statements::Statements,
};

/// The maximum number of rows of a statement.
const ROWS: usize = 128;

/// The size in bytes above which a statement takes no further row.
const BYTES: usize = 1 << 20;

/// The time after which the writes behind a statement begin another one: its connection or its
/// runtime may be stuck.
const LONG: Duration = Duration::from_millis(250);

/// The maximum number of statements under way.
const UNDER_WAY: usize = 16;

/// The queue of writes of a store.
pub(super) struct Batches {
    connections: Arc<PostgresConnections>,
    statements: Arc<Statements>,
    queue: Mutex<WriteQueue>,
}

struct WriteQueue {
    waiting: VecDeque<QueuedWrite>,
    /// The number of tasks that send statements.
    senders: usize,
    /// The time at which a task last began or took writes.
    taken_at: Instant,
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
            queue: Mutex::new(WriteQueue {
                waiting: VecDeque::new(),
                senders: 0,
                taken_at: Instant::now(),
            }),
        })
    }

    /// Writes a row. Returns whether it was written.
    pub(super) async fn write(self: &Arc<Self>, row: WriteRow) -> StoreResult<bool> {
        let (answer, mut answered) = oneshot::channel();
        self.queue().waiting.push_back(QueuedWrite { row, answer });
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.ensure_sender();
            match timeout(LONG, &mut answered).await {
                Ok(Ok(written)) => return written,
                // The runtime of the sender has ended.
                Ok(Err(_)) => {
                    return Err(StoreError::unavailable("the statement was abandoned"));
                }
                Err(_) => {}
            }
        }
        Err(late())
    }

    /// Starts a task that sends what waits, unless a task has taken writes lately.
    fn ensure_sender(self: &Arc<Self>) {
        {
            let mut queue = self.queue();
            let is_stuck = queue.taken_at.elapsed() >= LONG && queue.senders < UNDER_WAY;
            if queue.waiting.is_empty() || !(queue.senders == 0 || is_stuck) {
                return;
            }
            queue.senders += 1;
            queue.taken_at = Instant::now();
        }
        let sender = BatchSender {
            batches: Arc::clone(self),
            is_over: false,
        };
        tokio::spawn(sender.run());
    }

    /// Takes the writes of the next statement, in the order of their ids. Two writes of one
    /// operation never share a statement, whose answer could not tell them apart. Without writes,
    /// the sender has ended.
    fn take(&self) -> Vec<QueuedWrite> {
        let mut queue = self.queue();
        let mut taken: Vec<QueuedWrite> = Vec::new();
        let mut ids: HashSet<String> = HashSet::new();
        let (mut bytes, mut left) = (0, VecDeque::new());
        while taken.len() < ROWS
            && bytes < BYTES
            && let Some(write) = queue.waiting.pop_front()
        {
            if write.answer.is_closed() {
                // Nobody waits for the write any longer.
            } else if ids.contains(write.row.id()) {
                left.push_back(write);
            } else {
                ids.insert(write.row.id().to_owned());
                bytes += write.row.bytes();
                taken.push(write);
            }
        }
        left.append(&mut queue.waiting);
        queue.waiting = left;
        queue.taken_at = Instant::now();
        queue.senders -= usize::from(taken.is_empty());
        taken.sort_unstable_by(|one, other| one.row.id().cmp(other.row.id()));
        taken
    }

    /// Sends the next statement. Returns false if no write waits; the sender has ended then.
    async fn send_next(&self) -> bool {
        if self.end_if_none_waits() {
            return false;
        }
        let mut taken = None;
        // A write whose caller gives up while the connection is awaited is never sent.
        let written = ask(&self.connections, async |connection| {
            let writes = taken.insert(self.take());
            let rows: Vec<&WriteRow> = writes.iter().map(|write| &write.row).collect();
            match rows.is_empty() {
                true => Ok(HashSet::new()),
                false => self.execute(connection, &rows).await,
            }
        });
        match (written.await, taken) {
            // There was no connection.
            (Err(error), None) => {
                answer_all(self.end(), &error);
                false
            }
            (_, Some(writes)) if writes.is_empty() => false,
            (Err(error), Some(writes)) if writes.len() > 1 && may_be_of_one_row(&error) => {
                self.send_singly(writes).await;
                true
            }
            (Err(error), Some(writes)) => {
                answer_all(writes, &error);
                true
            }
            (Ok(ids), writes) => {
                for QueuedWrite { row, answer } in writes.into_iter().flatten() {
                    // The caller may have given up.
                    let _ = answer.send(Ok(ids.contains(row.id())));
                }
                true
            }
        }
    }

    /// Writes each row in a statement of its own. The rest fails with the first error that is not
    /// that of a row.
    async fn send_singly(&self, writes: Vec<QueuedWrite>) {
        let mut writes = writes.into_iter();
        while let Some(QueuedWrite { row, answer }) = writes.next() {
            if answer.is_closed() {
                continue;
            }
            let written = ask(&self.connections, async |connection| {
                self.execute(connection, &[&row]).await
            });
            let written = written.await.map(|ids| !ids.is_empty());
            match written {
                Err(error) if !may_be_of_one_row(&error) => {
                    let _ = answer.send(Err(copy_of(&error)));
                    return answer_all(writes, &error);
                }
                written => drop(answer.send(written)),
            }
        }
    }

    /// Runs the statement; returns the ids of the rows that were written.
    async fn execute(
        &self,
        connection: &mut PgConnection,
        rows: &[&WriteRow],
    ) -> Result<HashSet<String>, sqlx::Error> {
        let query = WriteRow::query(&self.statements, rows);
        let written = query.fetch_all(connection).await?;
        written.iter().map(|row| row.try_get("id")).collect()
    }

    /// Ends the sender if no write waits. Returns whether it has ended.
    fn end_if_none_waits(&self) -> bool {
        let mut queue = self.queue();
        let ends = queue.waiting.is_empty();
        queue.senders -= usize::from(ends);
        ends
    }

    /// Ends a sender that cannot send. Returns the writes that wait.
    fn end(&self) -> VecDeque<QueuedWrite> {
        let mut queue = self.queue();
        queue.senders -= 1;
        std::mem::take(&mut queue.waiting)
    }

    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        // A critical section only moves finished values.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer_all(writes: impl IntoIterator<Item = QueuedWrite>, error: &StoreError) {
    for write in writes {
        let _ = write.answer.send(Err(copy_of(error)));
    }
}

/// A task that sends statements until no write waits.
struct BatchSender {
    batches: Arc<Batches>,
    /// Whether the queue no longer counts this sender.
    is_over: bool,
}

impl BatchSender {
    async fn run(mut self) {
        while self.batches.send_next().await {}
        self.is_over = true;
    }
}

impl Drop for BatchSender {
    /// Ends a sender whose runtime ends. The writes that wait get an error, since no other sender
    /// may come.
    fn drop(&mut self) {
        if !self.is_over {
            drop(self.batches.end());
        }
    }
}
