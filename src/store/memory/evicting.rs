//! What goes for something new.

use super::{
    MemoryStore, SHARDS,
    keys::KeyEntry,
    shard::{Entry, Tick},
};
use crate::store::Owner;

/// So many expired keys are looked for at a time when there is no room.
const PURGED_FOR_ROOM: usize = 64;

/// So many owners are looked at for something that may go.
const LOOKED_AT: usize = 16;

/// What is wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// For whom.
    pub(super) owner: Option<&'a Owner>,
    /// How many bytes it takes.
    pub(super) weight: usize,
}

/// What became of a try to make room.
enum Evicted {
    /// Something has gone.
    Some,
    /// There is nothing that may go.
    Nothing,
    /// The owner who wants room has the most already, and nothing of its own may go.
    Refused,
}

impl<T> MemoryStore<T> {
    /// Makes room until it can be had, or says that there is none. What has expired goes
    /// first, then the operations and then the keys that may go.
    pub(super) fn make_room(&self, take: impl Fn() -> bool, wanted: Wanted<'_>, now: Tick) -> bool {
        let (room, keys) = (&self.shared.room, &self.shared.keys);
        while !take() {
            if keys.purge(now, PURGED_FOR_ROOM, room) > 0 {
                continue;
            }
            let only_own = match self.evict(wanted, now) {
                Evicted::Some => continue,
                Evicted::Nothing => false,
                Evicted::Refused => true,
            };
            let may_go = |key: &KeyEntry<T>| !only_own || key.owner() == wanted.owner;
            if !keys.evict(now, self.limits.min_retention, room, may_go) {
                return false;
            }
        }
        true
    }

    fn evict(&self, wanted: Wanted<'_>, now: Tick) -> Evicted {
        let ledger = &self.shared.room.ledger;
        let owned = ledger.bytes();
        let has_expired = || {
            let soonest = self.shared.soonest.shard();
            soonest.is_some_and(|(_, soonest, _)| soonest <= now)
        };
        if owned == 0 || has_expired() {
            return self.evict_soonest(wanted.weight, now);
        }
        // From who has the most first. What is nobody's counts as somebody's.
        let nobodys = self.shared.room.bytes().saturating_sub(owned);
        let mut largest: Vec<(usize, Option<Owner>)> = ledger
            .largest(LOOKED_AT)
            .into_iter()
            .map(|(bytes, owner)| (bytes, Some(owner)))
            .collect();
        let place = largest.partition_point(|(bytes, _)| *bytes >= nobodys);
        largest.insert(place, (nobodys, None));
        for (index, (_, owner)) in largest.iter().enumerate() {
            let has_gone = match owner {
                Some(owner) => self.evict_of(owner, now),
                None => self.evict_nobodys(now),
            };
            if has_gone {
                return Evicted::Some;
            }
            if index == 0 && owner.as_ref() == wanted.owner {
                return Evicted::Refused;
            }
        }
        self.evict_soonest(wanted.weight, now)
    }

    /// What expires soonest of all goes, if it may, and what expires next in the same
    /// shard, as long as there is no room.
    fn evict_soonest(&self, weight: usize, now: Tick) -> Evicted {
        let room = &self.shared.room;
        let Some((shard, until)) = self.expiring_next(now) else {
            return Evicted::Nothing;
        };
        // Empty if another create was faster: then that one got on.
        let evicted = {
            let mut shard = self.lock(shard);
            let evicted = shard.evict(now, until, &self.limits, |freed| {
                room.free(freed);
                !room.has(&self.limits, weight)
            });
            self.settle(&evicted);
            evicted
        };
        self.let_go(&evicted);
        Evicted::Some
    }

    /// What expires soonest of this owner's goes, if it may.
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
                    self.settle(evicted.as_slice());
                    drop(shard);
                    self.freed(evicted.as_slice());
                    return true;
                }
                // It has gone since, and from the ledger too.
                None => {}
            }
        }
    }

    /// What expires soonest of what is nobody's goes, if it may.
    fn evict_nobodys(&self, now: Tick) -> bool {
        loop {
            let next_of = |index: usize| Some((self.lock(index).nobodys_next()?, index));
            let Some((next, index)) = (0..SHARDS).filter_map(next_of).min() else {
                return false;
            };
            let mut shard = self.lock(index);
            if shard.nobodys_next() != Some(next) {
                continue; // it has gone since
            }
            let (_, slot) = next;
            let may_go = |entry: &Entry<T>| entry.may_go(now, self.limits.min_retention);
            if !shard.get_at(slot).is_some_and(may_go) {
                return false;
            }
            let evicted = shard.take(slot);
            self.settle(evicted.as_slice());
            drop(shard);
            self.freed(evicted.as_slice());
            return true;
        }
    }

    /// The shard whose operation expires soonest of all, if that may go, and
    /// when the soonest of another shard does.
    fn expiring_next(&self, now: Tick) -> Option<(usize, Tick)> {
        loop {
            let (shard, soonest, until) = self.shared.soonest.shard()?;
            match self.lock(shard).expiring_next(now, &self.limits) {
                Some((expires, may_go)) if expires == soonest => {
                    return may_go.then_some((shard, until));
                }
                // It has changed since.
                _ => {}
            }
        }
    }
}
