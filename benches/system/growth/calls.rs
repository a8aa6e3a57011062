//! What is called, and how long one call takes.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use tower_operations::{
    OperationId, Outcome,
    store::{LeaseHandle, ListQuery},
};

use super::load::{Load, Loaded, Whole, created, lease, lister, started, success, version};

/// In the order of the rows.
pub(crate) const CALLS: [&str; 11] = [
    "create",
    "start",
    "finish",
    "get",
    "changed, until a waiter knows",
    "force_finish (cancel)",
    "renew, 1 held",
    "renew, 100 held",
    "reclaim, nothing to reclaim",
    "list, a page of 100",
    "purge, nothing to remove",
];

/// The median of each, in nanoseconds.
pub(crate) async fn times<S: Whole>(store: &S, loaded: &Loaded, load: Load) -> Vec<f64> {
    let mut times = vec![Vec::new(); CALLS.len()];
    let mut held = Vec::new();
    for number in 0..load.calls {
        let mut note = |call: usize, since: Instant| {
            times[call].push(since.elapsed().as_nanos() as f64);
        };
        let since = Instant::now();
        let (id, token) = created(store, None).await;
        note(0, since);

        let since = Instant::now();
        store.start(&id, token).await.expect("an answer");
        note(1, since);

        let outcome = success(load.result);
        let since = Instant::now();
        black_box(store.finish(&id, token, outcome, None).await).expect("an answer");
        note(2, since);

        let id = &loaded.ended[number.wrapping_mul(7_919) % loaded.ended.len()].0;
        let since = Instant::now();
        black_box(store.get(id).await).expect("an answer");
        note(3, since);

        // The rest is dearer, or is like the above.
        if number % 10 == 0 {
            note(4, woken(store).await);

            let (id, _) = started(store, None).await;
            let version = version(store, &id).await;
            let since = Instant::now();
            let canceled = store.force_finish(&id, version, Outcome::Canceled).await;
            canceled.expect("an answer");
            note(5, since);
        }
    }
    for _ in 0..100 {
        let (id, token) = started(store, None).await;
        held.push(LeaseHandle::new(id, token));
    }
    for _ in 0..load.calls / 5 {
        let mut note = |call: usize, since: Instant| {
            times[call].push(since.elapsed().as_nanos() as f64);
        };
        for (call, held) in [(6, &held[..1]), (7, &held[..])] {
            let since = Instant::now();
            let lost = store.renew(&lease(), held).await.expect("an answer");
            note(call, since);
            assert!(lost.is_empty(), "nobody took them");
        }
        let since = Instant::now();
        let taken = store.reclaim(&lease(), 100).await.expect("an answer");
        note(8, since);
        assert!(taken.is_empty(), "all are held");

        let since = Instant::now();
        let page = store.list(&ListQuery::new(lister(), 100)).await;
        note(9, since);
        assert_eq!(page.expect("an answer").records.len(), 100);

        let since = Instant::now();
        let purged = store.purge(100).await.expect("an answer");
        note(10, since);
        assert_eq!(purged, 0, "nothing has expired");
    }
    times.into_iter().map(median).collect()
}

/// From when an operation is about to be canceled until who waits for it knows; by
/// when that began.
async fn woken<S: Whole>(store: &S) -> Instant {
    let (id, _) = started(store, None).await;
    let seen = version(store, &id).await;
    let waiting = {
        let (store, id): (S, OperationId) = (store.clone(), id.clone());
        tokio::spawn(async move { store.changed(&id, seen, Duration::from_secs(60)).await })
    };
    // Until it waits, most likely: otherwise it has less to do.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let since = Instant::now();
    let canceled = store.force_finish(&id, seen, Outcome::Canceled).await;
    canceled.expect("an answer");
    let changed = waiting.await.expect("no panic").expect("an answer");
    let record = changed.expect("it is there");
    assert!(record.operation().state().is_terminal());
    since
}

pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
