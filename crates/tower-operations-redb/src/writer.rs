//! The thread that writes.
//!
//! The changes that arrive during a commit form the next batch: one transaction, one
//! commit, then all answers, which another thread sends. Leases are in the memory of this
//! thread, so it also answers requests about leases, after the commit.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use ::redb::Database;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tower_operations::{engine::wall_clock, store::StoreError};

use super::{
    answers::{Answers, answer},
    cell_cache::CellCache,
    desk::{Desk, Holder, Standing, VolatileState},
    engine::Driver,
    error::{RedbError, RedbFault, SharedRedbFault},
    expiring_map::{ExpiringEntry, until},
    file::{Access, DatabaseSlot, Medium, Opened, finish},
    rows::millis,
    writer_request::{Batch, CloseReply, Round, WriterRequest},
};

/// The capacity of the queue; further callers wait for room.
const QUEUE: usize = 1024;

/// Opens the database on `medium`, and starts the thread or the task that writes to it. It ends
/// after the last sender was dropped, once it has served all requests.
pub(super) fn start(mut medium: Medium, driver: Driver) -> Result<Started, RedbError> {
    let mut memory = VolatileState::default();
    let database = match catch_unwind(AssertUnwindSafe(|| medium.open())) {
        // No other process can have the file open, so no earlier holder exists any more.
        Ok(opened) => adopt(&mut memory, opened?, driver.now(), Standing::Before),
        Err(_) => return Err(RedbError::Corrupt(RedbFault::Panicked.into())),
    };
    let slot = DatabaseSlot::new(Access::Open(database));
    let (asks, asked) = channel(QUEUE);
    let counted = Arc::<WriterCounters>::default();
    let hot = Arc::new(CellCache::new(medium.hot));
    let writer = Writer {
        medium,
        memory,
        slot: slot.clone(),
        counted: Arc::clone(&counted),
        hot: Arc::clone(&hot),
        answers: match driver {
            Driver::Threads => Answers::start().map_err(RedbError::Io)?,
            #[cfg(any(test, feature = "testing"))]
            Driver::Task => Answers::default(),
        },
        driver,
    };
    match driver {
        Driver::Threads => {
            thread::Builder::new()
                .name("operations-redb".into())
                .spawn(move || writer.run(asked))
                .map_err(RedbError::Io)?;
        }
        #[cfg(any(test, feature = "testing"))]
        Driver::Task => {
            tower_operations::engine::spawn(writer.run_in_task(asked));
        }
    }
    Ok(Started {
        slot,
        asks,
        counted,
        hot,
    })
}

/// Shared access to the writer.
pub(super) struct Started {
    pub(super) slot: DatabaseSlot,
    pub(super) asks: Sender<WriterRequest>,
    pub(super) counted: Arc<WriterCounters>,
    pub(super) hot: Arc<CellCache>,
}

/// The counts of the writer.
#[derive(Debug, Default)]
pub(super) struct WriterCounters {
    pub(super) commits: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) failures: AtomicU64,
}

/// Reconciles memory with the file. Leases that are not in memory end at `until`.
fn adopt(
    memory: &mut VolatileState,
    opened: Opened,
    until: Instant,
    standing: Standing,
) -> Database {
    let held: HashMap<_, _> = opened.held.into_iter().collect();
    let leases = &mut memory.leases;
    leases.retain(|id, lease| held.get(id) == Some(&lease.value.token));
    for (id, token) in held {
        if leases.get(&id).is_none() {
            let value = Holder { token, standing };
            leases.set(&id, Some(ExpiringEntry { until, value }));
        }
    }
    memory.next_number = memory.next_number.max(opened.next_number);
    memory.keep();
    opened.database
}

struct Writer {
    medium: Medium,
    memory: VolatileState,
    slot: DatabaseSlot,
    counted: Arc<WriterCounters>,
    hot: Arc<CellCache>,
    answers: Answers,
    driver: Driver,
}

impl Writer {
    /// Serves all requests, on a thread.
    fn run(mut self, mut asked: Receiver<WriterRequest>) {
        let mut close = None;
        while close.is_none()
            && let Some(first) = asked.blocking_recv()
        {
            close = self.serve(Round::gather(first, &mut asked));
        }
        self.end(asked, close);
    }

    /// Serves all requests, in a task on the only thread of its runtime.
    #[cfg(any(test, feature = "testing"))]
    async fn run_in_task(mut self, mut asked: Receiver<WriterRequest>) {
        let mut close = None;
        while close.is_none()
            && let Some(first) = asked.recv().await
        {
            close = self.serve(Round::gather(first, &mut asked));
        }
        self.end(asked, close);
    }

    /// Serves a round, except for the request to close the file, which is returned.
    fn serve(&mut self, round: Round) -> Option<CloseReply> {
        if !round.checks.is_empty() {
            self.check();
            for waiting in round.checks {
                let _ = waiting.send(());
            }
        }
        if !round.batch.is_empty() {
            self.write(round.batch);
        }
        for ask in round.leases {
            let access = self.slot.read_as_writer();
            let is_sound = ask.answer(&mut self.memory, &access, self.driver.now());
            drop(access);
            if !is_sound {
                self.check();
            }
        }
        for waiting in round.compact {
            let _ = waiting.send(self.compact());
        }
        round.close
    }

    /// Closes the file. The requests that were not served get no answer.
    fn end(mut self, unserved: Receiver<WriterRequest>, close: Option<CloseReply>) {
        drop(unserved);
        // The changes before the close are answered before it.
        self.answers.finish();
        let closed = self.close();
        match (close, closed) {
            (Some(waiting), closed) => {
                let _ = waiting.send(closed);
            }
            (None, Err(error)) => tracing::warn!(error = %error, "file not closed"),
            (None, Ok(())) => {}
        }
    }

    /// Makes all changes of a batch durable, and answers them.
    fn write(&mut self, mut batch: Batch) {
        let mut written = self.attempt(&mut batch);
        if matches!(&written, Err(fault) if fault.is_of_before()) {
            // A read had already met an error, so nothing was written yet.
            self.reopen(&RedbFault::from(::redb::StorageError::PreviousIo).into());
            written = self.attempt(&mut batch);
        }
        let fault = match written {
            Ok(changed) => {
                self.counted.commits.fetch_add(changed.min(1), Relaxed);
                self.counted.changes.fetch_add(changed, Relaxed);
                self.answers.send(batch);
                return;
            }
            Err(fault) => fault,
        };
        if !fault.is_of_the_disk() && batch.len() > 1 {
            // One of the changes fails; the others succeed without it.
            for job in batch {
                self.write(vec![job]);
            }
            return;
        }
        let is_of_the_disk = fault.is_of_the_disk();
        let fault = SharedRedbFault::from(fault);
        if is_of_the_disk {
            self.reopen(&fault);
        }
        for job in batch {
            answer(|| job.failed(fault.clone().into()));
        }
    }

    /// Tries a batch as one transaction. After an error, memory has none of the changes,
    /// and neither has the file, unless the commit itself failed: then its outcome is
    /// unknown.
    fn attempt(&mut self, batch: &mut Batch) -> Result<u64, RedbFault> {
        let access = self.slot.read_as_writer();
        let Access::Open(database) = &*access else {
            return Err(::redb::StorageError::PreviousIo.into());
        };
        let (memory, hot) = (&mut self.memory, &*self.hot);
        let now = (self.driver.now(), millis(wall_clock()));
        let written = catch_unwind(AssertUnwindSafe(|| {
            write(database, memory, hot, now, batch)
        }));
        let written = written.unwrap_or(Err(RedbFault::Panicked));
        match &written {
            Ok(_) => memory.keep(),
            Err(_) => memory.undo(),
        }
        written
    }

    /// Opens the database again if it has failed.
    fn check(&mut self) {
        let failed = match &*self.slot.read_as_writer() {
            Access::Open(database) => database.begin_write().err().map(RedbFault::from),
            Access::Failed(_) => Some(::redb::StorageError::PreviousIo.into()),
            Access::Closed => None,
        };
        if let Some(fault) = failed {
            self.reopen(&fault.into());
        }
    }

    fn reopen(&mut self, fault: &SharedRedbFault) {
        self.counted.failures.fetch_add(1, Relaxed);
        tracing::warn!(error = %StoreError::from(fault.clone()).report(), "file failed, opening it again");
        let mut access = self.slot.write_as_writer();
        let failed = std::mem::replace(&mut *access, Access::Failed(fault.clone()));
        // Changes read from the cache, and a file that is opened again may lack what it had.
        self.hot.clear();
        // Without this, the dropped database would write its state, which may be wrong.
        self.medium.cut_off();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(failed)));
        // Operations whose commit failed but took effect get a full term: their holders are
        // alive and will retry.
        match catch_unwind(AssertUnwindSafe(|| self.medium.open())) {
            Ok(Ok(opened)) => {
                let over = until(self.driver.now(), self.memory.longest);
                *access = Access::Open(adopt(&mut self.memory, opened, over, Standing::There));
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "file not reopened");
            }
            Err(_) => tracing::warn!("reopening the file panicked"),
        }
    }

    fn compact(&mut self) -> Result<bool, RedbError> {
        let compacted = {
            let mut access = self.slot.write_as_writer();
            match &mut *access {
                Access::Open(database) => {
                    catch_unwind(AssertUnwindSafe(|| Ok(database.compact()?)))
                        .unwrap_or_else(|_| Err(RedbError::Engine(RedbFault::Panicked.into())))
                }
                Access::Failed(fault) => Err(RedbError::Engine(fault.clone().into())),
                Access::Closed => Err(RedbError::Closed),
            }
        };
        self.check();
        compacted
    }

    fn close(&mut self) -> Result<(), RedbError> {
        // Dropping the database writes the data that makes the next opening quick.
        *self.slot.write_as_writer() = Access::Closed;
        Ok(self.medium.close()?)
    }
}

/// Applies a batch; returns the number of effective changes.
fn write(
    database: &Database,
    memory: &mut VolatileState,
    hot: &CellCache,
    now: (Instant, u64),
    batch: &mut Batch,
) -> Result<u64, RedbFault> {
    let write = database.begin_write()?;
    let mut desk = Desk::new(&write, memory, hot, now)?;
    for job in batch {
        desk.next();
        job.apply(&mut desk)?;
    }
    let (changed, touched) = desk.close(&write)?;
    if changed == 0 {
        write.abort()?;
        return Ok(0);
    }
    // A reader that has seen the next state in the file must not see an earlier state in
    // memory.
    hot.invalidate(&touched);
    finish(write)?;
    hot.keep(touched);
    Ok(changed)
}
