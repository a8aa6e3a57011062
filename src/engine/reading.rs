//! Reads, and waits for a change.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Cell, CellReader, Engine, EngineStore, record_head};
use crate::{
    operation::{OperationId, Stored},
    store::{Found, Health, Owner, Record, Store, StoreError, Version, Watch},
};

impl<E: Engine, T: Stored> EngineStore<E, T> {
    pub(super) async fn read(&self, id: &OperationId, reader: CellReader<'_>) -> Found<T> {
        let cell = self.shared.engine.read(id, reader).await?;
        self.present(cell)
    }

    fn read_now(&self, id: &OperationId, reader: CellReader<'_>) -> Option<Found<T>> {
        let cell = self.shared.engine.read_now(id, reader)?;
        Some(cell.and_then(|cell| self.present(cell)))
    }

    /// Returns the record in a cell, unless it has expired.
    pub(super) fn present(&self, cell: Option<Cell>) -> Found<T> {
        let record = cell.map(record_head::decode).transpose()?;
        Ok(record.filter(|record| !self.is_expired(record)))
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

/// Returns the record in a cell that was found among others. A record that cannot be read
/// is logged, and does not prevent reading the others.
pub(super) fn readable<T: Stored>(id: &[u8], cell: Result<Cell, StoreError>) -> Option<Record<T>> {
    let record = cell
        .and_then(record_head::decode)
        .and_then(
            |record: Record<T>| match record.operation().id().to_string().as_bytes() == id {
                true => Ok(record),
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

    async fn get_for(&self, id: &OperationId, owner: Option<&Owner>) -> Found<T> {
        self.read(id, CellReader::Owner(owner)).await
    }

    fn get_now_for(&self, id: &OperationId, owner: Option<&Owner>) -> Option<Found<T>> {
        self.read_now(id, CellReader::Owner(owner))
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
        owner: Option<&Owner>,
    ) -> Found<T> {
        self.wait(id, since, at_most, CellReader::Owner(owner))
            .await
    }
}
