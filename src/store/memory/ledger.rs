//! The accounts of owners: their bytes, their operations, and which operations have ended.
//!
//! For entries without an owner, the ledger has only the past keys. Its lock is acquired
//! last, after those of keys and operations.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    shard::{Slot, Tick},
    share::{OwnerShare, OwnerUsage},
};
use crate::store::Owner;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: Mutex<Accounts>,
    /// The total of all accounts; written under their lock.
    bytes: AtomicUsize,
    operations: AtomicUsize,
}

#[derive(Debug, Default)]
struct Accounts {
    by_owner: HashMap<Owner, Account>,
    /// The bytes of each account, in order.
    by_bytes: BTreeSet<(usize, Owner)>,
    /// Past keys without an owner.
    nobodys: PastKeys,
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    /// The location of each operation, by number.
    operations: BTreeMap<u64, EntryLocation>,
    /// The expiry and number of each operation that has ended.
    ended: BTreeSet<(Tick, u64)>,
    past: PastKeys,
}

/// The location of an operation, valid as long as its number is found there.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryLocation {
    pub(super) shard: usize,
    pub(super) slot: Slot,
}

/// The approximate size of an operation in the ledger: its places in two trees.
pub(super) const OVERHEAD: usize = 96;

/// The approximate size of a past key in the ledger: its place in a tree.
pub(super) const OVERHEAD_OF_PAST: usize = 48;

/// Past keys, in the order in which they became past.
type PastKeys = BTreeSet<(Tick, Arc<str>)>;

impl Ledger {
    /// Adds an operation of `bytes`, if the owner's share has room for the operation and
    /// its key, which takes `of_key` bytes.
    pub(super) fn open(
        &self,
        owner: &Owner,
        number: u64,
        at: EntryLocation,
        (bytes, of_key): (usize, usize),
        share: OwnerShare,
    ) -> bool {
        let mut accounts = self.lock();
        if !share.has(accounts.used(owner), bytes + of_key) {
            return false;
        }
        accounts.update(owner, 0, bytes, |account| {
            account.operations.insert(number, at);
        });
        self.bytes.fetch_add(bytes, Relaxed);
        self.operations.fetch_add(1, Relaxed);
        true
    }

    /// Returns the number of operations and bytes of an owner.
    pub(super) fn used(&self, owner: &Owner) -> OwnerUsage {
        self.lock().used(owner)
    }

    /// Changes the size of an operation from `before` to `after`; `expires` is set if it
    /// has ended.
    pub(super) fn change(
        &self,
        owner: &Owner,
        number: u64,
        before: usize,
        after: usize,
        expires: Option<Tick>,
    ) {
        if before == after && expires.is_none() {
            return;
        }
        self.update(owner, before, after, |account| {
            account.ended.extend(expires.map(|at| (at, number)));
        });
    }

    /// Removes an operation.
    pub(super) fn close(&self, owner: &Owner, number: u64, bytes: usize, expires: Tick) {
        self.update(owner, bytes, 0, |account| {
            account.operations.remove(&number);
            account.ended.remove(&(expires, number));
        });
        self.operations.fetch_sub(1, Relaxed);
    }

    /// Adds a key of `bytes`; `past` names it if it is past.
    pub(super) fn enter(
        &self,
        owner: Option<&Owner>,
        bytes: usize,
        past: Option<(Tick, Arc<str>)>,
    ) {
        match (owner, past) {
            (Some(owner), past) => {
                self.update(owner, 0, bytes, |account| account.past.extend(past));
            }
            (None, Some(past)) => drop(self.lock().nobodys.insert(past)),
            (None, None) => {}
        }
    }

    /// Removes a key of `bytes`; `past` names it if it is past.
    pub(super) fn leave(
        &self,
        owner: Option<&Owner>,
        bytes: usize,
        past: Option<(Tick, Arc<str>)>,
    ) {
        match (owner, past) {
            (Some(owner), past) => self.update(owner, bytes, 0, |account| {
                if let Some(past) = past {
                    account.past.remove(&past);
                }
            }),
            (None, Some(past)) => drop(self.lock().nobodys.remove(&past)),
            (None, None) => {}
        }
    }

    /// Returns the key that has been past for longest, of an owner or without an owner.
    pub(super) fn past(&self, owner: Option<&Owner>) -> Option<Arc<str>> {
        let accounts = self.lock();
        let past = match owner {
            Some(owner) => &accounts.by_owner.get(owner)?.past,
            None => &accounts.nobodys,
        };
        past.first().map(|(_, name)| Arc::clone(name))
    }

    /// Returns the number of bytes that have an owner.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Returns the number of operations that have an owner.
    pub(super) fn operations(&self) -> usize {
        self.operations.load(Relaxed)
    }

    /// Returns at most `limit` owners with the most bytes, with their bytes.
    pub(super) fn largest(&self, limit: usize) -> Vec<(usize, Owner)> {
        let accounts = self.lock();
        accounts
            .by_bytes
            .iter()
            .rev()
            .take(limit)
            .cloned()
            .collect()
    }

    /// Returns the number and the location of the owner's operation that expires soonest.
    pub(super) fn soonest(&self, owner: &Owner) -> Option<(u64, EntryLocation)> {
        let accounts = self.lock();
        let account = accounts.by_owner.get(owner)?;
        let (_, number) = account.ended.first()?;
        let at = account.operations.get(number)?;
        Some((*number, *at))
    }

    /// Returns at most `limit` operations of an owner that were created before the one with
    /// this number, newest first.
    pub(super) fn before(
        &self,
        owner: &Owner,
        number: u64,
        limit: usize,
    ) -> Vec<(u64, EntryLocation)> {
        let accounts = self.lock();
        let Some(account) = accounts.by_owner.get(owner) else {
            return Vec::new();
        };
        let older = account.operations.range(..number).rev();
        older
            .take(limit)
            .map(|(number, at)| (*number, *at))
            .collect()
    }

    fn update(
        &self,
        owner: &Owner,
        before: usize,
        after: usize,
        change: impl FnOnce(&mut Account),
    ) {
        let mut accounts = self.lock();
        accounts.update(owner, before, after, change);
        // Added before it is subtracted, so that the count never falls below zero.
        self.bytes.fetch_add(after, Relaxed);
        self.bytes.fetch_sub(before, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // Nothing in a critical section panics halfway through a change.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    fn used(&self, owner: &Owner) -> OwnerUsage {
        let account = self.by_owner.get(owner);
        account.map_or_else(OwnerUsage::default, |account| OwnerUsage {
            operations: account.operations.len(),
            bytes: account.bytes,
        })
    }

    /// Changes an account, replacing `before` of its bytes by `after`. An account that is
    /// then empty is removed.
    fn update(
        &mut self,
        owner: &Owner,
        before: usize,
        after: usize,
        change: impl FnOnce(&mut Account),
    ) {
        let had = match self.by_owner.get(owner) {
            Some(account) => account.bytes,
            None => {
                self.by_owner.insert(owner.clone(), Account::default());
                self.by_bytes.insert((0, owner.clone()));
                0
            }
        };
        let Some(account) = self.by_owner.get_mut(owner) else {
            return;
        };
        change(account);
        account.bytes = (had + after).saturating_sub(before);
        let has = account.bytes;
        let is_empty = has == 0 && account.operations.is_empty();
        if has != had || is_empty {
            let mut entry = (had, owner.clone());
            self.by_bytes.remove(&entry);
            if is_empty {
                self.by_owner.remove(owner);
            } else {
                entry.0 = has;
                self.by_bytes.insert(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests;
