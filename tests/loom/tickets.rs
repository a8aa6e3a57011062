//! The tickets of live runs: a slot is used again as soon as its run has ended.

use std::time::Duration;

use loom::{sync::Arc, thread};
use tokio::time::Instant;

use super::{
    live_runs::{LiveRun, LiveRuns, Ticket},
    model,
    operation::OperationId,
    run_context::RunContext,
    store::FencingToken,
};

const SECOND: Duration = Duration::from_secs(1);

fn work(id: &OperationId, token: u64) -> Arc<RunContext> {
    Arc::new(RunContext {
        id: id.clone(),
        token: FencingToken::from_number(token),
    })
}

fn insert(live: &LiveRuns, work: &Arc<RunContext>) -> Option<Ticket> {
    live.insert(LiveRun::new(Arc::clone(work), Duration::ZERO))
}

fn tokens(works: &[Arc<RunContext>]) -> Vec<u64> {
    works.iter().map(|work| work.token().get()).collect()
}

/// A cancel and the sweep look for a run while it ends, and while its slot goes to a run of the
/// same id.
#[test]
fn a_run_in_a_used_slot_hears_nothing_of_the_run_before() {
    let (id, now) = (OperationId::new(), Instant::now());
    model(move || {
        let (older, newer) = (work(&id, 7), work(&id, 8));
        let live = Arc::new(LiveRuns::default());
        let ticket = insert(&live, &older).unwrap();
        live.set_deadline(ticket, now, SECOND);
        let cancel = {
            let (live, older) = (Arc::clone(&live), Arc::clone(&older));
            thread::spawn(move || live.get(&older.id, older.token()))
        };
        let sweep = {
            let live = Arc::clone(&live);
            thread::spawn(move || live.sweep(now).0)
        };
        live.remove(ticket);
        assert_eq!(
            insert(&live, &newer),
            Some(ticket),
            "the slot is used again"
        );
        let canceled = cancel.join().unwrap();
        assert_eq!(canceled.map_or(7, |work| work.token().get()), 7);
        let overdue = tokens(&sweep.join().unwrap());
        assert!(overdue.is_empty() || overdue == [7], "{overdue:?}");
        assert_eq!(tokens(&live.with_id(&newer.id)), [8]);
        let (overdue, next) = live.sweep(now + SECOND);
        assert!(overdue.is_empty() && next.is_none());
    });
}

/// A run sets a deadline while two sweeps look.
#[test]
fn a_deadline_is_taken_once() {
    let (id, now) = (OperationId::new(), Instant::now());
    model(move || {
        let run = work(&id, 7);
        let live = Arc::new(LiveRuns::default());
        let ticket = insert(&live, &run).unwrap();
        let sweeps = [(); 2].map(|()| {
            let live = Arc::clone(&live);
            thread::spawn(move || live.sweep(now).0)
        });
        live.set_deadline(ticket, now, SECOND);
        let mut overdue = Vec::new();
        for sweep in sweeps {
            overdue.extend(tokens(&sweep.join().unwrap()));
        }
        overdue.extend(tokens(&live.sweep(now).0));
        assert_eq!(overdue, [7]);
        live.remove(ticket);
        assert!(live.is_empty());
    });
}

/// A client creates an operation while a recovery reclaims one of the same id.
#[test]
fn one_of_two_equal_runs_is_live() {
    let id = OperationId::new();
    model(move || {
        let live = Arc::new(LiveRuns::default());
        let other = {
            let (live, run) = (Arc::clone(&live), work(&id, 7));
            thread::spawn(move || insert(&live, &run))
        };
        let mine = insert(&live, &work(&id, 7));
        let tickets: Vec<_> = mine.into_iter().chain(other.join().unwrap()).collect();
        assert_eq!(tickets.len(), 1);
        live.remove(tickets[0]);
        assert!(live.is_empty() && live.get(&id, FencingToken::from_number(7)).is_none());
    });
}

#[test]
fn runs_of_one_id_are_distinguished_by_their_tokens() {
    model(|| {
        let id = OperationId::new();
        let (older, newer, same) = (work(&id, 7), work(&id, 8), work(&id, 8));
        let live = LiveRuns::default();
        let first = insert(&live, &older).unwrap();
        let second = insert(&live, &newer).unwrap();
        assert_eq!(insert(&live, &same), None, "it is there already");
        assert_eq!(live.with_id(&id).len(), 2);
        live.remove(first);
        assert!(live.get(&id, older.token()).is_none());
        let found = live.get(&id, newer.token()).unwrap();
        assert_eq!(found.token(), newer.token());
        live.remove(second);
        assert!(live.is_empty());
    });
}

#[test]
fn runs_are_overdue_in_the_order_of_their_deadlines() {
    model(|| {
        let (short, long) = (SECOND, 60 * SECOND);
        let begun = Instant::now();
        let live = LiveRuns::default();
        let runs: Vec<_> = (0..4)
            .map(|token| work(&OperationId::new(), token))
            .collect();
        let tickets: Vec<_> = runs.iter().map(|it| insert(&live, it).unwrap()).collect();
        live.set_deadline(tickets[0], begun + long, long);
        live.set_deadline(tickets[1], begun + short, short);
        live.set_deadline(tickets[2], begun + 2 * short, short);
        // A new deadline replaces the one before.
        live.set_deadline(tickets[0], begun + 3 * short, long);
        let swept = |at| {
            let (overdue, next) = live.sweep(at);
            (tokens(&overdue), next)
        };
        assert_eq!(swept(begun), (Vec::new(), Some(begun + short)));
        live.remove(tickets[2]);
        assert_eq!(swept(begun + 2 * short), (vec![1], Some(begun + 3 * short)));
        assert_eq!(swept(begun + long), (vec![0], None));
    });
}
