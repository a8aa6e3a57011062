//! The live runs of a node.

use std::{hash::BuildHasher, sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::run_context::RunContext;
use crate::{operation::OperationId, store::FencingToken};

/// A run that is in progress.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) work: Arc<RunContext>,
    /// The time that the run may continue after it was asked to stop.
    pub(super) grace: Duration,
}

/// The live runs, by the operation's id and fencing token.
///
/// An id alone does not identify a run: a client may reuse the id of a deleted operation whose
/// handler has not ended yet, and a reclaimed operation may return to this node under a newer
/// token.
#[derive(Debug, Default)]
pub(super) struct LiveRuns {
    /// The runs, hashed by id: all runs of one id have the same hash.
    works: HashTable<LiveRun>,
    hasher: RandomState,
}

impl LiveRuns {
    /// Adds a run. Returns false if the run is already there.
    pub(super) fn insert(&mut self, entry: LiveRun) -> bool {
        let id = &entry.work.id;
        if self.get(id, entry.work.token()).is_some() {
            return false;
        }
        let Self { works, hasher } = self;
        works.insert_unique(hasher.hash_one(id), entry, |other| {
            hasher.hash_one(&other.work.id)
        });
        true
    }

    /// Removes this exact run.
    pub(super) fn remove(&mut self, work: &Arc<RunContext>) {
        let hash = self.hasher.hash_one(&work.id);
        let is_it = |entry: &LiveRun| Arc::ptr_eq(&entry.work, work);
        if let Ok(found) = self.works.find_entry(hash, is_it) {
            found.remove();
        }
    }

    pub(super) fn get(&self, id: &OperationId, token: FencingToken) -> Option<&LiveRun> {
        let hash = self.hasher.hash_one(id);
        let is_it = |entry: &LiveRun| entry.work.id == *id && entry.work.token() == token;
        self.works.find(hash, is_it)
    }

    /// Returns the runs of one operation, or of several operations that had the same id one
    /// after another.
    pub(super) fn with_id<'a>(&'a self, id: &'a OperationId) -> impl Iterator<Item = &'a LiveRun> {
        let hash = self.hasher.hash_one(id);
        let entries = self.works.iter_hash(hash);
        entries.filter(|entry| entry.work.id == *id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &LiveRun> {
        self.works.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.works.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_id_are_distinguished_by_their_tokens() {
        let id = OperationId::new();
        let work = |token| {
            let token = FencingToken::from_number(token);
            Arc::new(RunContext::new(id.clone(), token, 1))
        };
        let (older, newer, same) = (work(7), work(8), work(8));
        let entry = |work: &Arc<RunContext>| LiveRun {
            work: Arc::clone(work),
            grace: Duration::ZERO,
        };
        let mut live = LiveRuns::default();
        assert!(live.insert(entry(&older)) && live.insert(entry(&newer)));
        assert!(!live.insert(entry(&same)), "it is there already");
        assert_eq!(live.with_id(&id).count(), 2);
        live.remove(&same);
        assert_eq!(
            live.with_id(&id).count(),
            2,
            "another of the same token is another"
        );
        live.remove(&older);
        assert!(live.get(&id, older.token()).is_none());
        let found = live.get(&id, newer.token()).unwrap();
        assert!(Arc::ptr_eq(&found.work, &newer));
        live.remove(&newer);
        assert!(live.is_empty());
    }
}
