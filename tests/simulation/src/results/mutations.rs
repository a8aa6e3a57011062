//! Bugs of the store.

use std::{ops::Bound, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use tower_operations::{results::ResultKey, testing::TaskGroup};

use super::{bucket::BucketState, upload::OpenUpload};
use crate::Mutant;

/// The time after which an upload is lost.
const LATER: Duration = Duration::from_millis(300);
/// The time for which an upload is not durable.
const UNSYNCED: Duration = Duration::from_millis(200);

/// An upload that a bug loses later.
pub(super) struct LostUpload {
    at: Instant,
    key: ResultKey,
    /// The process with which the upload is lost; `None` if it is lost anyway.
    process: Option<TaskGroup>,
}

impl BucketState {
    /// Returns the content that the store keeps of an upload.
    pub(super) fn damage(&mut self, upload: &OpenUpload, content: Bytes) -> Bytes {
        let first = upload.chunks.first().cloned().unwrap_or_default();
        let last = upload.chunks.last().cloned().unwrap_or_default();
        if self.bug.is(Mutant::ChunkTwice) && upload.has_repeated {
            return [first, content].concat().into();
        }
        if self.bug.shows(Mutant::UploadCutShort, 20) {
            return content.slice(..content.len() - last.len());
        }
        if self.bug.shows(Mutant::UploadDamaged, 20) {
            let mut damaged = content.to_vec();
            if let Some(byte) = damaged.last_mut() {
                *byte ^= 1;
            }
            return damaged.into();
        }
        content
    }

    /// Loses an upload later, if there is such a bug.
    pub(super) fn lose(&mut self, key: &ResultKey, process: &TaskGroup) {
        let (after, process) = match self.bug.shows(Mutant::UploadLost, 20) {
            true => (LATER, None),
            false if self.bug.is(Mutant::FinishBeforeWrite) => (UNSYNCED, Some(process.clone())),
            false => return,
        };
        self.lost.push(LostUpload {
            at: Instant::now() + after,
            key: key.clone(),
            process,
        });
    }

    /// Loses the uploads that are due.
    pub(super) fn lose_due(&mut self) {
        if self.lost.is_empty() {
            return;
        }
        let now = Instant::now();
        let is_dead =
            |upload: &LostUpload| upload.process.as_ref().is_some_and(TaskGroup::is_aborted);
        let due = self
            .lost
            .extract_if(.., |upload| upload.at <= now || is_dead(upload));
        for upload in due {
            if upload.process.is_none() || is_dead(&upload) {
                self.finished.remove(&upload.key);
            }
        }
    }

    /// Returns the content that is read of an upload: that of another one, if there is such a bug.
    pub(super) fn mix_up(&mut self, key: &ResultKey, content: Bytes) -> Bytes {
        if !self.bug.shows(Mutant::UploadsMixedUp, 20) {
            return content;
        }
        let others = || self.finished.iter().filter(|(other, _)| *other != key);
        let is_as_long = |content: &Bytes, other: &Bytes| content.len() == other.len();
        let other = others().find(|(_, other)| is_as_long(&content, &other.content));
        let other = other.or_else(|| others().next());
        other.map_or(content, |(_, other)| other.content.clone())
    }

    /// Returns the next key.
    pub(super) fn neighbor(&self, key: &ResultKey) -> Option<ResultKey> {
        let after = (Bound::Excluded(key), Bound::Unbounded);
        self.finished
            .range::<ResultKey, _>(after)
            .next()
            .map(|(key, _)| key.clone())
    }
}
