//! Reads, and waits for a change.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{
    Cell, CellReader, Engine, EngineStore,
    record_head::{self, Decoded},
};
use crate::{
    operation::{OperationId, Stored},
    store::{Found, Health, Reader, Record, Store, StoreError, StoreResult, Version, Watch},
};

impl<E: Engine, T: Stored> EngineStore<E, T> {
    pub(super) async fn read(&self, id: &OperationId, reader: CellReader<'_>) -> Found<T> {
        let cell = self.shared.engine.read(id, reader).await?;
        let decoded = cell.map(record_head::decode_part).transpose()?;
        match self.presented(decoded, reader)? {
            Presented::Record(record) => Ok(record),
            Presented::NeedsResult => self.read_whole(id, reader).await,
        }
    }

    fn read_now(&self, id: &OperationId, reader: CellReader<'_>) -> Option<Found<T>> {
        let cell = match self.shared.engine.read_now(id, reader)? {
            Ok(cell) => cell.map(record_head::decode_part).transpose(),
            Err(error) => Err(error),
        };
        match cell.and_then(|decoded| self.presented(decoded, reader)) {
            Ok(Presented::Record(record)) => Some(Ok(record)),
            Ok(Presented::NeedsResult) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads an operation whose response an early release stored as a whole. The body stays with
    /// the record only as far as the reader needs it.
    pub(super) async fn read_whole(&self, id: &OperationId, reader: CellReader<'_>) -> Found<T> {
        let whole = reader.of_all_results();
        let cell = self.shared.engine.read(id, whole).await?;
        let decode = |cell| record_head::decode_up_to(cell, reader.max_result());
        let decoded = cell.map(decode).transpose()?;
        match self.presented(decoded, whole)? {
            Presented::Record(record) => Ok(record),
            // Every result was asked for.
            Presented::NeedsResult => Ok(None),
        }
    }

    /// Returns a decoded record as the reader may see it, unless it has expired.
    pub(super) fn presented(
        &self,
        decoded: Option<Decoded<T>>,
        reader: CellReader<'_>,
    ) -> StoreResult<Presented<T>> {
        let decoded = decoded.filter(|decoded| !self.is_expired(&decoded.record));
        let Some(Decoded { record, is_whole }) = decoded else {
            return Ok(Presented::Record(None));
        };
        match reader {
            CellReader::Head => return Ok(Presented::Record(Some(record))),
            CellReader::Owner { owner, .. } if record.owner() != owner => {
                return Ok(Presented::Record(Some(record.without_result())));
            }
            CellReader::Owner { .. } | CellReader::Store => {}
        }
        if !is_whole && reader.max_result() < usize::MAX {
            return Ok(Presented::NeedsResult);
        }
        match record_head::missing_body(&record) {
            // After a read as a whole, a long body was removed on purpose.
            Some(length) if length <= reader.max_result() && is_whole => {
                let id = record.operation().id();
                Err(StoreError::refused(format!(
                    "the body of the result of {id} is missing"
                )))
            }
            _ => Ok(Presented::Record(Some(record))),
        }
    }

    /// Returns the engine's reader for a reader.
    fn reader<'a>(reader: Reader<'a>) -> CellReader<'a> {
        CellReader::Owner {
            owner: reader.owner,
            max_result: max_result::<T>(reader.max_body),
        }
    }

    pub(super) fn is_expired(&self, record: &Record<T>) -> bool {
        let expires_at = record.operation().metadata().expires_at();
        expires_at.is_some_and(|at| at <= self.now())
    }

    async fn wait(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        reader: CellReader<'_>,
    ) -> Found<T> {
        let until = Instant::now().checked_add(at_most);
        loop {
            // The listener is created before the read, so that no later change is missed.
            let mut listening = self.shared.notifier.listen(id);
            self.shared.engine.ensure_listening();
            // The last read may end this much later, and sees changes that had no notice.
            let latest = until.and_then(|until| until.checked_add(LATE));
            let read = self.read(id, reader);
            let record = match latest {
                Some(latest) => timeout_at(latest, read)
                    .await
                    .map_err(|_| StoreError::unavailable("no answer in time"))?,
                None => read.await,
            };
            let record = record?;
            let now = Instant::now();
            let is_over = until.is_some_and(|until| until <= now);
            match &record {
                Some(record) if record.version() == Some(since) && !is_over => {}
                _ => return Ok(record),
            }
            let again = E::POLL_INTERVAL.map(|interval| now + interval);
            let latest = [until, again].into_iter().flatten().min();
            match latest {
                Some(latest) => drop(timeout_at(latest, listening.notified()).await),
                None => listening.notified().await,
            }
        }
    }
}

/// A record as a reader sees it.
pub(super) enum Presented<T> {
    Record(Option<Record<T>>),
    /// An early release stored the response as a whole, and it was not read.
    NeedsResult,
}

/// Returns the length in bytes up to which a result is read, for a reader that needs bodies up to
/// this length. A result without a head is always read.
pub(super) fn max_result<T: Stored>(max_body: usize) -> usize {
    match T::FROM_RECORDED {
        Some(_) => max_body,
        None => usize::MAX,
    }
}

/// Decodes a cell that was found among others. A record that cannot be read is logged, and does not
/// prevent reading the others.
pub(super) fn readable<T: Stored>(id: &[u8], cell: StoreResult<Cell>) -> Option<Decoded<T>> {
    let decoded = cell.and_then(record_head::decode_part);
    let decoded = decoded.and_then(|decoded: Decoded<T>| {
        match decoded.record.operation().id().to_string().as_bytes() == id {
            true => Ok(decoded),
            false => Err(StoreError::refused("a record of another operation")),
        }
    });
    decoded.inspect_err(|error| log_unreadable(id, error)).ok()
}

pub(super) fn log_unreadable(id: &[u8], error: &StoreError) {
    let id = String::from_utf8_lossy(id);
    tracing::error!(%id, error = error.report(), "record not read");
}

/// The time by which a wait may take longer because of the engine.
const LATE: Duration = Duration::from_secs(1);

impl<E: Engine, T: Stored> Store for EngineStore<E, T> {
    type Output = T;

    async fn get(&self, id: &OperationId) -> Found<T> {
        self.read(id, CellReader::Store).await
    }

    fn get_now(&self, id: &OperationId) -> Option<Found<T>> {
        self.read_now(id, CellReader::Store)
    }

    async fn get_for(&self, id: &OperationId, reader: Reader<'_>) -> Found<T> {
        self.read(id, Self::reader(reader)).await
    }

    fn get_now_for(&self, id: &OperationId, reader: Reader<'_>) -> Option<Found<T>> {
        self.read_now(id, Self::reader(reader))
    }

    async fn health(&self) -> Result<Health, StoreError> {
        self.shared.engine.health().await
    }
}

impl<E: Engine, T: Stored> Watch for EngineStore<E, T> {
    async fn changed(&self, id: &OperationId, since: Version, at_most: Duration) -> Found<T> {
        self.wait(id, since, at_most, CellReader::Store).await
    }

    async fn changed_for(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
        reader: Reader<'_>,
    ) -> Found<T> {
        self.wait(id, since, at_most, Self::reader(reader)).await
    }
}
