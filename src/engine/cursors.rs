//! The key of list cursors, shared by all nodes through the engine.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{EngineList, EngineStore};
use crate::store::{Cursor, ListQuery, StoreError, cursor::CursorKey};

/// The maximum age of the cached key. The data of a server can be replaced under a running
/// node, so the key is read again after this time.
const FRESH: Duration = Duration::from_secs(60);

/// The key that was last read, and the time of that read.
#[derive(Default)]
pub(super) struct CachedCursorKey(Mutex<Option<(CursorKey, Instant)>>);

impl CachedCursorKey {
    fn known(&self) -> Option<CursorKey> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.as_ref().filter(|(_, at)| at.elapsed() < FRESH);
        fresh.map(|(key, _)| key.clone())
    }

    fn set(&self, key: CursorKey) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((key, Instant::now()));
    }
}

impl<E: EngineList, T> EngineStore<E, T> {
    /// Returns the number after which `query` continues, if it has a cursor.
    pub(super) async fn opened(&self, query: &ListQuery) -> Result<Option<u64>, StoreError> {
        let Some(cursor) = &query.after else {
            return Ok(None);
        };
        let known = self.shared.cursors.known();
        if let Some(Ok(number)) = known.map(|key| key.open(query, cursor)) {
            return Ok(Some(number));
        }
        self.read_key().await?.open(query, cursor).map(Some)
    }

    pub(super) async fn sealed(
        &self,
        query: &ListQuery,
        number: u64,
    ) -> Result<Cursor, StoreError> {
        let key = match self.shared.cursors.known() {
            Some(key) => key,
            None => self.read_key().await?,
        };
        Ok(key.seal(query, number))
    }

    async fn read_key(&self) -> Result<CursorKey, StoreError> {
        let key = CursorKey::new(&self.shared.engine.cursor_secret().await?);
        self.shared.cursors.set(key.clone());
        Ok(key)
    }
}
