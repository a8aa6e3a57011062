use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    operation::OperationId,
    store::{FencingToken, Record},
};

/// The live records that this node wrote last, so that their next change needs no
/// read before it. What is here may be out of date: every write is conditional.
pub(super) struct Held<T>(Mutex<HashMap<OperationId, Arc<Record<T>>>>);

/// With more than this, all is forgotten: it costs a read each.
const CAPACITY: usize = 16_384;

impl<T> Held<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn get(&self, id: &OperationId) -> Option<Arc<Record<T>>> {
        self.records().get(id).cloned()
    }

    /// This was written; there is nothing to come once it has ended.
    pub(super) fn wrote(&self, record: &Arc<Record<T>>) {
        let id = record.operation().id();
        let mut records = self.records();
        if record.operation().state().is_terminal() {
            records.remove(id);
            return;
        }
        if records.len() >= CAPACITY && !records.contains_key(id) {
            records.clear();
        }
        records.insert(id.clone(), Arc::clone(record));
    }

    /// The holder with `token` has lost it: to whoever may hold it here by another one.
    pub(super) fn lost(&self, id: &OperationId, token: FencingToken) {
        let mut records = self.records();
        if records.get(id).is_some_and(|it| it.token() == token) {
            records.remove(id);
        }
    }

    /// This is what there is; what is known otherwise is out of date.
    pub(super) fn found(&self, record: &Record<T>) {
        let operation = record.operation();
        let has_ended = operation.state().is_terminal();
        let mut records = self.records();
        let known = records.get(operation.id());
        if known.is_some_and(|known| has_ended || known.token() != record.token()) {
            records.remove(operation.id());
        }
    }

    /// There is no operation of this id.
    pub(super) fn gone(&self, id: &OperationId) {
        self.records().remove(id);
    }

    fn records(&self) -> MutexGuard<'_, HashMap<OperationId, Arc<Record<T>>>> {
        // A critical section only moves finished values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
