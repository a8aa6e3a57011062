//! What goes for something new.

use super::{
    MemoryStore, SHARDS,
    keyring::Keyed,
    shard::{OperationEntry, Tick},
    share::OwnerUsage,
};
use crate::store::Owner;

/// So many expired keys are looked for at a time when there is no room.
const PURGED_FOR_ROOM: usize = 64;

/// So many owners are looked at for something that may go.
const LOOKED_AT: usize = 16;

/// What is wanted.
#[derive(Clone, Copy)]
pub(super) struct WantedRoom<'a> {
    /// For whom.
    pub(super) owner: Option<&'a Owner>,
    /// How many bytes it takes.
    pub(super) weight: usize,
}

impl<T> MemoryStore<T> {
    /// Makes room until it can be had, or says that there is none. What has expired goes
    /// first, then what may go of who has the most.
    pub(super) fn make_room(
        &self,
        take: impl Fn() -> bool,
        wanted: WantedRoom<'_>,
        now: Tick,
    ) -> bool {
        let (room, keys) = (&self.shared.room, &self.shared.keys);
        while !take() {
            if keys.purge(now, PURGED_FOR_ROOM, room) == 0 && !self.evict(wanted, now) {
                // Somebody else may have made some.
                return take();
            }
        }
        true
    }

    /// Something of the owner's goes for something new of its own, which its share has no
    /// room for; false if nothing may go.
    pub(super) fn make_room_in_share(&self, wanted: WantedRoom<'_>, now: Tick) -> bool {
        let share = self.limits.share();
        if !share.has_bytes(OwnerUsage::default(), wanted.weight) {
            return false;
        }
        let used = self.used_share(wanted).unwrap_or_default();
        let has_gone = match wanted.owner {
            Some(owner) => self.evict_of(owner, now),
            None => self.evict_nobodys(now),
        };
        // Where there is one operation too many, no key that goes is of help.
        let lacks_bytes = !share.has_bytes(used, wanted.weight);
        has_gone || lacks_bytes && self.evict_key(wanted.owner, now)
    }

    /// Something goes, an operation or a key; false if nothing may go for this.
    fn evict(&self, wanted: WantedRoom<'_>, now: Tick) -> bool {
        let room = &self.shared.room;
        let owned = room.ledger.bytes();
        let has_expired = || {
            let soonest = self.shared.soonest.shard();
            soonest.is_some_and(|(_, soonest, _)| soonest <= now)
        };
        // Where there is one operation too many, no key that goes is of help.
        let lacks_bytes = room.bytes().saturating_add(wanted.weight) > self.limits.max_bytes;
        if owned > 0 && !has_expired() {
            for (index, owner) in self.largest(owned).iter().enumerate() {
                let owner = owner.as_ref();
                let has_gone = match owner {
                    Some(owner) => self.evict_of(owner, now),
                    None => self.evict_nobodys(now),
                };
                if has_gone || lacks_bytes && self.evict_key(owner, now) {
                    return true;
                }
                // Who has the most already takes nothing of others.
                if index == 0 && owner == wanted.owner {
                    return false;
                }
            }
        }
        let keys = &self.shared.keys;
        self.evict_soonest(wanted.weight, now)
            || lacks_bytes && keys.evict(now, self.limits.min_retention, room)
    }

    /// Those who have the most; what is nobody's counts as somebody's. So many bytes are
    /// `owned` in all.
    fn largest(&self, owned: usize) -> Vec<Option<Owner>> {
        let room = &self.shared.room;
        let nobodys = room.bytes().saturating_sub(owned);
        let largest = room.ledger.largest(LOOKED_AT);
        let place = largest.partition_point(|(bytes, _)| *bytes >= nobodys);
        let mut owners: Vec<_> = largest.into_iter().map(|(_, owner)| Some(owner)).collect();
        owners.insert(place, None);
        owners
    }

    /// What an owner's key, or nobody's, that is past for longest stands for goes, if it may.
    fn evict_key(&self, owner: Option<&Owner>, now: Tick) -> bool {
        loop {
            let room = &self.shared.room;
            let Some(name) = room.ledger.past(owner) else {
                return false;
            };
            let mut keyring = self.lock_key(&name);
            match keyring.get(&name) {
                // It is reserved anew, and not in the ledger as past any more.
                Some(key) if !key.is_past() => {}
                Some(key) if !key.may_go(now, self.limits.min_retention) => return false,
                Some(_) => {
                    keyring.remove(&name, room);
                    return true;
                }
                // It has gone since, and from the ledger too.
                None => {}
            }
        }
    }

    /// What expires soonest of all goes, if it may, and what expires next in the same
    /// shard, as long as there is no room.
    fn evict_soonest(&self, weight: usize, now: Tick) -> bool {
        let room = &self.shared.room;
        let Some((shard, until)) = self.expiring_next(now) else {
            return false;
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
        true
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
            let may_go = |entry: &OperationEntry<T>| entry.may_go(now, self.limits.min_retention);
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
