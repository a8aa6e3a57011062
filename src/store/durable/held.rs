use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{operation::OperationId, store::Record};

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

    /// It is another's, or gone.
    pub(super) fn lost(&self, id: &OperationId) {
        self.records().remove(id);
    }

    fn records(&self) -> MutexGuard<'_, HashMap<OperationId, Arc<Record<T>>>> {
        // A critical section only moves finished values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
