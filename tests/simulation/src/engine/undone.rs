//! Changes that a bug undoes or repeats later.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tower_operations::{OperationId, engine::Cell, testing::TaskGroup};

use super::database::{Row, Rows, now};
use crate::Mutant;

/// The changes to undo.
#[derive(Debug, Default)]
pub(super) struct UndoneChanges(Vec<UndoneChange>);

#[derive(Debug)]
struct UndoneChange {
    at: Instant,
    id: OperationId,
    kind: Undo,
}

#[derive(Debug)]
enum Undo {
    /// The row is put back.
    Restore(Box<Row>),
    /// The row is put back, or removed, if the process has died by then.
    RestoreIfDead(Option<Box<Row>>, TaskGroup),
    /// The head of the cell is replaced.
    Overwrite(Bytes),
}

/// The time after which a change is undone.
const LATER: Duration = Duration::from_millis(300);
/// The time for which a write is not durable.
const UNSYNCED: Duration = Duration::from_millis(200);

impl UndoneChanges {
    /// Puts a row back later.
    pub(super) fn restore_later(&mut self, id: &OperationId, row: Row) {
        self.add(LATER, id, Undo::Restore(row.into()));
    }

    fn add(&mut self, after: Duration, id: &OperationId, kind: Undo) {
        let at = now() + after;
        self.0.push(UndoneChange {
            at,
            id: id.clone(),
            kind,
        });
    }
}

impl Rows {
    /// Undoes the changes that are due.
    pub(super) fn undo_due(&mut self) {
        if self.undone.0.is_empty() {
            return;
        }
        let now = now();
        let due = |change: &mut UndoneChange| {
            change.at <= now
                || matches!(&change.kind, Undo::RestoreIfDead(_, process) if process.is_aborted())
        };
        let due: Vec<_> = self.undone.0.extract_if(.., due).collect();
        for UndoneChange { id, kind, .. } in due {
            match kind {
                Undo::Restore(row) => self.restore(&id, *row),
                Undo::RestoreIfDead(row, process) if process.is_aborted() => match row {
                    Some(row) => self.restore(&id, *row),
                    None => self.remove(&id),
                },
                Undo::RestoreIfDead(..) => {}
                Undo::Overwrite(head) => {
                    if let Some(row) = self.get_mut(&id) {
                        row.cell = Cell::new(head, row.cell.result.clone());
                    }
                }
            }
        }
    }

    /// Undoes or repeats the end of an operation later, if there is such a bug.
    pub(super) fn undo_end(&mut self, id: &OperationId, before: Row) {
        if self.bug.shows(Mutant::EndUndone, 50) {
            self.undone.restore_later(id, before);
        } else if self.bug.shows(Mutant::EndedTwice, 50) {
            let head = self.get(id).map(|row| row.cell.head.clone());
            let head = next_version(&head.unwrap_or_default());
            self.undone.add(LATER, id, Undo::Overwrite(head));
        } else if self.bug.shows(Mutant::ProgressAfterEnd, 50) {
            let head = next_version(&next_version(&before.cell.head));
            self.undone.add(LATER, id, Undo::Overwrite(head));
        }
    }

    /// Undoes a write if the process dies soon, if there is such a bug.
    pub(super) fn undo_if_dead(
        &mut self,
        id: &OperationId,
        before: Option<Row>,
        process: &TaskGroup,
    ) {
        let undo = Undo::RestoreIfDead(before.map(Box::new), process.clone());
        self.undone.add(UNSYNCED, id, undo);
    }
}

/// Returns a head with the next version.
fn next_version(head: &Bytes) -> Bytes {
    edit_number(head, "version", |version| version + 1)
}

/// Changes the first number of this name in a head.
pub(super) fn edit_number(head: &[u8], name: &str, edit: impl Fn(u64) -> u64) -> Bytes {
    let text = String::from_utf8_lossy(head);
    let name = format!("\"{name}\":");
    let Some((start, rest)) = text.split_once(&name) else {
        return Bytes::copy_from_slice(head);
    };
    let end = rest.find(|letter: char| !letter.is_ascii_digit());
    let (number, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let number = number.parse().map_or(0, &edit);
    format!("{start}{name}{number}{rest}").into()
}
