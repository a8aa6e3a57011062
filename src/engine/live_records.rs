use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    operation::OperationId,
    store::{FencingToken, Record},
};

/// The live records that this node wrote last, so that their next change needs no read. A record
/// may be outdated, which is safe because every write is conditional.
pub(super) struct LiveRecords<T>(Mutex<HashMap<OperationId, Record<T>>>);

/// The maximum number of records. Beyond it, all are dropped, at the cost of one read each.
const CAPACITY: usize = 16_384;

impl<T: Clone> LiveRecords<T> {
    pub(super) fn get(&self, id: &OperationId) -> Option<Record<T>> {
        self.records().get(id).cloned()
    }

    /// Stores a written record, or drops it if the operation has ended.
    pub(super) fn wrote(&self, record: &Record<T>) {
        let id = record.operation().id();
        let mut records = self.records();
        if record.operation().state().is_terminal() {
            records.remove(id);
            return;
        }
        if records.len() >= CAPACITY && !records.contains_key(id) {
            records.clear();
        }
        records.insert(id.clone(), record.clone());
    }

    /// Drops the record of an operation that the holder with `token` lost; the record of
    /// another holder stays.
    pub(super) fn lost(&self, id: &OperationId, token: FencingToken) {
        let mut records = self.records();
        if records.get(id).is_some_and(|it| it.token() == token) {
            records.remove(id);
        }
    }

    /// Drops an outdated record after the current one was read.
    pub(super) fn found(&self, record: &Record<T>) {
        let operation = record.operation();
        let has_ended = operation.state().is_terminal();
        let mut records = self.records();
        let known = records.get(operation.id());
        if known.is_some_and(|known| has_ended || known.token() != record.token()) {
            records.remove(operation.id());
        }
    }

    /// Drops the record of an operation that does not exist.
    pub(super) fn gone(&self, id: &OperationId) {
        self.records().remove(id);
    }

    fn records(&self) -> MutexGuard<'_, HashMap<OperationId, Record<T>>> {
        // A critical section only moves finished values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for LiveRecords<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        operation::{Outcome, RecordedResponse},
        store::{NewOperation, Step},
    };

    type Known = LiveRecords<RecordedResponse>;
    type Live = Record<RecordedResponse>;

    /// Returns a live operation of one id, held with this token.
    fn live(token: u64) -> Live {
        let new = NewOperation::new("one-id".parse().unwrap());
        let token = FencingToken::from_number(token);
        Record::create(&new, SystemTime::UNIX_EPOCH).with_holder(token, None)
    }

    fn next(step: Step<RecordedResponse>) -> Live {
        match step {
            Step::Next(next) => next,
            Step::Done | Step::Lost => panic!("no step"),
        }
    }

    /// Returns the token of the holder whose record is known.
    fn known(held: &Known) -> Option<u64> {
        let id = "one-id".parse().unwrap();
        held.get(&id).map(|record| record.token().get())
    }

    #[test]
    fn the_loss_of_an_operation_keeps_a_later_one_of_the_same_id() {
        let (held, earlier, later) = (Known::default(), live(1), live(2));
        held.wrote(&earlier);
        held.wrote(&later);
        held.lost(later.operation().id(), earlier.token());
        assert_eq!(known(&held), Some(2));
        held.lost(later.operation().id(), later.token());
        assert_eq!(known(&held), None);
    }

    #[test]
    fn records_of_former_holders_are_dropped() {
        let (held, mine) = (Known::default(), live(1));
        held.wrote(&mine);
        let started = next(mine.started(mine.token(), SystemTime::UNIX_EPOCH));
        held.found(&started);
        assert_eq!(known(&held), Some(1), "its holder is the same");
        held.found(&live(2));
        assert_eq!(known(&held), None);
    }

    #[test]
    fn records_of_ended_operations_are_dropped() {
        let (held, mine) = (Known::default(), live(1));
        let (now, ttl) = (SystemTime::UNIX_EPOCH, Duration::MAX);
        let ended = next(mine.finished(mine.token(), Outcome::Succeeded(None), None, now, ttl));
        held.wrote(&mine);
        held.found(&ended);
        assert_eq!(known(&held), None);
        held.wrote(&mine);
        held.wrote(&ended);
        assert_eq!(known(&held), None);
    }
}
