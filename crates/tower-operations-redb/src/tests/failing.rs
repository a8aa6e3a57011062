//! Errors of the disk: nothing is lost, nothing happens twice, and the store continues.

use std::{
    error::Error,
    future::Future,
    io,
    sync::Arc,
    task::{Context, Wake},
    thread,
};

use tower_operations::{
    operation::{OperationId, State},
    store::{
        FencingToken, IdempotencyKeys, Lease, LeaseConfig, List, ListQuery, NodeId, Owner, Purge,
        Repository, Reservation, Store, StoreError, Written,
    },
};

use super::{Disk, NO_CACHE, TERM, created, held, key, leased, open, persist, response, success};
use crate::{RedbStore, testing::Trap};

/// Returns the root cause of an error.
fn root(error: &StoreError) -> &(dyn Error + 'static) {
    let mut root: &(dyn Error + 'static) = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

#[tokio::test]
async fn full_disks_are_transient_errors_and_lose_nothing() {
    let disk = Disk::default();
    let store = open(&disk, NO_CACHE);
    disk.limit(Some(100));
    let text = "x".repeat(20_000);
    let (mut done, mut doubtful) = (Vec::new(), Vec::new());
    while doubtful.len() < 5 {
        let id = OperationId::new();
        let ran = async {
            let record = created(store.create(leased(&id)).await?);
            let finished = store
                .finish(&id, record.token(), success(&text), None)
                .await?;
            assert!(matches!(finished, Written::Done(_)));
            Ok::<_, StoreError>(())
        };
        match ran.await {
            Ok(()) => done.push(id),
            Err(error) => {
                assert!(error.is_transient(), "{}", error.report());
                let root = root(&error).downcast_ref::<io::Error>();
                let kind = root.map(io::Error::kind);
                assert_eq!(kind, Some(io::ErrorKind::StorageFull), "{}", error.report());
                doubtful.push(id);
            }
        }
        // Everything that was answered can be read although the disk is full.
        for id in &done {
            let record = store.get(id).await.unwrap().expect("it was answered");
            assert_eq!(record.operation().state(), State::Succeeded);
        }
    }
    assert!(done.len() > 3, "it has to have worked before");
    assert!(store.stats().failures >= 5);

    disk.limit(None);
    for id in done.iter().chain(&doubtful) {
        let (record, _) = persist(async || store.create(leased(id)).await).await;
        let (id, token) = (id.clone(), created(record).token());
        let finished = store
            .finish(&id, token, success(&text), None)
            .await
            .unwrap();
        assert!(matches!(finished, Written::Done(_)), "{finished:?}");
    }
}

/// Makes every kind of request, each until it succeeds. Returns the number of failures.
async fn script(store: &RedbStore) -> usize {
    let mut failures = 0;
    macro_rules! sure {
        ($attempt:expr) => {{
            let (answer, failed) = persist(async || $attempt.await).await;
            failures += failed;
            answer
        }};
    }
    let [id, other] = [OperationId::new(), OperationId::new()];
    let name = key(&format!("key-{id}"));
    let token = FencingToken::random();

    let reserved = sure!(store.reserve(&name, token, TERM));
    assert!(matches!(reserved, Reservation::Reserved(_)), "{reserved:?}");
    let text = "y".repeat(5_000);
    let new = || {
        leased(&id)
            .with_owner(None)
            .with_key(name.clone())
            .with_reservation(token)
            .with_request(Some("again".into()))
    };
    let record = created(sure!(store.create(new())));
    let holder = record.token();
    assert!(matches!(sure!(store.start(&id, holder)), Written::Done(_)));
    let lease = LeaseConfig::new(NodeId::named("a"), TERM);
    let lost = sure!(store.renew(&lease, &[held(&id, holder)]));
    assert!(lost.is_empty(), "{lost:?}");
    sure!(store.release(&[held(&id, holder)]));
    let node = NodeId::named("b");
    let lease = lease.with_node(node);
    // A failed try may have reclaimed the operation, which is then held for its term.
    let taken = sure!(store.reclaim(&lease, 9));
    let holder = match taken
        .iter()
        .find(|taken| *taken.record.operation().id() == id)
    {
        Some(taken) => {
            assert_eq!(taken.request.as_deref(), Some(&b"again"[..]));
            taken.record.token()
        }
        None => {
            assert!(failures > 0, "nothing was abandoned");
            let record = sure!(store.get(&id)).expect("it is there");
            record.token()
        }
    };
    let finished = sure!(store.finish(&id, holder, success(&text), None));
    assert!(matches!(finished, Written::Done(_)), "{finished:?}");
    let record = sure!(store.get(&id)).expect("it is there");
    assert_eq!(record.operation().state(), State::Succeeded);
    // The operation was started, reclaimed and finished, each once.
    assert_eq!(
        record.version().map(tower_operations::store::Version::get),
        Some(4)
    );
    let found = sure!(store.reserve(&name, FencingToken::random(), TERM));
    assert!(matches!(found, Reservation::Operation(_)), "{found:?}");

    let stamp = record.stamp().unwrap();
    let deleted = sure!(store.delete(&id, stamp));
    assert!(matches!(deleted, Written::Done(_) | Written::Gone));
    assert!(sure!(store.get(&id)).is_none());
    let found = sure!(store.reserve(&name, FencingToken::random(), TERM));
    assert!(matches!(found, Reservation::Deleted(_)), "{found:?}");

    let early = key(&format!("early-{id}"));
    sure!(store.reserve(&early, token, TERM));
    assert!(sure!(store.complete(&early, token, response("early"))));
    let found = sure!(store.reserve(&early, FencingToken::random(), TERM));
    assert!(matches!(found, Reservation::Answered(_)), "{found:?}");

    let brief = store.clone().ttl(std::time::Duration::ZERO);
    let record = created(sure!(brief.create(leased(&other))));
    // The operation expires as soon as it has ended, also for a later try.
    sure!(brief.finish(&other, record.token(), success("z"), None));
    let purged = sure!(brief.purge(9));
    assert!(purged == 1 || failures > 0, "{purged}");
    let owner = Some(Owner::new("somebody"));
    let page = sure!(store.list(&ListQuery::new(owner.clone(), 9)));
    assert!(page.records.is_empty(), "{page:?}");
    failures
}

/// Lets each call to the disk of the whole script fail, one call in each run.
async fn fail_everywhere(trap: Trap, cache: usize, step: usize) {
    let disk = Disk::default();
    let store = open(&disk, cache);
    let (mut calls, mut met) = (0, 0);
    loop {
        disk.set_trap(calls, trap);
        let failures = script(&store).await;
        if disk.take_trap() {
            break; // the trap was not met: that was the last call
        }
        met += usize::from(failures > 0);
        calls += step;
    }
    assert!(calls > 50 * step.min(2), "{calls} calls are no script");
    assert!(met > 10, "only {met} failures were felt");
    // The next process that opens the file finds it intact.
    store.close().await.unwrap();
    let store = open(&disk, cache);
    assert_eq!(script(&store).await, 0);
}

/// A waker that takes its time.
struct SlowWaker;

impl Wake for SlowWaker {
    fn wake(self: Arc<Self>) {
        (0..10_000).for_each(|_| thread::yield_now());
    }
}

#[tokio::test]
async fn a_close_is_answered_after_the_changes_before_it() {
    let store = open(&Disk::default(), NO_CACHE);
    let ids: Vec<_> = (0..100).map(|_| OperationId::new()).collect();
    let creates = ids.iter().map(|id| Box::pin(store.create(leased(id))));
    let mut creates: Vec<_> = creates.collect();
    let waker = Arc::new(SlowWaker).into();
    let mut context = Context::from_waker(&waker);
    for create in &mut creates {
        assert!(create.as_mut().poll(&mut context).is_pending());
    }
    store.close().await.unwrap();
    for create in &mut creates {
        assert!(create.as_mut().poll(&mut context).is_ready());
    }
}

#[tokio::test]
async fn any_call_to_the_disk_may_fail() {
    fail_everywhere(Trap::Error, 1 << 20, 1).await;
}

#[tokio::test]
async fn any_call_to_the_disk_may_fail_after_it_took_effect() {
    fail_everywhere(Trap::LateError, 1 << 20, 1).await;
}

#[tokio::test]
async fn any_call_to_the_disk_may_fail_without_a_cache() {
    fail_everywhere(Trap::Error, NO_CACHE, 7).await;
}

#[tokio::test]
async fn the_engine_may_panic() {
    fail_everywhere(Trap::Panic, 1 << 20, 3).await;
}
