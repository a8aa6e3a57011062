//! The lists that clients read.

use std::collections::HashSet;

use super::{
    Call, Rules, Violation,
    disturbances::Interval,
    histories::{Histories, id_of},
    history::OperationHistory,
    judge::kept_until,
};

/// All lists that were read.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<ListRead>);

#[derive(Debug)]
struct ListRead {
    owner: Option<String>,
    reading: Interval,
    ids: HashSet<String>,
}

impl Lists {
    pub(super) fn add(&mut self, call: &Call, ids: &[String]) {
        self.0.push(ListRead {
            owner: call.owner.clone(),
            reading: call.reading(),
            ids: ids.iter().cloned().collect(),
        });
    }

    /// Finds operations that a list lacks or wrongly contains.
    pub(super) fn judge(&self, operations: &mut Histories, rules: &Rules) {
        let again = operations.again();
        for read in &self.0 {
            for (operation, history) in operations.iter_mut() {
                let is_only = !again.contains(id_of(operation));
                if let Some(violation) = read.judge(operation, is_only, history, rules) {
                    history.convict(violation);
                }
            }
        }
    }
}

impl ListRead {
    /// Judges one operation by this list. `is_only` says that no other operation has had the id.
    fn judge(
        &self,
        operation: &str,
        is_only: bool,
        history: &OperationHistory,
        rules: &Rules,
    ) -> Option<Violation> {
        let accepted = history.accepted?;
        let is_listed = self.ids.contains(id_of(operation));
        let is_theirs = history.owners.contains(&self.owner);
        let Interval { begin, end } = self.reading;
        let operation = || operation.to_owned();
        let (deleting, deleted) = (history.deleting, history.deleted);
        match (is_listed, is_theirs) {
            (true, false) => Some(Violation::ShownToAnother {
                operation: operation(),
                owner: self.owner.clone().unwrap_or_default(),
            }),
            (true, true) if is_only && deleted.is_some_and(|at| at < begin) => {
                Some(Violation::DeleteUndone {
                    operation: operation(),
                })
            }
            (false, true) => {
                let is_there = accepted < begin
                    && deleting.is_none_or(|begun| begun > end)
                    && end < kept_until(history, accepted, rules);
                is_there.then(|| Violation::Unlisted {
                    operation: operation(),
                })
            }
            _ => None,
        }
    }
}
