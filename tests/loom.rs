//! The wait/notify cell under a model checker: every interleaving of its locks
//! and wakers, within loom's bounds.
//!
//! The file under test is compiled a second time here, over loom's `Arc` and
//! `Mutex`; nothing else of the crate needs to know of loom.

#![allow(dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::{Arc, Mutex};
}

#[path = "../src/store/wait.rs"]
mod wait;

use std::{
    future::Future,
    sync::atomic::Ordering::SeqCst,
    task::{Context, Waker},
};

use loom::{
    future::block_on,
    sync::{Arc, atomic::AtomicUsize},
    thread,
};
use wait::{WaitCell, Waiter};

/// Three threads have more interleavings than can be walked; a lost wake-up
/// needs one switch at the wrong place, and here up to two are tried at every.
fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
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
