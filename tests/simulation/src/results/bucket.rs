use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use test_customers::Random;
use tokio::time::{Instant, sleep};
use tower_operations::{OperationId, results::ResultKey, testing::TaskGroup};

use super::{
    ResultCounts, SimulatedResults, mutations::LostUpload, trap::UploadTrap, upload::OpenUpload,
};
use crate::{
    Mutant,
    bug::PlantedBug,
    document,
    engine::{Network, NetworkFaults},
    journal::Journal,
};

/// The clocks of the store and of the nodes differ by less than this.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The uploads that all nodes share.
pub(crate) struct Bucket {
    pub(super) network: Arc<Network>,
    journal: Arc<Journal>,
    /// The error of the clock of the store.
    clock_error: ClockError,
    state: Mutex<BucketState>,
}

/// The error of a clock.
#[derive(Debug, Clone, Copy)]
enum ClockError {
    Behind(Duration),
    Ahead(Duration),
}

pub(super) struct BucketState {
    pub(super) random: Random,
    pub(super) bug: PlantedBug,
    pub(super) counts: ResultCounts,
    pub(super) violations: Vec<String>,
    /// The number of uploads so far.
    number: u64,
    pub(super) open: BTreeMap<u64, OpenUpload>,
    pub(super) finished: BTreeMap<ResultKey, FinishedUpload>,
    /// The deleted uploads that are still listed: their times by the clock of the store, and the
    /// end of the lag.
    pub(super) still_listed: BTreeMap<ResultKey, (SystemTime, Instant)>,
    /// The number of the upload by which each key was finished.
    finished_by: BTreeMap<ResultKey, u64>,
    pub(super) traps: BTreeMap<usize, UploadTrap>,
    pub(super) lost: Vec<LostUpload>,
}

/// An upload that can be read.
pub(super) struct FinishedUpload {
    pub(super) content: Bytes,
    /// The time by the clock of the store.
    pub(super) finished_at: SystemTime,
    finished: Instant,
    /// The time from which the upload is listed.
    pub(super) listed_from: Instant,
}

impl Bucket {
    /// Creates an empty store. The clocks of nodes are wrong by at most `skew`.
    pub(crate) fn new(
        faults: NetworkFaults,
        skew: Duration,
        journal: &Arc<Journal>,
        mutant: Option<Mutant>,
        random: &mut Random,
    ) -> Arc<Self> {
        // The difference to a clock that is wrong the other way is shorter than an hour.
        let most = HOUR - skew - Duration::from_millis(50);
        let some = Duration::from_millis(random.below(3_000_000) as u64);
        let clock_error = match random.below(4) {
            0 | 1 => ClockError::Behind(most),
            2 => ClockError::Ahead(most),
            _ => ClockError::Behind(some),
        };
        Arc::new(Self {
            network: Network::new(0, faults, Random::new(random.next_u64())),
            journal: Arc::clone(journal),
            clock_error,
            state: Mutex::new(BucketState {
                bug: PlantedBug::new(mutant, Random::new(random.next_u64())),
                random: Random::new(random.next_u64()),
                counts: ResultCounts::default(),
                violations: Vec::new(),
                number: 0,
                open: BTreeMap::new(),
                finished: BTreeMap::new(),
                still_listed: BTreeMap::new(),
                finished_by: BTreeMap::new(),
                traps: BTreeMap::new(),
                lost: Vec::new(),
            }),
        })
    }

    /// Returns the store as a process of a node reaches it.
    pub(crate) fn open(self: &Arc<Self>, node: usize, tasks: TaskGroup) -> SimulatedResults {
        SimulatedResults {
            bucket: Arc::clone(self),
            node,
            tasks,
        }
    }

    /// Takes the store away, or brings it back.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.network.set_away(is_away);
    }

    /// Lets the store be away for a while.
    pub(crate) async fn fail(&self, pause: Duration) {
        self.state().counts.outages += 1;
        self.set_away(true);
        sleep(pause).await;
        self.set_away(false);
    }

    /// Ends the faults of the network.
    pub(crate) fn heal(&self) {
        self.network.heal();
    }

    /// Returns the counts so far.
    pub(crate) fn counts(&self) -> ResultCounts {
        self.state().counts
    }

    /// Returns the number of calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.network.counts().calls
    }

    /// Returns the uploads that can be read, with the times at which they were finished.
    pub(crate) fn uploads(&self) -> Vec<(ResultKey, Instant)> {
        let state = self.state();
        let uploads = state.finished.iter();
        uploads
            .map(|(key, upload)| (key.clone(), upload.finished))
            .collect()
    }

    /// Returns the operations that ever had an upload.
    pub(crate) fn operations(&self) -> BTreeSet<OperationId> {
        let state = self.state();
        let keys = state.finished_by.keys();
        keys.map(|key| key.id.clone()).collect()
    }

    /// Adds a broken law.
    pub(crate) fn add_violation(&self, violation: String) {
        self.state().violations.push(violation);
    }

    /// Returns the broken laws so far, and removes them.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    /// Returns the time by the clock of the store.
    pub(super) fn wall_clock(&self) -> SystemTime {
        let now = self.journal.wall_clock();
        match self.clock_error {
            ClockError::Behind(error) => now - error,
            ClockError::Ahead(error) => now + error,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, BucketState> {
        // A panic within a critical section fails the simulation.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.lose_due();
        state
    }
}

impl BucketState {
    /// Begins an upload, and returns its number.
    pub(super) fn begin(&mut self, key: &ResultKey) -> u64 {
        self.number += 1;
        self.open.insert(self.number, OpenUpload::new(key));
        self.number
    }

    /// Makes an upload visible. `now` is the time by the clock of the store.
    pub(super) fn finish(&mut self, number: u64, now: SystemTime, process: &TaskGroup) {
        let Some(upload) = self.open.remove(&number) else {
            self.counts.repeated_finishes += 1;
            return;
        };
        let content = upload.content();
        let key = upload.key.clone();
        self.counts.finished += 1;
        if !document::is_whole(&content) {
            let violation = format!("{key}: the upload is no document of a run");
            self.violations.push(violation);
        }
        if let Some(first) = self.finished_by.insert(key.clone(), number) {
            let contents = match self.finished.get(&key) {
                Some(other) if other.content == content => "the same content",
                _ => "another content",
            };
            let violation = format!("{key}: finished by upload {first} and {number}, {contents}");
            self.violations.push(violation);
        }
        let content = self.damage(&upload, content);
        // A list may lack the uploads of the last hour.
        let lag = match self.random.one_in(4) {
            true => HOUR.mul_f64(self.random.below(1_000) as f64 / 1_000.0),
            false => Duration::ZERO,
        };
        let upload = FinishedUpload {
            content,
            finished_at: now,
            finished: Instant::now(),
            listed_from: Instant::now() + lag,
        };
        self.finished.insert(key.clone(), upload);
        self.lose(&key, process);
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}
