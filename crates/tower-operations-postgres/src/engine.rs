//! The engine: each promise of [`Engine`] is one statement, which concurrent callers share where
//! it creates, changes or ends an operation. A conditional change that does not happen takes two
//! more: one of its own, and one that reads the present cell.

mod keys;
mod lists;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sqlx::{Row, query};
use tower_operations::{
    engine::{
        Cell, CellReader, Engine, Inserted, LapsedCell, LeaseChange, NewCell, NextCell, Notice,
        ReclaimFilter, Replaced,
    },
    operation::OperationId,
    store::{FencingToken, Health, IdempotencyKey, LeaseHandle, Stamp, StoreError, StoreResult},
};

use super::{
    asking::{PostgresEngine, SqlQuery},
    error::{Unexpected, full, store_error},
    rows::{ChangedRow, EndedRow, InsertedRow, WriteRow},
    schema,
    values::{abandoned, bytes, digits, key_cell, micros, moment, optional_bytes, stamp, text},
};

impl PostgresEngine {
    /// Runs a conditional change. If the change does not happen, returns the present cell, which
    /// may equal the expected one if another change came in between.
    async fn replaced(&self, id: &OperationId, ask: SqlQuery<'_>) -> StoreResult<Replaced> {
        if self.count(ask).await? > 0 {
            return Ok(Replaced::Done);
        }
        let found = self.read(id, CellReader::Head).await?;
        Ok(found.map_or(Replaced::Gone, |cell| Replaced::Found(cell.head)))
    }

    async fn insert_with_key(&self, new: &NewCell<'_>) -> StoreResult<Inserted> {
        let id = new.id.to_string();
        let (version, token) = stamp(new.stamp);
        let key = new.key;
        let name = key.map(IdempotencyKey::scoped_name);
        let ask = query(&self.statements.insert_with_key)
            .bind(&id)
            .bind(version)
            .bind(token)
            .bind(new.state.as_str())
            .bind(new.owner.map(|owner| owner.as_str().as_bytes()))
            .bind(new.head)
            .bind(new.lease.map(micros))
            .bind(new.request)
            .bind(name.as_deref().map(str::as_bytes))
            .bind(key.map(|key| key.fingerprint.as_slice()))
            .bind(new.reservation.map(digits))
            .bind(moment(new.now).exact);
        let row = self.row(ask).await.map_err(full)?;
        let outcome: &str = row.try_get("outcome").map_err(store_error)?;
        Ok(match outcome {
            "done" => Inserted::Done,
            "id" => {
                let name = row.try_get::<Option<Vec<u8>>, _>("made_by");
                let name = name.map_err(store_error)?.map(text).transpose()?;
                Inserted::Id(bytes(&row, "head")?, name.map(Into::into))
            }
            stands_for => Inserted::Key(key_cell(&row, stands_for)?),
        })
    }
}

/// The maximum size of a value in bytes. A field has room for 1 GiB less its header, and
/// its transport for less.
const LARGEST: usize = 512 * 1024 * 1024;

/// The size in bytes above which a row has a statement of its own, since it would hold up the
/// others.
const LARGE: usize = 64 * 1024;

fn is_large(head: &[u8], body: Option<&[u8]>) -> bool {
    head.len() + body.map_or(0, <[u8]>::len) > LARGE
}

fn fits(value: &[u8]) -> StoreResult<()> {
    match value.len() > LARGEST {
        true => Err(StoreError::too_large(value.len(), LARGEST)),
        false => Ok(()),
    }
}

impl Engine for PostgresEngine {
    const POLL_INTERVAL: Option<Duration> = Some(Duration::from_secs(5));
    const KEEPS_EXPIRED: bool = true;

    async fn read(&self, id: &OperationId, reader: CellReader<'_>) -> StoreResult<Option<Cell>> {
        let id = id.to_string();
        let (is_store, owner, max_result) = match reader {
            CellReader::Head => (true, None, -1),
            CellReader::Store => (true, None, i64::MAX),
            CellReader::Owner { owner, max_result } => (false, owner, count(max_result)),
        };
        let ask = query(&self.statements.read)
            .bind(&id)
            .bind(is_store)
            .bind(owner.map(|owner| owner.as_str().as_bytes()))
            .bind(max_result);
        let row = self.row(ask).await?;
        if row.try_get("is_standby").map_err(store_error)? {
            return Err(Unexpected::Standby.into());
        }
        match optional_bytes(&row, "head")? {
            None => Ok(None),
            Some(head) => Ok(Some(Cell::new(head, optional_bytes(&row, "result")?))),
        }
    }

    async fn insert(&self, new: NewCell<'_>) -> StoreResult<Inserted> {
        fits(new.head)?;
        fits(new.request.unwrap_or_default())?;
        if new.key.is_some() || is_large(new.head, new.request) {
            return self.insert_with_key(&new).await;
        }
        let row = WriteRow::Insert(InsertedRow::new(&new));
        match self.batches.write(row).await.map_err(full)? {
            true => Ok(Inserted::Done),
            // The id is taken, or its operation has expired.
            false => self.insert_with_key(&new).await,
        }
    }

    async fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> StoreResult<Replaced> {
        fits(next.head)?;
        fits(next.result.unwrap_or_default())?;
        let row = match (next.expires_at, next.lease) {
            _ if is_large(next.head, next.result) => None,
            (Some(_), _) => Some(WriteRow::End(EndedRow::new(id, expected, &next))),
            (None, LeaseChange::Keep) => {
                Some(WriteRow::Change(ChangedRow::new(id, expected, &next)))
            }
            // Leases change hands rarely.
            (None, LeaseChange::Reclaim(_) | LeaseChange::Transfer(_)) => None,
        };
        if let Some(row) = row
            && self.batches.write(row).await?
        {
            return Ok(Replaced::Done);
        }
        // The change is not for a joint statement, or its stamp differs, or another transaction
        // holds the row or has just renewed its lease: a joint statement waits for none.
        let name = id.to_string();
        let statements = &*self.statements;
        let sql = match (next.expires_at, next.lease) {
            (Some(_), _) => &statements.end,
            (None, LeaseChange::Keep) => &statements.change,
            (None, LeaseChange::Reclaim(_)) => &statements.take_over,
            (None, LeaseChange::Transfer(_)) => &statements.hand_on,
        };
        let ((version, token), (next_version, next_token)) = (stamp(expected), stamp(next.stamp));
        let ask = query(sql)
            .bind(&name)
            .bind(version)
            .bind(token)
            .bind(next_version)
            .bind(next_token)
            .bind(next.state.as_str())
            .bind(next.head);
        let ask = match (next.expires_at, next.lease) {
            (Some(at), _) => ask.bind(next.result).bind(moment(at).rounded),
            (None, LeaseChange::Keep) => ask,
            (None, LeaseChange::Reclaim(term) | LeaseChange::Transfer(term)) => {
                ask.bind(micros(term))
            }
        };
        self.replaced(id, ask).await
    }

    async fn delete(
        &self,
        id: &OperationId,
        expected: Stamp,
        remains: &[u8],
        until: Option<SystemTime>,
    ) -> StoreResult<Replaced> {
        let name = id.to_string();
        let (version, token) = stamp(expected);
        let ask = query(&self.statements.delete)
            .bind(&name)
            .bind(version)
            .bind(token)
            .bind(remains)
            .bind(until.map(|until| moment(until).rounded));
        self.replaced(id, ask).await
    }

    async fn renew(&self, held: &[LeaseHandle], term: Duration) -> StoreResult<Vec<LeaseHandle>> {
        let (ids, tokens) = columns(held);
        let ask = query(&self.statements.renew)
            .bind(ids)
            .bind(tokens)
            .bind(micros(term));
        let lost = self.rows(ask).await?;
        let lost = lost.iter().map(|row| {
            let id: &str = row.try_get("id").map_err(store_error)?;
            let token: i64 = row.try_get("token").map_err(store_error)?;
            Ok(LeaseHandle::new(
                OperationId::from_stored(id).map_err(StoreError::refused)?,
                FencingToken::from_number(token.cast_unsigned()),
            ))
        });
        lost.collect()
    }

    async fn release(&self, held: &[LeaseHandle]) -> StoreResult<()> {
        let (ids, tokens) = columns(held);
        let ask = query(&self.statements.release).bind(ids).bind(tokens);
        self.count(ask).await.map(drop)
    }

    async fn reclaimable(
        &self,
        which: ReclaimFilter,
        limit: usize,
    ) -> StoreResult<Vec<LapsedCell>> {
        let sql = match which {
            ReclaimFilter::Released => &self.statements.released,
            ReclaimFilter::Expired => &self.statements.abandoned,
        };
        let ask = query(sql).bind(count(limit));
        let rows = self.rows(ask).await?;
        rows.iter().map(abandoned).collect()
    }

    async fn defer(&self, ids: &[Bytes], term: Duration) -> StoreResult<()> {
        let ids = ids.iter().filter_map(|id| std::str::from_utf8(id).ok());
        let mut ids: Vec<&str> = ids.collect();
        ids.sort_unstable();
        let ask = query(&self.statements.put_aside)
            .bind(ids)
            .bind(micros(term));
        self.count(ask).await.map(drop)
    }

    async fn purge(&self, limit: usize, now: SystemTime) -> StoreResult<usize> {
        let now = moment(now).exact;
        let purge = query(&self.statements.purge).bind(now).bind(count(limit));
        let row = self.row(purge).await?;
        let purged: i64 = row.try_get(0).map_err(store_error)?;
        let keys = query(&self.statements.purge_keys);
        self.count(keys.bind(now).bind(count(limit))).await?;
        Ok(usize::try_from(purged).unwrap_or_default())
    }

    async fn health(&self) -> StoreResult<Health> {
        let told = self.ask(async |connection| schema::ask_server(connection).await);
        Ok(told.await?.health(self.durable))
    }

    fn ensure_listening(&self) {
        self.notices.ensure_listening();
    }

    fn publish(&self, notice: Notice) {
        self.notices.tell(notice);
    }
}

/// Returns the columns of the leases, sorted so that two statements on the same rows do not
/// deadlock.
fn columns(held: &[LeaseHandle]) -> (Vec<String>, Vec<i64>) {
    let mut held: Vec<_> = held
        .iter()
        .map(|held| (held.id.to_string(), digits(held.token)))
        .collect();
    held.sort();
    held.into_iter().unzip()
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_above_the_limit_of_a_field_is_refused_with_the_limit() {
        assert!(fits(&[7; 100]).is_ok());
        let error = fits(&vec![0; LARGEST + 1]).unwrap_err();
        let limit = "536870913 bytes are more than the 536870912 bytes that the store takes";
        assert!(error.report().starts_with(limit) && !error.is_transient());
    }
}
