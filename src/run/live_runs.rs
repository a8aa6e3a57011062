//! The live runs of a node.

use std::{hash::BuildHasher, sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use tokio::time::Instant;

use super::run_context::RunContext;
use crate::{
    deadline_lists::{DeadlineLists, ListEntry, ListLinks},
    operation::OperationId,
    slots::{Slot, Slots},
    store::FencingToken,
};

/// A run that is in progress.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) work: Arc<RunContext>,
    /// The time that the run may continue after it was asked to stop.
    pub(super) grace: Duration,
    /// The deadline of the current phase, once the run waits in that phase.
    deadline: Option<Instant>,
    links: ListLinks,
}

impl LiveRun {
    pub(super) fn new(work: Arc<RunContext>, grace: Duration) -> Self {
        Self {
            work,
            grace,
            deadline: None,
            links: ListLinks::NONE,
        }
    }
}

impl ListEntry for LiveRun {
    /// The entries of a list have a deadline.
    type Moment = Option<Instant>;

    fn at(&self) -> Option<Instant> {
        self.deadline
    }

    fn links(&self) -> ListLinks {
        self.links
    }

    fn links_mut(&mut self) -> &mut ListLinks {
        &mut self.links
    }
}

/// The place of a live run, valid until the run is removed.
pub(super) type Ticket = Slot;

/// The live runs, by ticket, by deadline, and by the operation's id and fencing token.
///
/// An id alone does not identify a run: a client may reuse the id of a deleted operation whose
/// handler has not ended yet, and a reclaimed operation may return to this node under a newer
/// token.
#[derive(Debug, Default)]
pub(super) struct LiveRuns {
    runs: Slots<LiveRun>,
    /// The tickets, hashed by id: all runs of one id have the same hash.
    tickets: HashTable<Ticket>,
    hasher: RandomState,
    /// The runs that wait, in the order of their deadlines.
    deadlines: DeadlineLists,
}

impl LiveRuns {
    /// Adds a run. Returns `None` if the run is already there.
    pub(super) fn insert(&mut self, run: LiveRun) -> Option<Ticket> {
        let hash = self.hasher.hash_one(&run.work.id);
        if self.find(hash, &run.work.id, run.work.token()).is_some() {
            return None;
        }
        let ticket = self.runs.insert(run);
        let Self {
            runs,
            tickets,
            hasher,
            ..
        } = self;
        tickets.insert_unique(hash, ticket, |ticket| {
            hasher.hash_one(&runs[*ticket].work.id)
        });
        Some(ticket)
    }

    /// Removes a run.
    pub(super) fn remove(&mut self, ticket: Ticket) {
        self.deadlines.remove(&mut self.runs, ticket);
        let Some(run) = self.runs.remove(ticket) else {
            return;
        };
        let hash = self.hasher.hash_one(&run.work.id);
        if let Ok(found) = self.tickets.find_entry(hash, |other| *other == ticket) {
            found.remove();
        }
    }

    /// Sets the deadline of a run, `span` from now on. Returns whether it is the earliest
    /// deadline with this span.
    pub(super) fn set_deadline(&mut self, ticket: Ticket, at: Instant, span: Duration) -> bool {
        self.deadlines.remove(&mut self.runs, ticket);
        self.runs[ticket].deadline = Some(at);
        self.deadlines.insert(&mut self.runs, ticket, span)
    }

    /// Removes the deadlines up to `now`, and returns their runs and the next deadline.
    pub(super) fn take_overdue(&mut self, now: Instant) -> (Vec<Arc<RunContext>>, Option<Instant>) {
        let mut overdue = Vec::new();
        loop {
            match self.deadlines.first(&self.runs) {
                Some((at, ticket)) if at <= Some(now) => {
                    self.deadlines.remove(&mut self.runs, ticket);
                    overdue.push(Arc::clone(&self.runs[ticket].work));
                }
                next => return (overdue, next.and_then(|(at, _)| at)),
            }
        }
    }

    pub(super) fn get(&self, id: &OperationId, token: FencingToken) -> Option<&LiveRun> {
        self.find(self.hasher.hash_one(id), id, token)
    }

    fn find(&self, hash: u64, id: &OperationId, token: FencingToken) -> Option<&LiveRun> {
        let work = |ticket: &Ticket| &self.runs[*ticket].work;
        let is_it = |ticket: &Ticket| work(ticket).id == *id && work(ticket).token() == token;
        self.runs.get(*self.tickets.find(hash, is_it)?)
    }

    /// Returns the runs of one operation, or of several operations that had the same id one
    /// after another.
    pub(super) fn with_id<'a>(&'a self, id: &'a OperationId) -> impl Iterator<Item = &'a LiveRun> {
        let hash = self.hasher.hash_one(id);
        let runs = self.tickets.iter_hash(hash).map(|it| &self.runs[*it]);
        runs.filter(|run| run.work.id == *id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &LiveRun> {
        self.runs.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(id: &OperationId, token: u64) -> Arc<RunContext> {
        let token = FencingToken::from_number(token);
        Arc::new(RunContext::new(id.clone(), token, 1))
    }

    fn insert(live: &mut LiveRuns, work: &Arc<RunContext>) -> Option<Ticket> {
        live.insert(LiveRun::new(Arc::clone(work), Duration::ZERO))
    }

    #[test]
    fn runs_of_one_id_are_distinguished_by_their_tokens() {
        let id = OperationId::new();
        let (older, newer, same) = (work(&id, 7), work(&id, 8), work(&id, 8));
        let mut live = LiveRuns::default();
        let first = insert(&mut live, &older).unwrap();
        let second = insert(&mut live, &newer).unwrap();
        assert_eq!(insert(&mut live, &same), None, "it is there already");
        assert_eq!(live.with_id(&id).count(), 2);
        live.remove(first);
        assert!(live.get(&id, older.token()).is_none());
        let found = live.get(&id, newer.token()).unwrap();
        assert!(Arc::ptr_eq(&found.work, &newer));
        live.remove(second);
        assert!(live.is_empty());
    }

    #[test]
    fn runs_are_overdue_in_the_order_of_their_deadlines() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(60));
        let begun = Instant::now();
        let mut live = LiveRuns::default();
        let runs: Vec<_> = (0..4)
            .map(|token| work(&OperationId::new(), token))
            .collect();
        let tickets: Vec<_> = runs
            .iter()
            .map(|it| insert(&mut live, it).unwrap())
            .collect();
        assert!(live.set_deadline(tickets[0], begun + long, long));
        assert!(live.set_deadline(tickets[1], begun + short, short));
        assert!(!live.set_deadline(tickets[2], begun + 2 * short, short));
        // A new deadline replaces the one before.
        assert!(live.set_deadline(tickets[0], begun + 3 * short, long));
        let overdue = live.take_overdue(begun);
        assert_eq!(ids(overdue), (Vec::new(), Some(begun + short)));
        live.remove(tickets[2]);
        let overdue = live.take_overdue(begun + 2 * short);
        assert_eq!(
            ids(overdue),
            (vec![runs[1].id.clone()], Some(begun + 3 * short))
        );
        let overdue = live.take_overdue(begun + long);
        assert_eq!(ids(overdue), (vec![runs[0].id.clone()], None));
    }

    fn ids(
        (overdue, next): (Vec<Arc<RunContext>>, Option<Instant>),
    ) -> (Vec<OperationId>, Option<Instant>) {
        (overdue.iter().map(|work| work.id.clone()).collect(), next)
    }
}
