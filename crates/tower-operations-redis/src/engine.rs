//! The engine: each method is one script, so each is atomic.

mod keys;
mod lists;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::redis::{Cmd, Pipeline, Script, Value, cmd};
use bytes::Bytes;
use tower_operations::{
    engine::{
        Cell, CellReader, Engine, Inserted, LapsedCell, LeaseChange, NewCell, NextCell, Notice,
        Notifier, ReclaimFilter, Replaced,
    },
    operation::OperationId,
    store::{FencingToken, Health, LeaseHandle, Stamp, StoreError, StoreResult},
};

use super::{
    RedisError, answers,
    arguments::{GRACE, KeyArguments, millis, moment, optional, push_cell, push_stamp, removal},
    checks,
    connection::RedisConnections,
    error::AnswerError,
    names::RedisNames,
    notices::RedisNotices,
    scripts,
};

/// The maximum numbers of leases renewed, cells listed and cells purged in one script call:
/// the server serves no other client meanwhile.
const RENEWED: usize = 500;

const LOOKED_AT: usize = 256;

const PURGED: usize = 100;

/// The maximum number of cells that are returned for reclaiming.
const ABANDONED: usize = 1000;

/// The engine of a [`RedisStore`](super::RedisStore).
pub struct RedisEngine {
    connections: RedisConnections,
    names: RedisNames,
    notices: RedisNotices,
    /// Whether settings that the server does not report are assumed to be right.
    trusted: bool,
}

impl RedisEngine {
    pub(super) async fn start(
        connections: RedisConnections,
        names: RedisNames,
        trusted: bool,
        notifier: &Arc<Notifier>,
    ) -> Result<Self, RedisError> {
        let notices = RedisNotices::start(connections.first(), names.channel(), notifier).await?;
        Ok(Self {
            connections,
            names,
            notices,
            trusted,
        })
    }

    /// Returns a call of `script` with these names, and the prefix as its first argument.
    fn call(&self, script: &Script, keys: &[&str]) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(script.get_hash()).arg(keys.len()).arg(keys);
        call.arg(self.names.prefix());
        call
    }

    /// Calls a script that changes nothing except that it removes expired data.
    async fn look(&self, script: &Script, call: Cmd) -> StoreResult<Value> {
        let mut calls = Pipeline::new();
        calls.add_command(call);
        let answers = self.connections.ask_twice(Some(script), &calls).await?;
        Ok(answers.into_iter().next().unwrap_or(Value::Nil))
    }

    /// Renews leases for `term` from now on, or ends the leases if there is no term. Returns the
    /// leases that are not held.
    async fn extend(
        &self,
        held: &[LeaseHandle],
        term: Option<Duration>,
    ) -> StoreResult<Vec<LeaseHandle>> {
        let mut calls = Pipeline::new();
        for held in held.chunks(RENEWED) {
            let mut call = self.call(&scripts::RENEW, &[]);
            optional(&mut call, term.map(millis));
            for held in held {
                call.arg(held.id.to_string()).arg(held.token.get());
            }
            calls.add_command(call);
        }
        let renewed = self.connections.ask_twice(Some(&scripts::RENEW), &calls);
        let answers = renewed.await?;
        let mut lost = Vec::new();
        for (held, answer) in held.chunks(RENEWED).zip(answers) {
            let indexes = answers::lost(answer)?;
            lost.extend(
                indexes
                    .into_iter()
                    .filter_map(|index| held.get(index).cloned()),
            );
        }
        Ok(lost)
    }
}

impl fmt::Debug for RedisEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisEngine")
            .field("connections", &self.connections)
            .field("prefix", &self.names.prefix())
            .finish_non_exhaustive()
    }
}

impl Engine for RedisEngine {
    const POLL_INTERVAL: Option<Duration> = Some(Duration::from_secs(5));
    /// The server removes expired cells; their traces are removed as other operations end.
    const KEEPS_EXPIRED: bool = false;

    async fn read(&self, id: &OperationId, reader: CellReader<'_>) -> StoreResult<Option<Cell>> {
        let fields: &[&str] = match reader {
            CellReader::Head => &["h"],
            CellReader::Store => &["h", "r"],
            CellReader::Owner { owner, max_result } => {
                let mut call = self.call(&scripts::READ, &[&self.names.cell(id)]);
                let owner = owner.map_or_else(String::new, |owner| format!(" {}", owner.as_str()));
                call.arg(owner).arg(max_result);
                return answers::cell(self.look(&scripts::READ, call).await?);
            }
        };
        let mut both = Pipeline::new();
        // A write that changes nothing: a server that has become a replica refuses it, so
        // no node reads stale data there.
        both.cmd("PERSIST").arg(self.names.prefix()).ignore();
        both.cmd("HMGET").arg(self.names.cell(id)).arg(fields);
        let mut answers = self.connections.ask_twice(None, &both).await?;
        answers.pop().map_or(Ok(None), answers::cell)
    }

    async fn insert(&self, new: NewCell<'_>) -> StoreResult<Inserted> {
        let id = new.id.to_string();
        let names = &self.names;
        let (cell, list) = (names.cell(new.id), names.list(new.owner));
        let key = new.key.map(|key| (key.scoped_name(), key));
        let key_name = key.as_ref().map(|(name, _)| names.key(name));
        let mut keys = vec![cell.as_str(), &list];
        keys.extend(key_name.as_deref());
        let mut call = self.call(&scripts::INSERT, &keys);
        call.arg(&id).arg(moment(new.now));
        optional(&mut call, new.lease.map(millis));
        optional(&mut call, new.reservation.map(FencingToken::get));
        match &key {
            Some((name, key)) => {
                call.arg(&**name).arg(&*key.name);
                let bound = KeyArguments {
                    class: "operation",
                    data: Some(&id),
                    token: None,
                };
                call.arg(bound.len());
                bound.push_to(&mut call, key);
            }
            None => drop(call.arg("").arg("").arg(0)),
        }
        push_cell(&mut call, new.stamp, new.state, new.head);
        if let Some(owner) = new.owner {
            call.arg("o").arg(owner.as_str());
        }
        if let Some(request) = new.request {
            call.arg("q").arg(request);
        }
        if let Some((name, _)) = &key {
            call.arg("k").arg(&**name);
        }
        let answer = self.connections.next().run(&scripts::INSERT, &call).await;
        answers::inserted(answer.map_err(full)?)
    }

    async fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> StoreResult<Replaced> {
        let mut call = self.call(&scripts::REPLACE, &[&self.names.cell(id)]);
        call.arg(id.to_string());
        push_stamp(&mut call, expected);
        let (lease, if_over) = match next.lease {
            LeaseChange::Keep => (None, ""),
            LeaseChange::Reclaim(term) => (Some(millis(term)), "over"),
            LeaseChange::Transfer(term) => (Some(millis(term)), ""),
        };
        optional(&mut call, lease);
        call.arg(if_over);
        optional(&mut call, next.expires_at.map(moment));
        optional(&mut call, next.expires_at.map(removal));
        call.arg(millis(GRACE));
        push_cell(&mut call, next.stamp, next.state, next.head);
        if let Some(result) = next.result {
            call.arg("r").arg(result);
        }
        if let Some(at) = next.expires_at {
            call.arg("x").arg(moment(at));
        }
        answers::replaced(
            self.connections
                .next()
                .run(&scripts::REPLACE, &call)
                .await?,
        )
    }

    async fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> StoreResult<Replaced> {
        let mut call = self.call(&scripts::DELETE, &[&self.names.cell(id)]);
        call.arg(id.to_string());
        push_stamp(&mut call, expected);
        call.arg(remains);
        optional(&mut call, until.map(moment));
        optional(&mut call, until.map(removal));
        answers::replaced(self.connections.next().run(&scripts::DELETE, &call).await?)
    }

    async fn renew(&self, held: &[LeaseHandle], term: Duration) -> StoreResult<Vec<LeaseHandle>> {
        self.extend(held, Some(term)).await
    }

    async fn release(&self, held: &[LeaseHandle]) -> StoreResult<()> {
        self.extend(held, None).await.map(drop)
    }

    async fn reclaimable(
        &self,
        which: ReclaimFilter,
        limit: usize,
    ) -> StoreResult<Vec<LapsedCell>> {
        let mut call = self.call(&scripts::ABANDONED, &[]);
        call.arg(limit.min(ABANDONED));
        call.arg(match which {
            ReclaimFilter::Released => "released",
            ReclaimFilter::Expired => "",
        });
        answers::abandoned(self.look(&scripts::ABANDONED, call).await?)
    }

    async fn defer(&self, ids: &[Bytes], term: Duration) -> StoreResult<()> {
        let mut calls = Pipeline::new();
        for ids in ids.chunks(RENEWED) {
            let mut call = self.call(&scripts::PUT_ASIDE, &[]);
            call.arg(millis(term));
            for id in ids {
                call.arg(&id[..]);
            }
            calls.add_command(call);
        }
        let put = self
            .connections
            .ask_twice(Some(&scripts::PUT_ASIDE), &calls);
        Ok(put.await.map(drop)?)
    }

    async fn purge(&self, limit: usize, now: SystemTime) -> StoreResult<usize> {
        let mut purged = 0;
        loop {
            let some = (limit - purged).min(PURGED);
            if some == 0 {
                return Ok(purged);
            }
            let mut call = self.call(&scripts::PURGE, &[]);
            call.arg(moment(now)).arg(some);
            let answer = self.connections.next().run(&scripts::PURGE, &call).await?;
            let went = answers::count(&answer)?;
            purged += went;
            if went < some {
                return Ok(purged);
            }
        }
    }

    async fn health(&self) -> StoreResult<Health> {
        checks::health(self.connections.next(), self.trusted).await
    }

    fn ensure_listening(&self) {
        self.notices.ensure_listening();
    }

    fn publish(&self, notice: Notice) {
        self.notices.tell(notice);
    }
}

/// Converts the error of a call that adds data.
fn full(failure: AnswerError) -> StoreError {
    match failure.is_full() {
        true => StoreError::Full,
        false => failure.into(),
    }
}
