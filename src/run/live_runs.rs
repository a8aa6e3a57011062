//! The live runs of a node.

use std::{hash::BuildHasher, sync::PoisonError, time::Duration};

use hashbrown::HashTable;
use tokio::time::Instant;

use super::{
    run_context::RunContext,
    sync::{Arc, Mutex, MutexGuard, RandomState, random_hasher},
};
use crate::{
    deadline_lists::{DeadlineLists, ListEntry, ListLinks},
    operation::OperationId,
    slots::{Slot, Slots},
    store::FencingToken,
};

/// A run that is in progress.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) work: Arc<RunContext>,
    /// The time that the run may continue after it was asked to stop.
    pub(super) grace: Duration,
    /// The deadline of the current phase, once the run waits in that phase.
    deadline: Option<Instant>,
    links: ListLinks,
}

impl LiveRun {
    pub(super) fn new(work: Arc<RunContext>, grace: Duration) -> Self {
        Self {
            work,
            grace,
            deadline: None,
            links: ListLinks::NONE,
        }
    }
}

impl ListEntry for LiveRun {
    /// The entries of a list have a deadline.
    type Moment = Option<Instant>;

    fn at(&self) -> Option<Instant> {
        self.deadline
    }

    fn links(&self) -> ListLinks {
        self.links
    }

    fn links_mut(&mut self) -> &mut ListLinks {
        &mut self.links
    }
}

/// The place of a live run, valid until the run is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    shard: u8,
    slot: Slot,
}

/// The live runs, by ticket, by deadline, and by the operation's id and fencing token.
///
/// An id alone does not identify a run: a client may reuse the id of a deleted operation whose
/// handler has not ended yet, and a reclaimed operation may return to this node under a newer
/// token.
///
/// The runs are divided into shards, so that threads rarely wait for each other.
#[derive(Debug)]
pub(super) struct LiveRuns {
    shards: [LiveShard; SHARDS],
    hasher: RandomState,
}

const SHARDS: usize = 16;

/// A shard in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct LiveShard(Mutex<ShardedRuns>);

#[derive(Debug, Default)]
struct ShardedRuns {
    runs: Slots<LiveRun>,
    /// The slots, hashed by id: all runs of one id have the same hash.
    slots: HashTable<Slot>,
    /// The runs that wait, in the order of their deadlines.
    deadlines: DeadlineLists,
}

impl LiveShard {
    fn lock(&self) -> MutexGuard<'_, ShardedRuns> {
        // Nothing in a critical section panics halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShardedRuns {
    fn find(&self, hash: u64, id: &OperationId, token: FencingToken) -> Option<&LiveRun> {
        let work = |slot: &Slot| &self.runs[*slot].work;
        let is_it = |slot: &Slot| work(slot).id == *id && work(slot).token() == token;
        self.runs.get(*self.slots.find(hash, is_it)?)
    }
}

impl Default for LiveRuns {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            hasher: random_hasher(),
        }
    }
}

impl LiveRuns {
    fn shard(&self, hash: u64) -> usize {
        // The table of a shard uses the other bits.
        (hash >> 32) as usize % SHARDS
    }

    /// Adds a run. Returns `None` if the run is already there.
    pub(super) fn insert(&self, run: LiveRun) -> Option<Ticket> {
        let hash = self.hasher.hash_one(&run.work.id);
        let shard = self.shard(hash);
        let mut sharded = self.shards[shard].lock();
        if sharded.find(hash, &run.work.id, run.work.token()).is_some() {
            return None;
        }
        let ShardedRuns { runs, slots, .. } = &mut *sharded;
        let slot = runs.insert(run);
        let hash_of = |slot: &Slot| self.hasher.hash_one(&runs[*slot].work.id);
        slots.insert_unique(hash, slot, hash_of);
        let shard = shard as u8;
        Some(Ticket { shard, slot })
    }

    /// Removes a run.
    pub(super) fn remove(&self, Ticket { shard, slot }: Ticket) {
        let mut sharded = self.shards[usize::from(shard)].lock();
        let ShardedRuns {
            runs,
            slots,
            deadlines,
            ..
        } = &mut *sharded;
        if runs[slot].deadline.is_some() {
            deadlines.remove(runs, slot);
        }
        let run = runs.remove(slot);
        if let Some(run) = &run
            && let hash = self.hasher.hash_one(&run.work.id)
            && let Ok(found) = slots.find_entry(hash, |other| *other == slot)
        {
            found.remove();
        }
        // The run is dropped outside of the lock.
        drop(sharded);
    }

    /// Sets the deadline of a run, `span` from now on.
    pub(super) fn set_deadline(&self, Ticket { shard, slot }: Ticket, at: Instant, span: Duration) {
        let mut sharded = self.shards[usize::from(shard)].lock();
        let ShardedRuns {
            runs, deadlines, ..
        } = &mut *sharded;
        if runs[slot].deadline.replace(at).is_some() {
            deadlines.remove(runs, slot);
        }
        deadlines.insert(runs, slot, span);
    }

    /// Removes the deadlines up to `now`, and returns their runs and the next deadline.
    pub(super) fn sweep(&self, now: Instant) -> (Vec<Arc<RunContext>>, Option<Instant>) {
        let (mut overdue, mut earliest) = (Vec::new(), None);
        for shard in &self.shards {
            let mut sharded = shard.lock();
            let ShardedRuns {
                runs, deadlines, ..
            } = &mut *sharded;
            let next = loop {
                match deadlines.first(runs) {
                    Some((at, slot)) if at <= Some(now) => {
                        deadlines.remove(runs, slot);
                        runs[slot].deadline = None;
                        overdue.push(Arc::clone(&runs[slot].work));
                    }
                    next => break next.and_then(|(at, _)| at),
                }
            };
            earliest = earliest.into_iter().chain(next).min();
        }
        (overdue, earliest)
    }

    /// Returns the run of an operation with this token.
    pub(super) fn get(&self, id: &OperationId, token: FencingToken) -> Option<Arc<RunContext>> {
        let hash = self.hasher.hash_one(id);
        let sharded = self.shards[self.shard(hash)].lock();
        let run = sharded.find(hash, id, token)?;
        Some(Arc::clone(&run.work))
    }

    /// Returns the runs of one operation, or of several operations that had the same id one
    /// after another.
    pub(super) fn with_id(&self, id: &OperationId) -> Vec<Arc<RunContext>> {
        let hash = self.hasher.hash_one(id);
        let sharded = self.shards[self.shard(hash)].lock();
        let runs = sharded.slots.iter_hash(hash).map(|it| &sharded.runs[*it]);
        runs.filter(|run| run.work.id == *id)
            .map(|run| Arc::clone(&run.work))
            .collect()
    }

    /// Returns what `read` returns of each run.
    pub(super) fn map<T>(&self, read: impl Fn(&LiveRun) -> T) -> Vec<T> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().runs.values().map(&read));
        }
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().runs.is_empty())
    }
}
