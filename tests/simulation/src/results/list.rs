//! Listing and deleting uploads.

use std::{collections::VecDeque, ops::Bound, time::Duration};

use futures_util::{Stream, stream};
use tokio::time::Instant;
use tower_operations::{
    results::{ResultKey, StoredResult},
    store::StoreResult,
};

use super::{SimulatedResults, bucket::BucketState};
use crate::Mutant;

/// The number of uploads in a page of a list.
const PAGE: usize = 16;

/// A place in a list.
#[derive(Default)]
struct ListCursor {
    after: Option<ResultKey>,
    page: VecDeque<StoredResult>,
    has_ended: bool,
}

impl SimulatedResults {
    /// Returns the uploads, which are read page by page.
    pub(super) fn pages(&self) -> impl Stream<Item = StoreResult<StoredResult>> + Send {
        stream::unfold(ListCursor::default(), move |mut cursor| async move {
            if cursor.page.is_empty() && !cursor.has_ended {
                match self.call(|bucket| bucket.page(cursor.after.as_ref())).await {
                    Ok(page) => {
                        cursor.has_ended = page.len() < PAGE;
                        cursor.after = page.last().map(|entry| entry.key.clone());
                        cursor.page = page.into();
                    }
                    Err(error) => {
                        cursor.has_ended = true;
                        return Some((Err(error), cursor));
                    }
                }
            }
            let next = cursor.page.pop_front()?;
            Some((Ok(next), cursor))
        })
    }
}

impl BucketState {
    fn page(&mut self, after: Option<&ResultKey>) -> Vec<StoredResult> {
        let now = Instant::now();
        self.still_listed.retain(|_, (_, until)| *until > now);
        let from = (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::<&ResultKey>::Unbounded,
        );
        let skips = self.bug.is(Mutant::UploadsUnlisted);
        let finished = self.finished.range(from).filter(|(key, upload)| {
            upload.listed_from <= now && !(skips && key.token.get().is_multiple_of(4))
        });
        let finished = finished.map(|(key, upload)| (key, upload.finished_at));
        let deleted = self
            .still_listed
            .range(from)
            .map(|(key, (at, _))| (key, *at));
        let mut page: Vec<_> = finished.take(PAGE).chain(deleted.take(PAGE)).collect();
        page.sort_unstable();
        page.truncate(PAGE);
        page.into_iter()
            .map(|(key, at)| StoredResult::new(key.clone(), at))
            .collect()
    }

    /// Deletes an upload, which may be listed for some milliseconds more.
    pub(super) fn delete(&mut self, key: &ResultKey, lag: usize) {
        if self.bug.is(Mutant::UploadsUndeleted) {
            return;
        }
        let until = Instant::now() + Duration::from_millis(lag as u64);
        let mut keys = vec![key.clone()];
        if self.bug.is(Mutant::NeighborDeleted) {
            keys.extend(self.neighbor(key));
        }
        for key in keys {
            if let Some(upload) = self.finished.remove(&key) {
                self.counts.deleted += 1;
                self.still_listed.insert(key, (upload.finished_at, until));
            }
        }
    }
}
