//! The wait/notify cell, the gate that is made of it, and the table of keys, under a
//! model checker: every interleaving of their locks and wakers, within loom's bounds.
//!
//! The files under test are compiled a second time here, over loom's `Arc` and
//! `Mutex`; nothing else of the crate needs to know of loom.

#![allow(dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
}

#[path = "../src/store/wait.rs"]
mod wait;

#[path = "../src/run/gate.rs"]
mod gate;

#[path = "../src/store/memory/keyring.rs"]
mod keyring;

/// As much of the store's clock as keys need.
mod shard {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Tick(pub(crate) u64);

    impl Tick {
        pub(crate) const NEVER: Self = Self(u64::MAX);
    }
}

/// As much of the store's room as keys need.
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
use wait::{WaitCell, Waiter};

/// Three threads have more interleavings than can be walked; a lost wake-up
/// needs one switch at the wrong place, and here up to two are tried at every.
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
async fn changed(cell: &Arc<WaitCell>, version: &AtomicUsize, since: usize) -> usize {
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
fn no_change_is_missed() {
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
        assert_eq!(block_on(changed(&cell, &version, 0)), 1);
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
            move || block_on(changed(&cell, &version, 0))
        });
        let writer = thread::spawn({
            let (cell, version) = (cell.clone(), version.clone());
            move || {
                version.fetch_add(1, SeqCst);
                cell.notify();
            }
        });
        assert!(block_on(changed(&cell, &version, 0)) >= 1);
        assert!(waiter.join().unwrap() >= 1);
        writer.join().unwrap();
        assert_eq!(cell.sleeping(), 0);
    });
}

#[test]
fn a_waiter_that_gives_up_takes_no_other_one_s_place() {
    model(|| {
        let cell = Arc::new(WaitCell::default());
        let version = Arc::new(AtomicUsize::new(0));
        // Asleep until the first notification, and dropped at any moment.
        let mut quitter = Box::pin(Waiter::new(&cell));
        let mut context = Context::from_waker(Waker::noop());
        assert!(quitter.as_mut().poll(&mut context).is_pending());
        let writer = thread::spawn({
            let (cell, version) = (cell.clone(), version.clone());
            move || {
                for now in 1..=2 {
                    version.store(now, SeqCst);
                    cell.notify();
                }
            }
        });
        let quitting = thread::spawn(move || drop(quitter));
        let mut seen = 0;
        while seen < 2 {
            seen = block_on(changed(&cell, &version, seen));
        }
        quitting.join().unwrap();
        writer.join().unwrap();
        assert_eq!(cell.sleeping(), 0);
    });
}

#[test]
fn a_waiter_made_before_a_notification_is_ready_though_never_polled() {
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

/// What the task that holds a call does once the call has returned: it sees to
/// the creation that somebody asked for, which succeeds or not, and then answers
/// if it may. Says whether it answered, and how creating came out.
fn conclude(gate: &Gate, succeeds: impl Fn(usize) -> bool) -> (bool, Vec<bool>) {
    let mut goes_on = Vec::new();
    loop {
        match gate.returned() {
            AfterReturn::Answer => return (true, goes_on),
            AfterReturn::Nobody => return (false, goes_on),
            AfterReturn::Create => {
                let succeeded = succeeds(goes_on.len());
                goes_on.push(gate.created(succeeded));
                if succeeded || !goes_on[goes_on.len() - 1] {
                    return (false, goes_on);
                }
            }
        }
    }
}

/// A handler that signals, in a task of its own.
fn accepting(gate: &Arc<Gate>) -> thread::JoinHandle<Result<(), AcceptDenied>> {
    let gate = gate.clone();
    thread::spawn(move || block_on(gate.accept()))
}

/// A client that hangs up.
fn leaving(gate: &Arc<Gate>) -> thread::JoinHandle<bool> {
    let gate = gate.clone();
    thread::spawn(move || gate.leave())
}

#[test]
fn of_a_signal_a_return_and_a_hang_up_exactly_one_wins() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let (signal, client) = (accepting(&gate), leaving(&gate));
        let (answered, created) = conclude(&gate, |_| true);
        let (signaled, dropped) = (signal.join().unwrap(), client.join().unwrap());
        let accepted = !created.is_empty();
        let winners = [answered, dropped, accepted];
        assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{winners:?}");
        // An operation that was created goes on, whoever has left.
        assert!(created.iter().all(|goes_on| *goes_on));
        match accepted {
            true => assert_eq!(signaled, Ok(())),
            false => assert_eq!(signaled, Err(AcceptDenied::TooLate)),
        }
    });
}

#[test]
fn of_a_timer_a_return_and_a_hang_up_exactly_one_wins() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let timer = thread::spawn({
            let gate = gate.clone();
            move || gate.ask()
        });
        let client = leaving(&gate);
        let (answered, created) = conclude(&gate, |_| true);
        timer.join().unwrap();
        let winners = [answered, client.join().unwrap(), !created.is_empty()];
        assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{winners:?}");
    });
}

#[test]
fn a_signal_and_a_timer_ask_for_one_creation_and_wake_the_task() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let signal = accepting(&gate);
        let timer = thread::spawn({
            let gate = gate.clone();
            move || gate.ask()
        });
        // Blocks for ever, which loom reports, if neither wakes it.
        block_on(gate.asked());
        assert!(gate.created(true));
        assert_eq!(signal.join().unwrap(), Ok(()));
        timer.join().unwrap();
        assert_eq!(gate.returned(), AfterReturn::Nobody);
        assert!(!gate.leave());
        // Whoever signals once more is accepted already.
        assert_eq!(block_on(gate.accept()), Ok(()));
    });
}

#[test]
fn every_signal_is_answered_when_creating_fails() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let signals = [accepting(&gate), accepting(&gate)];
        let (answered, goes_on) = conclude(&gate, |_| false);
        // Back where it was: the call's own answer goes out.
        assert!(answered && goes_on.iter().all(|goes_on| *goes_on));
        for signal in signals {
            let denied = signal.join().unwrap().unwrap_err();
            assert!(denied == AcceptDenied::TooLate || !goes_on.is_empty());
        }
    });
}

#[test]
fn a_signal_is_told_what_became_of_the_creation_it_asked_for() {
    model_with(4, || {
        let gate = Arc::new(Gate::new());
        gate.ask();
        let signal = accepting(&gate);
        assert!(gate.created(false));
        // The signal came before the failure, and is told so, or asks again.
        let (answered, created) = conclude(&gate, |_| true);
        let signaled = signal.join().unwrap();
        match answered {
            true => assert!(signaled.is_err()),
            false => assert_eq!((created, signaled), (vec![true], Ok(()))),
        }
    });
}

#[test]
fn a_signal_hears_of_a_failure_before_the_call_has_returned() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let signal = accepting(&gate);
        block_on(gate.asked());
        assert!(gate.created(false));
        assert_eq!(signal.join().unwrap(), Err(AcceptDenied::Failed));
        assert_eq!(gate.returned(), AfterReturn::Answer);
    });
}

#[test]
fn a_call_is_dropped_once_if_its_client_leaves_while_creating_fails() {
    model(|| {
        let gate = Arc::new(Gate::new());
        gate.ask();
        let client = leaving(&gate);
        // It goes back to being held, and is dropped from there, unless the
        // client has left before.
        let goes_on = gate.created(false);
        assert_eq!(client.join().unwrap(), goes_on);
        assert_eq!(gate.returned(), AfterReturn::Nobody);
    });
}

#[test]
fn a_client_that_leaves_while_creating_succeeds_drops_nothing() {
    model(|| {
        let gate = Arc::new(Gate::new());
        gate.ask();
        let client = leaving(&gate);
        assert!(gate.created(true));
        assert!(!client.join().unwrap());
        assert_eq!(gate.returned(), AfterReturn::Nobody);
    });
}

/// What a key stands for: something past, which may go, or something that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    is_past: bool,
    deadline: u64,
}

impl Keyed<&'static str> for Bound {
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

/// A table with one key, `"key"`, that stands for something past.
fn one_past_key() -> (Arc<KeyTable<&'static str, Bound>>, Arc<Usage>) {
    let (table, room) = (Arc::new(KeyTable::new(1)), Arc::new(Usage::default()));
    let past = Bound {
        is_past: true,
        deadline: 5,
    };
    table.lock(0).put(&"key", past, 0, &room);
    (table, room)
}

/// A thread that makes room by removing a key.
fn evicting(
    (table, room): &(Arc<KeyTable<&'static str, Bound>>, Arc<Usage>),
) -> thread::JoinHandle<bool> {
    let (table, room) = (table.clone(), room.clone());
    thread::spawn(move || table.evict(NOW, Duration::ZERO, &room))
}

#[test]
fn a_key_that_is_reserved_anew_is_not_removed_to_make_room() {
    for deadline in [5, 9] {
        model(move || {
            let keys = one_past_key();
            let evictor = evicting(&keys);
            let reserved = Bound {
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
fn two_that_make_room_remove_a_key_each() {
    model(|| {
        let keys = one_past_key();
        let past = Bound {
            is_past: true,
            deadline: 6,
        };
        keys.0.lock(0).put(&"another", past, 0, &keys.1);
        let evictor = evicting(&keys);
        assert!(keys.0.evict(NOW, Duration::ZERO, &keys.1));
        assert!(evictor.join().unwrap());
        assert_eq!(keys.1.keys.load(SeqCst), 0);
    });
}
