//! Eviction: making room for new entries.

use super::{
    MemoryStore, SHARDS,
    keyring::Keyed,
    shard::{OperationEntry, Tick},
    share::OwnerUsage,
};
use crate::store::Owner;

/// The number of expired keys to purge at a time when there is no room.
const PURGED_FOR_ROOM: usize = 64;

/// The number of owners to visit for an entry that may be evicted.
const LOOKED_AT: usize = 16;

/// The room that a new entry needs.
#[derive(Clone, Copy)]
pub(super) struct NeededRoom<'a> {
    /// The owner of the new entry.
    pub(super) owner: Option<&'a Owner>,
    /// The size of the new entry in bytes.
    pub(super) weight: usize,
}

impl<T> MemoryStore<T> {
    /// Makes room until `take` succeeds; false if there is none. Evicts expired entries
    /// first, then entries of the owner with the most bytes.
    pub(super) fn make_room(
        &self,
        take: impl Fn() -> bool,
        wanted: NeededRoom<'_>,
        now: Tick,
    ) -> bool {
        let (room, keys) = (&self.shared.room, &self.shared.keys);
        while !take() {
            if keys.purge(now, PURGED_FOR_ROOM, room) == 0 && !self.evict(wanted, now) {
                // A concurrent call may have made room.
                return take();
            }
        }
        true
    }

    /// Evicts an entry of the owner for a new one that does not fit into the owner's share;
    /// false if nothing may be evicted.
    pub(super) fn make_room_in_share(&self, wanted: NeededRoom<'_>, now: Tick) -> bool {
        let share = self.limits.share();
        if !share.has_bytes(OwnerUsage::default(), wanted.weight) {
            return false;
        }
        let used = self.used_share(wanted).unwrap_or_default();
        let has_gone = match wanted.owner {
            Some(owner) => self.evict_of(owner, now),
            None => self.evict_unowned(now),
        };
        // Evicting a key does not help if the number of operations is the limit.
        let lacks_bytes = !share.has_bytes(used, wanted.weight);
        let (keys, room) = (&self.shared.keys, &self.shared.room);
        let frees_keys =
            || self.evict_key(wanted.owner, now) || keys.purge(now, PURGED_FOR_ROOM, room) > 0;
        has_gone || lacks_bytes && frees_keys()
    }

    /// Evicts an operation or a key; false if nothing may be evicted for the new entry.
    fn evict(&self, wanted: NeededRoom<'_>, now: Tick) -> bool {
        let room = &self.shared.room;
        let owned = room.ledger.bytes();
        let has_expired = || {
            let soonest = self.shared.soonest.shard();
            soonest.is_some_and(|(_, soonest, _)| soonest <= now)
        };
        // Evicting a key does not help if the number of operations is the limit.
        let lacks_bytes = room.bytes().saturating_add(wanted.weight) > self.limits.max_bytes;
        if owned > 0 && !has_expired() {
            for (index, owner) in self.largest(owned).iter().enumerate() {
                let owner = owner.as_ref();
                let has_gone = match owner {
                    Some(owner) => self.evict_of(owner, now),
                    None => self.evict_unowned(now),
                };
                if has_gone || lacks_bytes && self.evict_key(owner, now) {
                    return true;
                }
                // The owner with the most bytes cannot evict entries of others.
                if index == 0 && owner == wanted.owner {
                    return false;
                }
            }
        }
        let keys = &self.shared.keys;
        self.evict_soonest(wanted.weight, now)
            || lacks_bytes && keys.evict(now, self.limits.min_retention, room)
    }

    /// Returns the owners with the most bytes, where `None` stands for entries without an
    /// owner. `owned` is the number of bytes that have an owner.
    fn largest(&self, owned: usize) -> Vec<Option<Owner>> {
        let room = &self.shared.room;
        let nobodys = room.bytes().saturating_sub(owned);
        let largest = room.ledger.largest(LOOKED_AT);
        let place = largest.partition_point(|(bytes, _)| *bytes >= nobodys);
        let mut owners: Vec<_> = largest.into_iter().map(|(_, owner)| Some(owner)).collect();
        owners.insert(place, None);
        owners
    }

    /// Evicts the key that has been past for longest, of an owner or without an owner, if
    /// permitted.
    fn evict_key(&self, owner: Option<&Owner>, now: Tick) -> bool {
        loop {
            let room = &self.shared.room;
            let Some(name) = room.ledger.past(owner) else {
                return false;
            };
            let mut keyring = self.lock_key(&name);
            match keyring.get(&name) {
                // The key is reserved again, and no longer past in the ledger.
                Some(key) if !key.is_past() => {}
                Some(key) if !key.may_go(now, self.limits.min_retention) => return false,
                Some(_) => {
                    keyring.remove(&name, room);
                    return true;
                }
                // The key has been removed since, also from the ledger.
                None => {}
            }
        }
    }

    /// Evicts the operation that expires soonest of all, if permitted, and the next ones in
    /// the same shard as long as there is no room.
    fn evict_soonest(&self, weight: usize, now: Tick) -> bool {
        let room = &self.shared.room;
        let Some((shard, until)) = self.expiring_next(now) else {
            return false;
        };
        // Empty if a concurrent create was faster: then that create made progress.
        let evicted = {
            let mut shard = self.lock(shard);
            let evicted = shard.evict(now, until, &self.limits, |freed| {
                room.free(freed);
                !room.has(&self.limits, weight)
            });
            self.close_accounts(&evicted);
            evicted
        };
        self.end_waits(&evicted);
        true
    }

    /// Evicts the operation of this owner that expires soonest, if permitted.
    fn evict_of(&self, owner: &Owner, now: Tick) -> bool {
        loop {
            let Some((number, at)) = self.shared.room.ledger.soonest(owner) else {
                return false;
            };
            let mut shard = self.lock(at.shard);
            match shard.numbered(at.slot, number) {
                Some(entry) if !entry.may_go(now, self.limits.min_retention) => return false,
                Some(_) => {
                    let evicted = shard.take(at.slot);
                    self.close_accounts(evicted.as_slice());
                    drop(shard);
                    self.freed(evicted.as_slice());
                    return true;
                }
                // The operation has been removed since, also from the ledger.
                None => {}
            }
        }
    }

    /// Evicts the operation without an owner that expires soonest, if permitted.
    fn evict_unowned(&self, now: Tick) -> bool {
        loop {
            let next_of = |index: usize| Some((self.lock(index).unowned_next()?, index));
            let Some((next, index)) = (0..SHARDS).filter_map(next_of).min() else {
                return false;
            };
            let mut shard = self.lock(index);
            if shard.unowned_next() != Some(next) {
                continue; // the operation has been removed since
            }
            let (_, slot) = next;
            let may_go = |entry: &OperationEntry<T>| entry.may_go(now, self.limits.min_retention);
            if !shard.get_at(slot).is_some_and(may_go) {
                return false;
            }
            let evicted = shard.take(slot);
            self.close_accounts(evicted.as_slice());
            drop(shard);
            self.freed(evicted.as_slice());
            return true;
        }
    }

    /// Returns the shard with the operation that expires soonest of all, if it may be
    /// evicted, and the earliest expiry in the other shards.
    fn expiring_next(&self, now: Tick) -> Option<(usize, Tick)> {
        loop {
            let (shard, soonest, until) = self.shared.soonest.shard()?;
            match self.lock(shard).expiring_next(now, &self.limits) {
                Some((expires, may_go)) if expires == soonest => {
                    return may_go.then_some((shard, until));
                }
                // The shard has changed since.
                _ => {}
            }
        }
    }
}
