//! What the store can do, trait by trait.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    MemoryStore, Now, SHARDS,
    keys::KeyEntry,
    shard::{Entry, Tick},
};
use crate::{
    operation::{OperationId, Outcome, Payload, Progress},
    store::{
        Created, Cursor, FencingToken, Held, Key, Keys, Lease, LeaseTerm, List, ListQuery,
        NewOperation, NodeId, Owner, Page, Purge, Record, Repository, Reservation, Step, Store,
        StoreError, Version, Watch, Write, traits::Found,
    },
};

/// So many expired operations leave with each one that ends: housekeeping
/// without a task of its own.
const PURGED_PER_END: usize = 2;

impl<T: Payload> MemoryStore<T> {
    /// Puts a new operation in, unless its key or its id is taken, or there is
    /// no room.
    fn insert(
        &self,
        new: &NewOperation,
        record: &Arc<Record<T>>,
        has_room: bool,
        now: Now,
    ) -> Result<Created<T>, StoreError> {
        // Held to the end, so that key and operation come into being together.
        let mut keyring = new.key.as_ref().map(|key| (key, self.lock_key(&key.name)));
        if let Some((key, keyring)) = &keyring
            && let Some(entry) = keyring.get(&key.name)
            && !new
                .reservation
                .is_some_and(|token| entry.is_reserved_by(token, now.tick))
            && let Some(held) = entry.look_up(key, new.owner.as_ref(), now.tick, |id| {
                self.made_by(&key.name, id)
            })
        {
            return Ok(match held {
                Reservation::Operation(record) => Created::Existing(record),
                Reservation::Taken => Created::IdTaken,
                held => Created::KeyHeld(held),
            });
        }

        let mut shard = self.lock(self.shard_of(&new.id));
        if let Some(entry) = shard.get(&new.id, now.tick) {
            return Ok(match entry.record.owner() == new.owner.as_ref() {
                true => Created::Existing(Arc::clone(&entry.record)),
                false => Created::IdTaken,
            });
        }
        if !has_room {
            return Err(StoreError::Full);
        }
        let deadline = new
            .lease
            .as_ref()
            .map_or(Tick::NEVER, |lease| now.tick.plus(lease.term));
        let name = new.key.as_ref().map(|key| Arc::clone(&key.name));
        let mut replaced = shard.insert(Arc::clone(record), deadline, name.clone());
        drop(shard);
        if let Some(replaced) = &mut replaced
            && replaced.key == name
        {
            replaced.key = None; // it is this operation's now
        }
        if let Some((key, keyring)) = &mut keyring {
            let entry = KeyEntry::of_operation(key, new.owner.as_ref(), &new.id);
            keyring.insert(Arc::clone(&key.name), entry);
        }
        drop(keyring);
        self.freed(replaced.as_slice());
        Ok(Created::New(Arc::clone(record)))
    }

    /// One conditional change: reads the record, takes `step`, puts the
    /// successor in its place, all under one lock; then wakes who waits.
    fn change(
        &self,
        id: &OperationId,
        step: impl FnOnce(&mut Entry<T>, Now) -> Step<T>,
    ) -> Result<Write<T>, StoreError> {
        let now = self.now();
        let mut shard = self.lock(self.shard_of(id));
        let Some(entry) = shard.get_mut(id, now.tick) else {
            return Ok(Write::Gone);
        };
        let before = Arc::clone(&entry.record);
        let next = match step(entry, now) {
            Step::Done => return Ok(Write::Done(before)),
            Step::Lost => return Ok(Write::Lost(before)),
            Step::Next(next) => Arc::new(next),
        };
        let ends = next.operation().state().is_terminal();
        let expires = ends.then(|| now.tick.plus(self.limits.ttl));
        let woken = shard.advance(Arc::clone(&next), expires, now.tick);
        let (before, after) = (self.limits.weigh(&before), self.limits.weigh(&next));
        self.shared.room.resize(before, after);
        let purged = if ends {
            shard.purge(now.tick, PURGED_PER_END)
        } else {
            Vec::new()
        };
        drop(shard);
        self.freed(&purged);
        if let Some(cell) = woken {
            cell.notify();
        }
        Ok(Write::Done(next))
    }

    /// Lets the lease of the holder with `token` last for `term` from now on;
    /// false if it is the holder no more.
    fn extend(&self, id: &OperationId, token: FencingToken, term: Duration) -> bool {
        let now = self.now().tick;
        let mut shard = self.lock(self.shard_of(id));
        let held = shard
            .get_mut(id, now)
            .filter(|entry| entry.record.is_held_by(token));
        held.map(|entry| entry.deadline = now.plus(term)).is_some()
    }

    /// Tells the node that held it.
    fn recall(&self, id: &OperationId, node: Option<&NodeId>) {
        if let Some(node) = node {
            self.shared.mailboxes.send(node, id.clone());
        }
    }

    fn read(&self, id: &OperationId) -> Option<Arc<Record<T>>> {
        let now = Tick::after(self.shared.started.elapsed());
        let shard = self.lock(self.shard_of(id));
        shard.get(id, now).map(|entry| Arc::clone(&entry.record))
    }
}

impl<T: Payload> Store for MemoryStore<T> {
    type Output = T;

    async fn get(&self, id: &OperationId) -> Found<T> {
        Ok(self.read(id))
    }

    fn get_now(&self, id: &OperationId) -> Option<Found<T>> {
        Some(Ok(self.read(id)))
    }
}

impl<T: Payload> Repository for MemoryStore<T> {
    async fn create(&self, new: NewOperation) -> Result<Created<T>, StoreError> {
        let now = self.now();
        let record = Arc::new(Record::create(&new, now.wall));
        let weight = self.limits.weigh(&record);
        let mut has_room = self.shared.room.take(&self.limits, weight);
        if !has_room {
            // Nothing has to go for what is there already.
            match self.insert(&new, &record, false, now) {
                Err(StoreError::Full) => has_room = self.make_room(weight, now.tick),
                there => return there,
            }
        }
        let created = self.insert(&new, &record, has_room, now);
        if has_room && !matches!(created, Ok(Created::New(_))) {
            self.shared.room.free(weight);
        }
        created
    }

    async fn start(&self, id: &OperationId, token: FencingToken) -> Result<Write<T>, StoreError> {
        self.change(id, |entry, now| entry.record.started(token, now.wall))
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Result<Write<T>, StoreError> {
        self.change(id, |entry, now| {
            entry.record.reported(token, progress, now.wall)
        })
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<T>,
        progress: Option<Progress>,
    ) -> Result<Write<T>, StoreError> {
        let ttl = self.limits.ttl;
        self.change(id, |entry, now| {
            entry
                .record
                .finished(token, outcome, progress, now.wall, ttl)
        })
    }

    async fn overrule(
        &self,
        id: &OperationId,
        version: Version,
        outcome: Outcome<T>,
    ) -> Result<Write<T>, StoreError> {
        let ttl = self.limits.ttl;
        let write = self.change(id, |entry, now| {
            entry.record.overruled(version, outcome, now.wall, ttl)
        })?;
        if let Write::Done(record) = &write {
            self.recall(id, record.node());
        }
        Ok(write)
    }

    async fn forget(&self, id: &OperationId, version: Version) -> Result<Write<T>, StoreError> {
        let now = self.now().tick;
        let index = self.shard_of(id);
        let removed = loop {
            // Its key is locked before it, and held to the end: in between the
            // key would look free.
            let Some(name) = self.lock(index).get(id, now).map(|entry| entry.key.clone()) else {
                return Ok(Write::Gone);
            };
            let mut keyring = name.as_ref().map(|name| (name, self.lock_key(name)));
            let mut shard = self.lock(index);
            let Some(entry) = shard.get(id, now) else {
                return Ok(Write::Gone);
            };
            if entry.key != name {
                continue; // it is another one by now
            }
            let record = &entry.record;
            if record.version() != Some(version) || !record.operation().state().is_terminal() {
                return Ok(Write::Lost(Arc::clone(record)));
            }
            let Some(entry) = shard.remove(id) else {
                return Ok(Write::Gone);
            };
            if let Some((name, keyring)) = &mut keyring
                && let Some(key) = keyring.get_mut(*name)
            {
                key.forget(&entry.record, entry.deadline);
            }
            break entry;
        };
        self.shared.room.free(self.limits.weigh(&removed.record));
        removed.wake();
        Ok(Write::Done(removed.record))
    }
}

impl<T: Payload> Watch for MemoryStore<T> {
    async fn changed(&self, id: &OperationId, since: Version, at_most: Duration) -> Found<T> {
        let _waiting = self.shared.room.wait();
        let changed = timeout(at_most, async {
            loop {
                let waiter = {
                    let now = self.now().tick;
                    let mut shard = self.lock(self.shard_of(id));
                    let entry = shard.get_mut(id, now)?;
                    if entry.record.version() != Some(since) {
                        return Some(Arc::clone(&entry.record));
                    }
                    // Under the lock that every change is made under: none is
                    // missed.
                    entry.waiter()
                };
                waiter.await;
            }
        });
        Ok(changed.await.unwrap_or_else(|_| self.read(id)))
    }
}

impl<T: Payload> Lease for MemoryStore<T> {
    async fn renew(&self, lease: &LeaseTerm, held: &[Held]) -> Result<Vec<Held>, StoreError> {
        let lost = held
            .iter()
            .filter(|held| !self.extend(&held.id, held.token, lease.term));
        Ok(lost.cloned().collect())
    }

    async fn take_over(
        &self,
        lease: &LeaseTerm,
        limit: usize,
    ) -> Result<Vec<Arc<Record<T>>>, StoreError> {
        let mut taken = Vec::new();
        for index in 0..SHARDS {
            let now = self.now().tick;
            let abandoned: Vec<OperationId> = self
                .lock(index)
                .entries(now)
                .filter(|entry| entry.is_abandoned(now))
                .map(|entry| entry.record.operation().id().clone())
                .take(limit - taken.len())
                .collect();
            for id in abandoned {
                let mut holder = None;
                let write = self.change(&id, |entry, now| {
                    // It may have been renewed since it was found.
                    if !entry.is_abandoned(now.tick) {
                        return Step::Lost;
                    }
                    holder = entry.record.node().cloned();
                    entry.deadline = now.tick.plus(lease.term);
                    entry.record.taken_over(&lease.node)
                })?;
                if let Write::Done(record) = write {
                    self.recall(&id, holder.as_ref());
                    taken.push(record);
                }
            }
            if taken.len() == limit {
                break;
            }
        }
        Ok(taken)
    }

    async fn release(&self, held: &[Held]) -> Result<(), StoreError> {
        for Held { id, token } in held {
            self.extend(id, *token, Duration::ZERO);
        }
        Ok(())
    }

    async fn recalled(
        &self,
        node: &NodeId,
        at_most: Duration,
    ) -> Result<Vec<OperationId>, StoreError> {
        Ok(self.shared.mailboxes.receive(node, at_most).await)
    }
}

impl<T: Payload> Keys for MemoryStore<T> {
    async fn reserve(
        &self,
        key: &Key,
        owner: Option<&Owner>,
        term: Duration,
    ) -> Result<Reservation<T>, StoreError> {
        let now = self.now().tick;
        let mut keyring = self.lock_key(&key.name);
        let before = keyring.get(&key.name);
        if let Some(held) = before
            .and_then(|entry| entry.look_up(key, owner, now, |id| self.made_by(&key.name, id)))
        {
            return Ok(held);
        }
        let token = self.shared.keys.next_token();
        let entry = KeyEntry::reserved(key, owner, token, now.plus(term));
        keyring.insert(Arc::clone(&key.name), entry);
        Ok(Reservation::Reserved(token))
    }

    async fn settle(&self, key: &Key, token: FencingToken, answer: T) -> Result<bool, StoreError> {
        let now = self.now().tick;
        let mut keyring = self.lock_key(&key.name);
        let entry = keyring
            .get_mut(&key.name)
            .filter(|entry| entry.is_reserved_by(token, now));
        Ok(entry
            .map(|entry| entry.settle(answer, now.plus(self.limits.ttl)))
            .is_some())
    }

    async fn release_key(&self, key: &Key, token: FencingToken) -> Result<bool, StoreError> {
        let now = self.now().tick;
        let mut keyring = self.lock_key(&key.name);
        let reserved = keyring
            .get(&key.name)
            .is_some_and(|entry| entry.is_reserved_by(token, now));
        if reserved {
            keyring.remove(&key.name);
        }
        Ok(reserved)
    }
}

impl<T: Payload> List for MemoryStore<T> {
    async fn list(&self, query: &ListQuery) -> Result<Page<T>, StoreError> {
        let now = self.now().tick;
        let after = query.after.as_ref().map(Position::parse).transpose()?;
        let mut found: Vec<(Position, Arc<Record<T>>)> = Vec::new();
        for index in 0..SHARDS {
            let shard = self.lock(index);
            let matching = shard
                .entries(now)
                .map(|entry| &entry.record)
                .filter(|record| {
                    record.owner() == query.owner.as_ref()
                        && query
                            .state
                            .is_none_or(|state| record.operation().state() == state)
                });
            found.extend(
                matching
                    .map(|record| (Position::of(record), Arc::clone(record)))
                    .filter(|(position, _)| after.as_ref().is_none_or(|after| position < after)),
            );
            drop(shard);
            // Keeps the memory of a list bounded by its page.
            if found.len() > query.limit.saturating_add(1).saturating_mul(4) {
                newest(&mut found, query.limit.saturating_add(1));
            }
        }
        newest(&mut found, query.limit.saturating_add(1));
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(position, _)| position.cursor());
        let records = found.into_iter().map(|(_, record)| record).collect();
        Ok(Page { records, next })
    }
}

fn newest<T>(found: &mut Vec<(Position, T)>, limit: usize) {
    found.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    found.truncate(limit);
}

/// The place of an operation in a list: by creation, then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    created_millis: u64,
    id: OperationId,
}

impl Position {
    fn of<T>(record: &Record<T>) -> Self {
        let created = record.operation().metadata().created_at();
        let age = created.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Self {
            created_millis: age.map_or(0, |age| age.as_millis() as u64),
            id: record.operation().id().clone(),
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor(format!("{:x}.{}", self.created_millis, self.id).into())
    }

    fn parse(cursor: &Cursor) -> Result<Self, StoreError> {
        cursor
            .0
            .split_once('.')
            .and_then(|(millis, id)| {
                let created_millis = u64::from_str_radix(millis, 16).ok()?;
                Some(Self {
                    created_millis,
                    id: id.parse().ok()?,
                })
            })
            .ok_or_else(|| StoreError::refused("this is no cursor of this store"))
    }
}

impl<T: Payload> Purge for MemoryStore<T> {
    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.now().tick;
        let mut purged = 0;
        for index in 0..SHARDS {
            if purged == limit {
                break;
            }
            let records = self.lock(index).purge(now, limit - purged);
            self.freed(&records);
            purged += records.len();
        }
        self.shared.keys.purge(now, limit);
        Ok(purged)
    }
}
