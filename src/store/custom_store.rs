use std::{collections::HashMap, sync::Mutex, time::{Duration, SystemTime}};
use tower_operations::{OperationId, Outcome, Progress, RecordedResponse, store::*};

pub struct MapStore {
    records: Mutex<HashMap<OperationId, Record<RecordedResponse>>>,
    ttl: Duration,
}

type Result<T> = std::result::Result<T, StoreError>;

/// An expired operation is absent.
fn is_there(record: &Record<RecordedResponse>) -> bool {
    let expires_at = record.operation().metadata().expires_at();
    expires_at.is_none_or(|at| SystemTime::now() < at)
}

impl MapStore {
    pub fn new(ttl: Duration) -> Self {
        Self { records: Mutex::default(), ttl }
    }

    /// Reads, takes a step and writes. The lock is held throughout, so this is atomic.
    fn change(
        &self,
        id: &OperationId,
        step: impl FnOnce(&Record<RecordedResponse>) -> Step<RecordedResponse>,
    ) -> Result<Written<RecordedResponse>> {
        let mut map = self.records.lock().unwrap();
        let Some(slot) = map.get_mut(id).filter(|record| is_there(record)) else {
            return Ok(Written::Gone);
        };
        Ok(match step(slot) {
            Step::Next(next) => {
                *slot = next;
                Written::Done(slot.clone())
            }
            Step::Done => Written::Done(slot.clone()),
            Step::Lost => Written::Lost(slot.clone()),
        })
    }
}

impl Store for MapStore {
    type Output = RecordedResponse;

    async fn get(&self, id: &OperationId) -> Result<Option<Record<RecordedResponse>>> {
        let map = self.records.lock().unwrap();
        Ok(map.get(id).filter(|record| is_there(record)).cloned())
    }
}

impl Repository for MapStore {
    async fn create(&self, new: NewOperation) -> Result<Created<RecordedResponse>> {
        let record = Record::create(&new, SystemTime::now());
        let mut map = self.records.lock().unwrap();
        Ok(match map.get(&new.id).filter(|record| is_there(record)) {
            None => {
                map.insert(new.id, record.clone());
                Created::New(record)
            }
            Some(existing) if existing.owner() == new.owner.as_ref() => Created::Existing(existing.clone()),
            Some(_) => Created::IdTaken,
        })
    }

    async fn start(&self, id: &OperationId, token: FencingToken) -> Result<Written<RecordedResponse>> {
        self.change(id, |record| record.started(token, SystemTime::now()))
    }

    async fn report(&self, id: &OperationId, token: FencingToken, progress: Progress) -> Result<Written<RecordedResponse>> {
        self.change(id, |record| record.reported(token, progress, SystemTime::now()))
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<RecordedResponse>,
        progress: Option<Progress>,
    ) -> Result<Written<RecordedResponse>> {
        self.change(id, |record| record.finished(token, outcome, progress, SystemTime::now(), self.ttl))
    }

    async fn force_finish(&self, id: &OperationId, expected: Stamp, outcome: Outcome<RecordedResponse>) -> Result<Written<RecordedResponse>> {
        self.change(id, |record| record.force_finished(expected, outcome, SystemTime::now(), self.ttl))
    }

    async fn delete(&self, id: &OperationId, expected: Stamp) -> Result<Written<RecordedResponse>> {
        let mut map = self.records.lock().unwrap();
        let Some(record) = map.get(id).filter(|record| is_there(record)).cloned() else {
            return Ok(Written::Gone);
        };
        if record.stamp() != Some(expected) || !record.operation().state().is_terminal() {
            return Ok(Written::Lost(record));
        }
        map.remove(id);
        Ok(Written::Done(record))
    }
}
