//! Kills and stops of a node at a place of one of its uploads.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tower_operations::testing::TaskGroup;

use super::{Bucket, SimulatedResults};

/// The time in which the next upload has to come to its place.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The longest time from the end of an upload to the trap, in milliseconds. A store records the
/// outcome of the operation meanwhile.
const RECORDING: u64 = 12;

/// A place of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadPlace {
    /// A chunk was written.
    Chunk,
    /// The upload is finished, and the node does not know it.
    Finished,
    /// The node knows that the upload is finished, and records the outcome of the operation.
    Recording,
}

/// The fault of a node that comes to the place of a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrapFault {
    Kill,
    Stop,
}

/// A fault that waits for an upload.
#[derive(Debug)]
pub(super) struct UploadTrap {
    place: UploadPlace,
    fault: TrapFault,
    /// The number of chunks that pass before.
    passes: usize,
    sprung: oneshot::Sender<()>,
}

impl Bucket {
    /// Kills or stops a process of a node at a place of an upload. Returns false if no upload
    /// comes there in time.
    pub(crate) async fn trap_upload(&self, node: usize, fault: TrapFault) -> bool {
        let (place, passes) = {
            let random = &mut self.state().random;
            match random.below(4) {
                0 => (UploadPlace::Chunk, random.below(4)),
                1 | 2 => (UploadPlace::Finished, 0),
                _ => (UploadPlace::Recording, 0),
            }
        };
        self.set_trap(node, place, fault, passes).await
    }

    /// Stops a process of a node after an upload was finished, before it knows. Returns false if
    /// no upload comes there in time.
    pub(crate) async fn stop_after_upload(&self, node: usize) -> bool {
        self.set_trap(node, UploadPlace::Finished, TrapFault::Stop, 0)
            .await
    }

    async fn set_trap(
        &self,
        node: usize,
        place: UploadPlace,
        fault: TrapFault,
        passes: usize,
    ) -> bool {
        let (sender, sprung) = oneshot::channel();
        let trap = UploadTrap {
            place,
            fault,
            passes,
            sprung: sender,
        };
        self.state().traps.insert(node, trap);
        // The trap springs at the end of the time if an upload has just come to it.
        let sprung = timeout(PATIENCE, sprung).await;
        self.state().traps.remove(&node);
        matches!(sprung, Ok(Ok(())))
    }
}

impl SimulatedResults {
    /// Passes a place of an upload, where a trap may wait.
    pub(super) async fn pass(&self, place: UploadPlace) {
        let Some(trap) = self.take_trap(place) else {
            return;
        };
        let tasks = self.tasks.clone();
        if place == UploadPlace::Recording {
            let delay = self.bucket.state().random.between(0, RECORDING);
            // The node goes on meanwhile.
            tokio::spawn(async move {
                sleep(Duration::from_millis(delay)).await;
                trap.spring(&tasks);
            });
        } else {
            trap.spring(&tasks);
            // The task is dropped here, or goes on once it is resumed.
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn take_trap(&self, place: UploadPlace) -> Option<UploadTrap> {
        let state = &mut *self.bucket.state();
        let trap = state.traps.get_mut(&self.node)?;
        if trap.place != place {
            return None;
        }
        if trap.passes > 0 {
            trap.passes -= 1;
            return None;
        }
        let trap = state.traps.remove(&self.node)?;
        let counts = &mut state.counts;
        match (place, trap.fault) {
            (UploadPlace::Recording, TrapFault::Kill) => counts.killed_recording += 1,
            (UploadPlace::Finished, TrapFault::Stop) => counts.stopped_unrecorded += 1,
            _ => {}
        }
        Some(trap)
    }
}

impl UploadTrap {
    fn spring(self, tasks: &TaskGroup) {
        // The node does not wait any more if the time was over.
        if self.sprung.send(()).is_err() {
            return;
        }
        match self.fault {
            TrapFault::Kill => tasks.abort(),
            TrapFault::Stop => tasks.suspend(),
        }
    }
}
