//! The histories of all operations.

use std::collections::{HashMap, HashSet};

use super::{Violation, history::OperationHistory};

/// The histories, by the names that the log gives the operations.
#[derive(Debug, Default)]
pub(super) struct Histories {
    known: HashMap<String, OperationHistory>,
    /// The ids of the operations whose records were damaged.
    damaged: HashSet<String>,
}

/// Returns the id of an operation. Several operations may have the id, one after another.
pub(super) fn id_of(operation: &str) -> &str {
    operation.split_once('#').map_or(operation, |(id, _)| id)
}

impl Histories {
    pub(super) fn of(&mut self, operation: &str) -> &mut OperationHistory {
        // Most operations are known, so no key is allocated for them.
        if !self.known.contains_key(operation) {
            self.known
                .insert(operation.into(), OperationHistory::default());
        }
        self.known.entry(operation.into()).or_default()
    }

    pub(super) fn damaged(&mut self, id: &str) {
        self.damaged.insert(id.into());
    }

    pub(super) fn is_damaged(&self, operation: &str) -> bool {
        self.damaged.contains(id_of(operation))
    }

    /// Returns the owner that posted the operation, as far as that is known.
    pub(super) fn owner(&self, operation: &str) -> Option<&Option<String>> {
        self.known.get(operation)?.owners.first()
    }

    /// Returns the time of the first request to delete the operation.
    pub(super) fn deleting(&self, operation: &str) -> Option<u64> {
        self.known.get(operation)?.deleting
    }

    /// Returns whether no other operation has the id of `operation` at the time of the
    /// post.
    pub(super) fn is_free(&self, operation: &str, at: u64) -> bool {
        let id = id_of(operation);
        let others = self.known.iter().filter(|(other, history)| {
            id_of(other) == id && *other != operation && history.accepted.is_some()
        });
        let mut deleted = others.map(|(_, history)| history.deleted);
        deleted.all(|deleted| deleted.is_some_and(|deleted| deleted <= at))
    }

    /// Assigns the runs of an id to those of its operations whose titles the runs name.
    pub(super) fn tell_apart(&mut self) {
        let again = self.known.iter().filter_map(|(operation, history)| {
            let title = history.wanted.clone()?;
            (id_of(operation) != operation).then(|| (operation.clone(), title))
        });
        for (operation, title) in again.collect::<Vec<_>>() {
            let Some(first) = self.known.get_mut(id_of(&operation)) else {
                continue;
            };
            if let Some(runs) = first.runs.remove(&title) {
                self.of(&operation).runs.insert(title, runs);
            }
        }
    }

    /// Returns the violations of all operations. A damaged operation is excused, except
    /// when another owner saw it.
    pub(super) fn violations(&mut self) -> Vec<Violation> {
        let mut all = Vec::new();
        for (operation, history) in &mut self.known {
            let is_damaged = self.damaged.contains(id_of(operation));
            let counts = |violation: &Violation| {
                !is_damaged || matches!(violation, Violation::ShownToAnother { .. })
            };
            all.extend(history.found.drain(..).filter(counts));
        }
        all
    }

    /// Returns the ids that several operations had.
    pub(super) fn again(&self) -> HashSet<String> {
        let again = self
            .known
            .keys()
            .filter(|operation| operation.contains('#'));
        again.map(|operation| id_of(operation).to_owned()).collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut OperationHistory)> {
        self.known
            .iter_mut()
            .map(|(operation, history)| (&**operation, history))
    }
}
