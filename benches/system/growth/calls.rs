//! The calls, and the duration of each.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use tower_operations::{
    OperationId, Outcome,
    store::{LeaseHandle, ListQuery, Reader},
};

use super::load::{FullStore, Load, Loaded, create_one, lease, lister, stamp, start_one, success};

/// The names of the calls in the order of the rows.
pub(crate) const CALLS: [&str; 13] = [
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
    "get, without the body",
    "list, a page of 100, without bodies",
    "purge, nothing to remove",
];

/// Measures the median duration of each call, in nanoseconds.
pub(crate) async fn times<S: FullStore>(store: &S, loaded: &Loaded, load: Load) -> Vec<f64> {
    let mut times = vec![Vec::new(); CALLS.len()];
    let mut held = Vec::new();
    for number in 0..load.calls {
        let mut record = |call: usize, since: Instant| {
            times[call].push(since.elapsed().as_nanos() as f64);
        };
        let since = Instant::now();
        let (id, token) = create_one(store, None).await;
        record(0, since);

        let since = Instant::now();
        store.start(&id, token).await.expect("an answer");
        record(1, since);

        let outcome = success(load.result);
        let since = Instant::now();
        black_box(store.finish(&id, token, outcome, None).await).expect("an answer");
        record(2, since);

        let id = &loaded.ended[number.wrapping_mul(7_919) % loaded.ended.len()].0;
        let since = Instant::now();
        black_box(store.get(id).await).expect("an answer");
        record(3, since);

        // The other calls are expensive, or similar to the calls above.
        if number % 10 == 0 {
            record(4, cancel_and_wake(store).await);

            let (id, _) = start_one(store, None).await;
            let stamp = stamp(store, &id).await;
            let since = Instant::now();
            let canceled = store.force_finish(&id, stamp, Outcome::Canceled).await;
            canceled.expect("an answer");
            record(5, since);
        }
    }
    for _ in 0..100 {
        let (id, token) = start_one(store, None).await;
        held.push(LeaseHandle::new(id, token));
    }
    let owner = lister();
    for number in 0..load.calls / 5 {
        let mut record = |call: usize, since: Instant| {
            times[call].push(since.elapsed().as_nanos() as f64);
        };
        for (call, held) in [(6, &held[..1]), (7, &held[..])] {
            let since = Instant::now();
            let lost = store.renew(&lease(), held).await.expect("an answer");
            record(call, since);
            assert!(lost.is_empty(), "the leases are held");
        }
        let since = Instant::now();
        let reclaimed = store.reclaim(&lease(), 100).await.expect("an answer");
        record(8, since);
        assert!(reclaimed.is_empty(), "the leases are held");

        let since = Instant::now();
        let page = store.list(&ListQuery::new(lister(), 100)).await;
        record(9, since);
        assert_eq!(page.expect("an answer").records.len(), 100);

        let id = &loaded.ended[number.wrapping_mul(7_919) % loaded.ended.len()].0;
        let since = Instant::now();
        let found = store.get_for(id, Reader::new(owner.as_ref()).with_max_body(0));
        black_box(found.await).expect("an answer");
        record(10, since);

        let since = Instant::now();
        let query = ListQuery::new(owner.clone(), 100).with_max_body(0);
        let page = store.list(&query).await;
        record(11, since);
        assert_eq!(page.expect("an answer").records.len(), 100);

        let since = Instant::now();
        let purged = store.purge(100).await.expect("an answer");
        record(12, since);
        assert_eq!(purged, 0, "nothing has expired");
    }
    times.into_iter().map(median).collect()
}

/// Cancels an operation, waits until its waiter has seen the change, and returns the time of
/// the cancel.
async fn cancel_and_wake<S: FullStore>(store: &S) -> Instant {
    let (id, _) = start_one(store, None).await;
    let known = stamp(store, &id).await;
    let waiting = {
        let (store, id): (S, OperationId) = (store.clone(), id.clone());
        tokio::spawn(async move {
            store
                .changed(&id, known.version, Duration::from_secs(60))
                .await
        })
    };
    // The waiter most likely waits by then; otherwise the change is seen sooner.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let since = Instant::now();
    let canceled = store.force_finish(&id, known, Outcome::Canceled).await;
    canceled.expect("an answer");
    let changed = waiting.await.expect("no panic").expect("an answer");
    let record = changed.expect("the operation exists");
    assert!(record.operation().state().is_terminal());
    since
}

pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
