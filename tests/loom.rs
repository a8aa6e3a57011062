//! The wait/notify cell, the gate built on it, the table of keys and the live runs, under a
//! model checker: every interleaving of their locks and wakers, within loom's bounds.
//!
//! The files under test are compiled again here, over loom's `Arc` and `Mutex`. The
//! rest of the crate does not depend on loom.

#![allow(dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64};

    /// Equal in every execution: the order in which shards are locked is part of a schedule.
    pub(crate) type RandomState = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

    pub(crate) fn random_hasher() -> RandomState {
        RandomState::default()
    }
}

#[path = "../src/store/wait.rs"]
mod wait;

#[path = "../src/run/race/gate.rs"]
mod gate;

#[path = "../src/run/signals.rs"]
mod signals;

#[path = "../src/run/sweep_timer.rs"]
mod sweep_timer;

#[path = "../src/store/memory/keyring.rs"]
mod keyring;

#[path = "../src/slots.rs"]
mod slots;

#[path = "../src/deadline_lists.rs"]
mod deadline_lists;

#[path = "../src/run/live_runs.rs"]
mod live_runs;

#[path = "loom/tickets.rs"]
mod tickets;

mod operation {
    pub(crate) use tower_operations::OperationId;
}

mod store {
    pub(crate) use tower_operations::store::FencingToken;
}

/// The part of a run's context that the live runs need.
mod run_context {
    use super::{operation::OperationId, store::FencingToken};

    #[derive(Debug)]
    pub(crate) struct RunContext {
        pub(crate) id: OperationId,
        pub(crate) token: FencingToken,
    }

    impl RunContext {
        pub(crate) fn token(&self) -> FencingToken {
            self.token
        }
    }
}

/// The part of the store's clock that keys need.
mod shard {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Tick(pub(crate) u64);

    impl Tick {
        pub(crate) const NEVER: Self = Self(u64::MAX);
    }
}

/// The part of the store's usage counters that keys need.
mod limits {
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[derive(Debug, Default)]
    pub(crate) struct Usage {
        pub(crate) keys: AtomicUsize,
    }

    impl Usage {
        pub(crate) fn has_keys(&self) -> bool {
            self.keys.load(SeqCst) > 0
        }

        pub(crate) fn add_key(&self) {
            self.keys.fetch_add(1, SeqCst);
        }

        pub(crate) fn remove_key(&self) {
            self.keys.fetch_sub(1, SeqCst);
        }

        pub(crate) fn resize(&self, _before: usize, _after: usize) {}
    }
}

use std::{
    future::Future,
    sync::atomic::Ordering::SeqCst,
    task::{Context, Waker},
    time::Duration,
};

use gate::{AcceptDenied, AfterReturn, Gate};
use keyring::{KeyTable, Keyed};
use limits::Usage;
use loom::{
    future::block_on,
    sync::{Arc, atomic::AtomicUsize},
    thread,
};
use shard::Tick;
use signals::{RunSignals, StopCause};
use sweep_timer::SweepTimer;
use wait::{WaitCell, Waiter};

/// Checks with at most two switches at any place. Three threads have more
/// interleavings than can be explored, and a lost wake-up needs only one switch at
/// the wrong place.
fn model(test: impl Fn() + Send + Sync + 'static) {
    model_with(2, test);
}

fn model_with(switches: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(test);
}

/// Waits for `version` to leave `since`, in the order that the stores use:
/// subscribe, check, sleep.
async fn wait_for_change(cell: &Arc<WaitCell>, version: &AtomicUsize, since: usize) -> usize {
    loop {
        let waiter = Waiter::new(cell);
        let now = version.load(SeqCst);
        if now != since {
            return now;
        }
        waiter.await;
    }
}

#[test]
fn a_change_is_never_missed() {
    model(|| {
        let cell = Arc::new(WaitCell::default());
        let version = Arc::new(AtomicUsize::new(0));
        let writer = thread::spawn({
            let (cell, version) = (cell.clone(), version.clone());
            move || {
                version.store(1, SeqCst);
                cell.notify();
            }
        });
        // Blocks for ever, which loom reports, if the notification is lost.
        assert_eq!(block_on(wait_for_change(&cell, &version, 0)), 1);
        writer.join().unwrap();
        assert_eq!(cell.sleeping(), 0);
    });
}

#[test]
fn two_writers_wake_two_waiters() {
    model(|| {
        let cell = Arc::new(WaitCell::default());
        let version = Arc::new(AtomicUsize::new(0));
        let waiter = thread::spawn({
            let (cell, version) = (cell.clone(), version.clone());
            move || block_on(wait_for_change(&cell, &version, 0))
        });
        let writer = thread::spawn({
            let (cell, version) = (cell.clone(), version.clone());
            move || {
                version.fetch_add(1, SeqCst);
                cell.notify();
            }
        });
        assert!(block_on(wait_for_change(&cell, &version, 0)) >= 1);
        assert!(waiter.join().unwrap() >= 1);
        writer.join().unwrap();
        assert_eq!(cell.sleeping(), 0);
    });
}

#[test]
fn a_dropped_waiter_does_not_affect_other_waiters() {
    model(|| {
        let cell = Arc::new(WaitCell::default());
        let version = Arc::new(AtomicUsize::new(0));
        // This waiter sleeps until the first notification, and is dropped at any moment.
        let mut dropped_waiter = Box::pin(Waiter::new(&cell));
        let mut context = Context::from_waker(Waker::noop());
        assert!(dropped_waiter.as_mut().poll(&mut context).is_pending());
        let writer = thread::spawn({
            let (cell, version) = (cell.clone(), version.clone());
            move || {
                for now in 1..=2 {
                    version.store(now, SeqCst);
                    cell.notify();
                }
            }
        });
        let dropper = thread::spawn(move || drop(dropped_waiter));
        let mut current = 0;
        while current < 2 {
            current = block_on(wait_for_change(&cell, &version, current));
        }
        dropper.join().unwrap();
        writer.join().unwrap();
        assert_eq!(cell.sleeping(), 0);
    });
}

#[test]
fn an_unpolled_waiter_is_woken_by_a_notification() {
    model(|| {
        let cell = Arc::new(WaitCell::default());
        let waiter = Waiter::new(&cell);
        let writer = thread::spawn({
            let cell = cell.clone();
            move || cell.notify()
        });
        block_on(waiter);
        writer.join().unwrap();
    });
}

/// Runs the steps of a call's task after the call has returned. The task performs
/// the requested creates, which succeed or not, and then answers if it may.
/// Returns whether it answered, and the results of the creates.
fn conclude(gate: &Gate, succeeds: impl Fn(usize) -> bool) -> (bool, Vec<bool>) {
    let mut continues = Vec::new();
    loop {
        match gate.try_answer() {
            AfterReturn::Answer => return (true, continues),
            AfterReturn::Nobody => return (false, continues),
            AfterReturn::Create => {
                let succeeded = succeeds(continues.len());
                continues.push(gate.created(succeeded));
                if succeeded || !continues[continues.len() - 1] {
                    return (false, continues);
                }
            }
        }
    }
}

/// A handler that signals, in a thread of its own.
fn spawn_accept(gate: &Arc<Gate>) -> thread::JoinHandle<Result<(), AcceptDenied>> {
    let gate = gate.clone();
    thread::spawn(move || block_on(gate.accept()))
}

/// A client that disconnects, in a thread of its own.
fn spawn_leave(gate: &Arc<Gate>) -> thread::JoinHandle<bool> {
    let gate = gate.clone();
    thread::spawn(move || gate.client_left())
}

#[test]
fn one_of_signal_return_and_disconnect_wins() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let (signal, client) = (spawn_accept(&gate), spawn_leave(&gate));
        let (answered, created) = conclude(&gate, |_| true);
        let (signaled, dropped) = (signal.join().unwrap(), client.join().unwrap());
        let accepted = !created.is_empty();
        let winners = [answered, dropped, accepted];
        assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{winners:?}");
        // A created operation continues even if the client has left.
        assert!(created.iter().all(|continues| *continues));
        match accepted {
            true => assert_eq!(signaled, Ok(())),
            false => assert_eq!(signaled, Err(AcceptDenied::TooLate)),
        }
    });
}

#[test]
fn one_of_timer_return_and_disconnect_wins() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let timer = thread::spawn({
            let gate = gate.clone();
            move || gate.request_creation()
        });
        let client = spawn_leave(&gate);
        let (answered, created) = conclude(&gate, |_| true);
        timer.join().unwrap();
        let winners = [answered, client.join().unwrap(), !created.is_empty()];
        assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{winners:?}");
    });
}

#[test]
fn a_signal_and_a_timer_request_one_create_and_wake_the_task() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let signal = spawn_accept(&gate);
        let timer = thread::spawn({
            let gate = gate.clone();
            move || gate.request_creation()
        });
        // Blocks for ever, which loom reports, if neither wakes the task.
        block_on(gate.creation_requested());
        assert!(gate.created(true));
        assert_eq!(signal.join().unwrap(), Ok(()));
        timer.join().unwrap();
        assert_eq!(gate.try_answer(), AfterReturn::Nobody);
        assert!(!gate.client_left());
        // A further signal is already accepted.
        assert_eq!(block_on(gate.accept()), Ok(()));
    });
}

#[test]
fn every_signal_is_answered_when_the_create_fails() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let signals = [spawn_accept(&gate), spawn_accept(&gate)];
        let (answered, continues) = conclude(&gate, |_| false);
        // The call is held again, and its own answer is sent.
        assert!(answered && continues.iter().all(|continues| *continues));
        for signal in signals {
            let denied = signal.join().unwrap().unwrap_err();
            assert!(denied == AcceptDenied::TooLate || !continues.is_empty());
        }
    });
}

#[test]
fn a_signal_gets_the_result_of_its_create() {
    model_with(4, || {
        let gate = Arc::new(Gate::new());
        gate.request_creation();
        let signal = spawn_accept(&gate);
        assert!(gate.created(false));
        // A signal before the failure is denied. A later one requests another create.
        let (answered, created) = conclude(&gate, |_| true);
        let signaled = signal.join().unwrap();
        match answered {
            true => assert!(signaled.is_err()),
            false => assert_eq!((created, signaled), (vec![true], Ok(()))),
        }
    });
}

#[test]
fn a_signal_gets_a_failure_before_the_call_returns() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let signal = spawn_accept(&gate);
        block_on(gate.creation_requested());
        assert!(gate.created(false));
        assert_eq!(signal.join().unwrap(), Err(AcceptDenied::Failed));
        assert_eq!(gate.try_answer(), AfterReturn::Answer);
    });
}

#[test]
fn a_call_is_dropped_once_if_its_client_leaves_during_a_failing_create() {
    model(|| {
        let gate = Arc::new(Gate::new());
        gate.request_creation();
        let client = spawn_leave(&gate);
        // The call is held again and dropped from there, unless the client has left
        // before.
        let continues = gate.created(false);
        assert_eq!(client.join().unwrap(), continues);
        assert_eq!(gate.try_answer(), AfterReturn::Nobody);
    });
}

#[test]
fn a_client_that_leaves_during_a_successful_create_drops_nothing() {
    model(|| {
        let gate = Arc::new(Gate::new());
        gate.request_creation();
        let client = spawn_leave(&gate);
        assert!(gate.created(true));
        assert!(!client.join().unwrap());
        assert_eq!(gate.try_answer(), AfterReturn::Nobody);
    });
}

/// The entry of a key. A past entry may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TestEntry {
    is_past: bool,
    deadline: u64,
}

impl Keyed<&'static str> for TestEntry {
    fn deadline(&self) -> Tick {
        Tick(self.deadline)
    }

    fn may_go(&self, _: Tick, _: Duration) -> bool {
        self.is_past
    }

    fn weight(&self) -> usize {
        1
    }

    fn enter(&self, _: &&'static str, _: &Usage) {}

    fn leave(&self, _: &&'static str, _: &Usage) {}
}

const NOW: Tick = Tick(1);

/// A table with one key, `"key"`, whose entry is past.
fn one_past_key() -> (Arc<KeyTable<&'static str, TestEntry>>, Arc<Usage>) {
    let (table, room) = (Arc::new(KeyTable::new(1)), Arc::new(Usage::default()));
    let past = TestEntry {
        is_past: true,
        deadline: 5,
    };
    table.lock(0).put(&"key", past, 0, &room);
    (table, room)
}

/// A thread that evicts a key to make room.
fn spawn_evict(
    (table, room): &(Arc<KeyTable<&'static str, TestEntry>>, Arc<Usage>),
) -> thread::JoinHandle<bool> {
    let (table, room) = (table.clone(), room.clone());
    thread::spawn(move || table.evict(NOW, Duration::ZERO, &room))
}

#[test]
fn a_key_reserved_again_is_not_evicted() {
    for deadline in [5, 9] {
        model(move || {
            let keys = one_past_key();
            let evictor = spawn_evict(&keys);
            let reserved = TestEntry {
                is_past: false,
                deadline,
            };
            keys.0.lock(0).put(&"key", reserved, 0, &keys.1);
            evictor.join().unwrap();
            assert_eq!(keys.0.lock(0).get(&"key"), Some(&reserved));
            assert_eq!(keys.1.keys.load(SeqCst), 1);
        });
    }
}

#[test]
fn two_evictions_remove_one_key_each() {
    model(|| {
        let keys = one_past_key();
        let past = TestEntry {
            is_past: true,
            deadline: 6,
        };
        keys.0.lock(0).put(&"another", past, 0, &keys.1);
        let evictor = spawn_evict(&keys);
        assert!(keys.0.evict(NOW, Duration::ZERO, &keys.1));
        assert!(evictor.join().unwrap());
        assert_eq!(keys.1.keys.load(SeqCst), 0);
    });
}

/// The sweep tells a run that its deadline is over, while the run looks at its signals.
#[test]
fn a_signal_after_a_look_wakes_the_run() {
    model(|| {
        let signals = Arc::new(RunSignals::<u32>::new());
        let sweep = {
            let signals = Arc::clone(&signals);
            thread::spawn(move || signals.overdue())
        };
        block_on(std::future::poll_fn(|context| {
            match signals.look(context).is_overdue {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        }));
        sweep.join().unwrap();
    });
}

/// Two reports race with a stop. The writer sees the last report, and then the stop.
#[test]
fn no_report_and_no_stop_is_missed() {
    model(|| {
        let signals = Arc::new(RunSignals::new());
        let threads = [1, 2].map(|number| {
            let signals = Arc::clone(&signals);
            thread::spawn(move || match number {
                1 => {
                    signals.report(1);
                    signals.report(2);
                }
                _ => signals.stop(StopCause::Interrupted),
            })
        });
        block_on(async {
            loop {
                let Some((progress, number)) = signals.next_report().await else {
                    unreachable!("the heartbeat is not lost");
                };
                signals.report_written(number);
                if progress == 2 {
                    break;
                }
            }
            assert_eq!(signals.stopped().await, StopCause::Interrupted);
        });
        assert!(!signals.raised().has_report);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// A deadline is set while the sweep looks at the deadlines, and goes to sleep for long.
#[test]
fn a_deadline_that_a_look_misses_ends_the_sleep() {
    model(|| {
        let timer = Arc::new(SweepTimer::new());
        let deadlines = Arc::new(loom::sync::Mutex::new(Vec::new()));
        let run = {
            let (timer, deadlines) = (Arc::clone(&timer), Arc::clone(&deadlines));
            thread::spawn(move || {
                deadlines.lock().unwrap().push(5);
                timer.deadline_set(5);
            })
        };
        loop {
            let earlier = timer.begin();
            let next = deadlines.lock().unwrap().first().copied();
            timer.sleep_until(next.unwrap_or(100));
            match next {
                Some(_) => break,
                // Blocks for ever, which loom reports, if the deadline is missed.
                None => block_on(earlier),
            }
        }
        run.join().unwrap();
    });
}
