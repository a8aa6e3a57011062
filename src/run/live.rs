//! The works that a node has in its hands.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::work::Work;
use crate::{operation::OperationId, store::FencingToken};

/// Works, told apart by their operation's id and the token it is held by.
///
/// An id alone names no work: a client may choose that of an operation which was
/// forgotten while its handler still tidies up, and an operation that was taken over may
/// come back under a newer token.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// By id: those of one id have the same hash.
    works: HashTable<Arc<Work>>,
    hasher: RandomState,
}

impl Live {
    /// Takes a work in; false if it is there already.
    pub(super) fn insert(&mut self, work: &Arc<Work>) -> bool {
        if self.get(&work.id, work.token()).is_some() {
            return false;
        }
        let Self { works, hasher } = self;
        works.insert_unique(hasher.hash_one(&work.id), Arc::clone(work), |other| {
            hasher.hash_one(&other.id)
        });
        true
    }

    /// Takes out this very work.
    pub(super) fn remove(&mut self, work: &Arc<Work>) {
        let hash = self.hasher.hash_one(&work.id);
        if let Ok(found) = self
            .works
            .find_entry(hash, |other| Arc::ptr_eq(other, work))
        {
            found.remove();
        }
    }

    pub(super) fn get(&self, id: &OperationId, token: FencingToken) -> Option<&Arc<Work>> {
        let hash = self.hasher.hash_one(id);
        self.works
            .find(hash, |work| work.id == *id && work.token() == token)
    }

    /// Those of one operation, or of several that had the same id one after the other.
    pub(super) fn of<'a>(&'a self, id: &'a OperationId) -> impl Iterator<Item = &'a Arc<Work>> {
        let hash = self.hasher.hash_one(id);
        self.works.iter_hash(hash).filter(|work| work.id == *id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Work>> {
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
    fn works_of_one_id_are_told_apart_by_their_tokens() {
        let id = OperationId::new();
        let work = |token| {
            let token = FencingToken::from_number(token);
            Arc::new(Work::new(id.clone(), token, 1))
        };
        let (older, newer, same) = (work(7), work(8), work(8));
        let mut live = Live::default();
        assert!(live.insert(&older) && live.insert(&newer));
        assert!(!live.insert(&same), "it is there already");
        assert_eq!(live.of(&id).count(), 2);
        live.remove(&same);
        assert_eq!(
            live.of(&id).count(),
            2,
            "another of the same token is another"
        );
        live.remove(&older);
        assert!(live.get(&id, older.token()).is_none());
        assert!(Arc::ptr_eq(live.get(&id, newer.token()).unwrap(), &newer));
        live.remove(&newer);
        assert!(live.is_empty());
    }
}
