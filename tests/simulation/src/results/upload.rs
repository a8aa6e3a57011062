//! Uploads in progress.

use std::{collections::btree_map::Entry, time::Duration};

use bytes::Bytes;
use tokio::time::sleep;
use tower_operations::results::{ResultFuture, ResultKey, ResultUpload};

use super::{SimulatedResults, bucket::BucketState, trap::UploadPlace};

/// The longest time after which a call takes effect that was given up, in milliseconds.
const LATE: u64 = 5_000;

/// An upload as the store has it.
pub(super) struct OpenUpload {
    pub(super) key: ResultKey,
    pub(super) chunks: Vec<Bytes>,
    /// Whether a chunk was written again.
    pub(super) has_repeated: bool,
    /// Whether a call that finishes the upload is on its way.
    is_finishing: bool,
}

/// An upload as a process has it. Dropping it aborts the upload.
pub(super) struct SimulatedUpload {
    store: SimulatedResults,
    number: u64,
    /// The number of chunks whose writes were answered.
    written: usize,
}

/// A call that finishes an upload.
struct FinishCall<'a> {
    store: &'a SimulatedResults,
    has_effect: bool,
    is_answered: bool,
}

impl OpenUpload {
    pub(super) fn new(key: &ResultKey) -> Self {
        Self {
            key: key.clone(),
            chunks: Vec::new(),
            has_repeated: false,
            is_finishing: false,
        }
    }

    pub(super) fn content(&self) -> Bytes {
        self.chunks.concat().into()
    }
}

impl SimulatedUpload {
    pub(super) fn new(store: &SimulatedResults, number: u64) -> Self {
        Self {
            store: store.clone(),
            number,
            written: 0,
        }
    }

    /// Finishes the upload at the store, perhaps after the call was given up. Returns whether it
    /// is finished now.
    fn finish_at_store(&self, may_be_late: bool) -> bool {
        let (bucket, number) = (self.store.bucket.clone(), self.number);
        let tasks = self.store.tasks.clone();
        let now = bucket.wall_clock();
        let mut state = bucket.state();
        if !(may_be_late && state.random.one_in(2)) {
            state.finish(number, now, &tasks);
            return true;
        }
        let Some(upload) = state.open.get_mut(&number) else {
            return true;
        };
        upload.is_finishing = true;
        let delay = Duration::from_millis(state.random.between(0, LATE));
        drop(state);
        // The call is on its way, whether its node lives or not.
        tokio::spawn(async move {
            sleep(delay).await;
            let now = bucket.wall_clock();
            let mut state = bucket.state();
            if state.open.contains_key(&number) {
                state.counts.finished_late += 1;
                state.finish(number, now, &tasks);
            }
        });
        false
    }
}

impl ResultUpload for SimulatedUpload {
    fn write(&mut self, chunk: Bytes) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            let (number, place) = (self.number, self.written);
            let fate = self.store.send_or_panic().await?;
            (self.store.bucket.state()).write(number, place, chunk);
            self.store.pass(UploadPlace::Chunk).await;
            self.store.receive(&fate).await?;
            self.written += 1;
            Ok(())
        })
    }

    fn finish(&mut self) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            let mut call = FinishCall {
                store: &self.store,
                has_effect: false,
                is_answered: false,
            };
            let fate = self.store.send_or_panic().await?;
            call.has_effect = self.finish_at_store(fate.loses_answer);
            if call.has_effect {
                self.store.pass(UploadPlace::Finished).await;
            }
            self.store.receive(&fate).await?;
            call.is_answered = true;
            self.store.pass(UploadPlace::Recording).await;
            Ok(())
        })
    }
}

impl Drop for SimulatedUpload {
    fn drop(&mut self) {
        let mut state = self.store.bucket.state();
        let Entry::Occupied(upload) = state.open.entry(self.number) else {
            return;
        };
        if upload.get().is_finishing {
            return;
        }
        let has_chunks = !upload.remove().chunks.is_empty();
        let counts = &mut state.counts;
        match self.store.tasks.is_aborted() {
            true => counts.killed_halfway += u64::from(has_chunks),
            false => counts.aborted_halfway += u64::from(has_chunks),
        }
    }
}

impl Drop for FinishCall<'_> {
    fn drop(&mut self) {
        if self.has_effect && !self.is_answered && self.store.tasks.is_aborted() {
            self.store.bucket.state().counts.killed_unrecorded += 1;
        }
    }
}

impl BucketState {
    /// Writes the chunk of an upload at a place, perhaps again.
    fn write(&mut self, number: u64, place: usize, chunk: Bytes) {
        let Some(upload) = self.open.get_mut(&number) else {
            let violation = format!("upload {number}: written after its end");
            self.violations.push(violation);
            return;
        };
        let Some(known) = upload.chunks.get_mut(place) else {
            upload.chunks.push(chunk);
            return;
        };
        self.counts.repeated_chunks += 1;
        upload.has_repeated = true;
        if *known != chunk {
            let violation = format!(
                "{}: chunk {place} was written again differently",
                upload.key
            );
            self.violations.push(violation);
        }
        *known = chunk;
    }
}
