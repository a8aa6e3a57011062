//! Reads, and waits for a change.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Cell, CellReader, Engine, EngineStore, record_head};
use crate::{
    operation::{OperationId, Stored},
    store::{Found, Health, Reader, Record, Store, StoreError, StoreResult, Version, Watch},
};

impl<E: Engine, T: Stored> EngineStore<E, T> {
    pub(super) async fn read(&self, id: &OperationId, reader: CellReader<'_>) -> Found<T> {
        let engine = &self.shared.engine;
        let presented = self.presented(engine.read(id, reader).await?, reader)?;
        match presented {
            Presented::Record(record) => Ok(record),
            Presented::NeedsResult => {
                let reader = reader.of_all_results();
                let cell = engine.read(id, reader).await?;
                let record = cell.map(Cell::decode).transpose()?;
                Ok(record.filter(|record| !self.is_expired(record)))
            }
        }
    }

    fn read_now(&self, id: &OperationId, reader: CellReader<'_>) -> Option<Found<T>> {
        let cell = self.shared.engine.read_now(id, reader)?;
        match cell.and_then(|cell| self.presented(cell, reader)) {
            Ok(Presented::Record(record)) => Some(Ok(record)),
            Ok(Presented::NeedsResult) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Returns the record in a cell as the reader may see it, unless it has expired.
    fn presented(&self, cell: Option<Cell>, reader: CellReader<'_>) -> StoreResult<Presented<T>> {
        let Some(cell) = cell else {
            return Ok(Presented::Record(None));
        };
        let (record, is_whole) = record_head::decode_part(cell)?;
        if self.is_expired(&record) {
            return Ok(Presented::Record(None));
        }
        let max_body = match reader {
            CellReader::Head => return Ok(Presented::Record(Some(record))),
            CellReader::Store => usize::MAX,
            CellReader::Owner { owner, .. } if record.owner() != owner => {
                return Ok(Presented::Record(Some(record.without_result())));
            }
            CellReader::Owner { max_result, .. } => max_result,
        };
        if !is_whole && max_body < usize::MAX {
            return Ok(Presented::NeedsResult);
        }
        match record_head::missing_body(&record) {
            Some(length) if length <= max_body => {
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

/// A cell as a reader sees it.
enum Presented<T> {
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

/// Returns the record in a cell that was found among others, and whether its result, if there is
/// one, is part of it. A record that cannot be read is logged, and does not prevent reading the
/// others.
pub(super) fn readable<T: Stored>(
    id: &[u8],
    cell: Result<Cell, StoreError>,
) -> Option<(Record<T>, bool)> {
    let record = cell.and_then(record_head::decode_part).and_then(
        |(record, is_whole): (Record<T>, bool)| match record.operation().id().to_string().as_bytes()
            == id
        {
            true => Ok((record, is_whole)),
            false => Err(StoreError::refused("a record of another operation")),
        },
    );
    let unreadable = |error: &StoreError| {
        let id = String::from_utf8_lossy(id);
        tracing::error!(%id, error = error.report(), "record not read");
    };
    record.inspect_err(unreadable).ok()
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
