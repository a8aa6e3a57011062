//! The disk of a node, with power failures and errors.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use test_customers::Random;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tower_operations::testing::TaskGroup;
use tower_operations_redb::{
    RedbStore,
    testing::{Disk, Trap, open_in_task},
};

/// The memory for pages, in bytes; one of these. Without memory every read and write reaches the
/// disk.
const CACHES: [usize; 3] = [0, 1 << 16, 1 << 20];
/// The number of writes within which a power failure comes, at most.
const WRITES: usize = 40;
/// The time after which the power fails without a write.
const PATIENCE: Duration = Duration::from_millis(50);

/// The disk of a node, and the file on it.
#[derive(Clone)]
pub(crate) struct NodeDisk(Arc<Mutex<DiskState>>);

struct DiskState {
    /// The disk of the present process. The next process has another one, since the remains of
    /// this process may still write to it.
    disk: Disk,
    /// Whether a sync is answered after it took effect.
    syncs: bool,
    store: Option<RedbStore>,
    random: Random,
    /// The number of processes so far.
    processes: u64,
    power_failures: u64,
    violations: Vec<String>,
}

impl NodeDisk {
    /// Creates an empty disk. Unless `syncs` is set, its syncs are answered before they take effect.
    pub(crate) fn new(random: Random, syncs: bool) -> Self {
        Self(Arc::new(Mutex::new(DiskState {
            disk: Disk::default(),
            syncs,
            store: None,
            random,
            processes: 0,
            power_failures: 0,
            violations: Vec::new(),
        })))
    }

    /// Opens the file for a process. If the power fails before the file is open, it is opened
    /// again.
    pub(crate) fn open(&self) -> RedbStore {
        loop {
            let (disk, process, cache) = {
                let state = &mut *self.state();
                if !state.syncs {
                    state.disk.delay_syncs();
                }
                if state.random.one_in(4) {
                    let node = self.clone();
                    let writes = state.random.below(WRITES);
                    (state.disk).set_hook(writes, move || node.state().cut_power());
                }
                let cache = CACHES[state.random.below(CACHES.len())];
                (state.disk.clone(), state.processes, cache)
            };
            let opened = open_in_task(&disk, cache);
            let mut state = self.state();
            state.disk.clear_hook();
            match opened {
                _ if state.processes != process => {}
                Ok(store) => {
                    state.store = Some(store.clone());
                    return store;
                }
                Err(error) => {
                    state
                        .violations
                        .push(format!("the file is not opened: {error:?}"));
                    state.disk = Disk::default();
                }
            }
        }
    }

    /// Ends a process by a kill or by a power failure, which may come between two writes.
    pub(crate) async fn crash(&self, tasks: &TaskGroup) {
        let cut = {
            let state = &mut *self.state();
            match state.random.below(4) {
                0 => {
                    state.kill();
                    None
                }
                1 => {
                    state.cut_power();
                    None
                }
                _ => {
                    let (sender, cut) = oneshot::channel();
                    let (node, tasks) = (self.clone(), tasks.clone());
                    let writes = state.random.below(WRITES);
                    state.disk.set_hook(writes, move || {
                        node.state().cut_power();
                        // The process answers nobody from now on.
                        tasks.abort();
                        let _ = sender.send(());
                    });
                    Some(cut)
                }
            }
        };
        if let Some(cut) = cut
            && timeout(PATIENCE, cut).await.is_err()
        {
            self.state().cut_power();
        }
        tasks.abort();
    }

    /// Ends a process that was drained. It may close the file before.
    pub(crate) async fn exit(&self, tasks: &TaskGroup) {
        let store = {
            let mut state = self.state();
            let closes = state.random.one_in(2);
            state.store.take().filter(|_| closes)
        };
        if let Some(store) = store
            && let Err(error) = store.close().await
        {
            let violation = format!("the file is not closed: {error:?}");
            self.state().violations.push(violation);
        }
        tasks.abort();
        self.state().kill();
    }

    /// Lets the disk be full for a while, or lets one of its next calls fail.
    pub(crate) async fn fail(&self, pause: Duration) {
        let disk = {
            let state = &mut *self.state();
            let calls = state.random.below(2 * WRITES);
            match state.random.below(4) {
                0 => state.disk.set_trap(calls, Trap::Error),
                1 => state.disk.set_trap(calls, Trap::LateError),
                _ => state.disk.limit(Some(calls / 8)),
            }
            state.disk.clone()
        };
        sleep(pause).await;
        disk.limit(None);
        disk.take_trap();
    }

    /// Returns the number of power failures.
    pub(crate) fn power_failures(&self) -> u64 {
        self.state().power_failures
    }

    /// Returns the broken promises of the file so far, and forgets them.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        // A panic within a critical section fails the simulation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskState {
    /// Ends the process. Its writes remain.
    fn kill(&mut self) {
        self.leave(Disk::after_kill(&self.disk));
    }

    /// Cuts the power. Any of the writes that were not synced may remain.
    fn cut_power(&mut self) {
        self.power_failures += 1;
        let random = &mut self.random;
        let left = self.disk.after_power_cut(|| random.one_in(2));
        self.leave(left);
    }

    fn leave(&mut self, left: Disk) {
        self.disk.clear_hook();
        self.disk = left;
        self.store = None;
        self.processes += 1;
    }
}

impl fmt::Debug for NodeDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeDisk").finish_non_exhaustive()
    }
}
