//! Stores on an engine that is slow, loses answers, or has data that cannot be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};

use super::{
    Cell, CellReader, Engine, EngineStore, Inserted, LapsedCell, NewCell, NextCell, Notice,
    ReclaimFilter, Replaced,
};
use crate::{
    AsyncAcceptLayer, RequestBody,
    operation::{BufferedBody, FailureKind, OperationId, Outcome, State},
    store::{
        Created, Health, Lease, LeaseConfig, LeaseHandle, NewOperation, Repository, Stamp, Store,
        StoreError, Version, Watch,
    },
};

type Answer<T> = Result<T, StoreError>;

/// An engine of cells in memory. All cells are abandoned, and changes can go wrong in several
/// ways.
#[derive(Clone)]
struct Odd(Arc<Inside>);

struct Inside {
    cells: Mutex<BTreeMap<OperationId, (Stamp, Cell)>>,
    /// The time that a change takes.
    takes: Mutex<Duration>,
    /// Whether the answer of a change is lost.
    loses_answers: AtomicBool,
    /// The time after which a new cell is inserted; the insert is never answered then.
    inserts_after: Mutex<Option<Duration>>,
    announced: Mutex<Vec<Notice>>,
    /// The cells that were put aside, the number of looks for reclaimable cells, and the
    /// operations that the engine refuses to change.
    aside: Mutex<BTreeSet<Bytes>>,
    looks: AtomicUsize,
    refuses: Mutex<BTreeSet<OperationId>>,
}

impl Odd {
    fn store() -> (Self, EngineStore<Self>) {
        let odd = Self(Arc::new(Inside {
            cells: Mutex::default(),
            takes: Mutex::new(Duration::ZERO),
            loses_answers: AtomicBool::new(false),
            inserts_after: Mutex::default(),
            announced: Mutex::default(),
            aside: Mutex::default(),
            looks: AtomicUsize::new(0),
            refuses: Mutex::default(),
        }));
        (odd.clone(), EngineStore::new(odd))
    }

    fn takes(&self, time: Duration) {
        *self.0.takes.lock().unwrap() = time;
    }
}

impl Engine for Odd {
    const POLL_INTERVAL: Option<Duration> = None;
    const KEEPS_EXPIRED: bool = false;

    async fn read(&self, id: &OperationId, _: CellReader<'_>) -> Answer<Option<Cell>> {
        let cells = self.0.cells.lock().unwrap();
        Ok(cells.get(id).map(|(_, cell)| cell.clone()))
    }

    async fn insert(&self, new: NewCell<'_>) -> Answer<Inserted> {
        let cell = Cell {
            head: Bytes::copy_from_slice(new.head),
            result: None,
        };
        let (id, stamp) = (new.id.clone(), new.stamp);
        let late = self.0.inserts_after.lock().unwrap().take();
        if let Some(late) = late {
            let inside = Arc::clone(&self.0);
            tokio::spawn(async move {
                sleep(late).await;
                inside.cells.lock().unwrap().insert(id, (stamp, cell));
            });
            return std::future::pending().await;
        }
        self.0.cells.lock().unwrap().insert(id, (stamp, cell));
        Ok(Inserted::Done)
    }

    async fn replace(
        &self,
        id: &OperationId,
        expected: Stamp,
        next: NextCell<'_>,
    ) -> Answer<Replaced> {
        let takes = *self.0.takes.lock().unwrap();
        sleep(takes).await;
        if self.0.refuses.lock().unwrap().contains(id) {
            return Err(StoreError::refused("this row is damaged"));
        }
        let mut cells = self.0.cells.lock().unwrap();
        let Some((stamp, cell)) = cells.get_mut(id) else {
            return Ok(Replaced::Gone);
        };
        if *stamp != expected {
            return Ok(Replaced::Found(cell.head.clone()));
        }
        *stamp = next.stamp;
        cell.head = Bytes::copy_from_slice(next.head);
        cell.result = next.result.map(Bytes::copy_from_slice);
        match self.0.loses_answers.load(SeqCst) {
            true => Err(StoreError::unavailable("the connection was lost")),
            false => Ok(Replaced::Done),
        }
    }

    async fn delete(
        &self,
        id: &OperationId,
        _: Stamp,
        _: &[u8],
        _: Option<SystemTime>,
    ) -> Answer<Replaced> {
        let takes = *self.0.takes.lock().unwrap();
        sleep(takes).await;
        self.0.cells.lock().unwrap().remove(id);
        Ok(Replaced::Done)
    }

    async fn renew(&self, _: &[LeaseHandle], _: Duration) -> Answer<Vec<LeaseHandle>> {
        Ok(Vec::new())
    }

    async fn release(&self, _: &[LeaseHandle]) -> Answer<()> {
        Ok(())
    }

    async fn reclaimable(&self, _: ReclaimFilter, limit: usize) -> Answer<Vec<LapsedCell>> {
        self.0.looks.fetch_add(1, SeqCst);
        let (cells, aside) = (self.0.cells.lock().unwrap(), self.0.aside.lock().unwrap());
        let abandoned = cells.iter().map(|(id, (_, cell))| LapsedCell {
            id: id.to_string().into(),
            head: Ok(cell.head.clone()),
            request: None,
        });
        let abandoned = abandoned.filter(|abandoned| !aside.contains(&abandoned.id));
        Ok(abandoned.take(limit).collect())
    }

    async fn defer(&self, ids: &[Bytes], _: Duration) -> Answer<()> {
        self.0.aside.lock().unwrap().extend(ids.iter().cloned());
        Ok(())
    }

    async fn purge(&self, _: usize, _: SystemTime) -> Answer<usize> {
        Ok(0)
    }

    async fn health(&self) -> Answer<Health> {
        Ok(Health::default())
    }

    fn publish(&self, notice: Notice) {
        self.0.announced.lock().unwrap().push(notice);
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Creates an operation. Returns its id and its stamp.
async fn create(store: &EngineStore<Odd>) -> (OperationId, Stamp) {
    let new = NewOperation::new(OperationId::new()).with_lease(LeaseConfig::default());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    (record.operation().id().clone(), record.stamp().unwrap())
}

#[tokio::test(start_paused = true)]
async fn changes_are_announced_if_their_caller_is_dropped() {
    let (odd, store) = Odd::store();
    let (id, stamp) = create(&store).await;
    odd.takes(5 * SECOND);
    let watching = tokio::spawn({
        let (store, id) = (store.clone(), id.clone());
        async move { store.changed(&id, Version::FIRST, 3600 * SECOND).await }
    });
    tokio::task::yield_now().await;
    // A client disconnects like this while its cancellation is in progress.
    let cancel = store.force_finish(&id, stamp, Outcome::Canceled);
    assert!(timeout(SECOND, cancel).await.is_err());
    let seen = timeout(10 * SECOND, watching).await.expect("it is woken");
    let record = seen.unwrap().unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Canceled);
    let announced = odd.0.announced.lock().unwrap().last().cloned();
    let Some(Notice::Changed { revoked_from, .. }) = announced else {
        panic!("no change was announced: {announced:?}");
    };
    assert_eq!(revoked_from.as_ref(), record.node(), "its node is told");

    let watching = tokio::spawn({
        let (store, id, version) = (store.clone(), id.clone(), record.version().unwrap());
        async move { store.changed(&id, version, 3600 * SECOND).await }
    });
    tokio::task::yield_now().await;
    let delete = store.delete(&id, record.stamp().unwrap());
    assert!(timeout(SECOND, delete).await.is_err());
    let seen = timeout(10 * SECOND, watching).await.expect("it is woken");
    assert!(seen.unwrap().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn changes_are_announced_if_their_answer_is_lost() {
    let (odd, store) = Odd::store();
    let (id, stamp) = create(&store).await;
    odd.0.loses_answers.store(true, SeqCst);
    let watching = tokio::spawn({
        let (store, id) = (store.clone(), id.clone());
        async move { store.changed(&id, Version::FIRST, 3600 * SECOND).await }
    });
    tokio::task::yield_now().await;
    let cancel = store.force_finish(&id, stamp, Outcome::Canceled);
    assert!(cancel.await.unwrap_err().is_transient());
    let seen = timeout(SECOND, watching).await.expect("it is woken");
    let record = seen.unwrap().unwrap().unwrap();
    assert_eq!(record.operation().state(), State::Canceled);
}

#[tokio::test(start_paused = true)]
async fn slow_reclaims_return_what_they_have_reclaimed() {
    let (odd, store) = Odd::store();
    for _ in 0..100 {
        create(&store).await;
    }
    odd.takes(4 * SECOND);
    let lease = LeaseConfig::default();
    // A caller waits for a third of the term.
    let taken = timeout(lease.term / 3, store.reclaim(&lease, 64)).await;
    let taken = taken.expect("it is in time").unwrap();
    assert!((1..64).contains(&taken.len()), "{}", taken.len());
    for taken in taken {
        assert_eq!(taken.record.node(), Some(&lease.node));
    }
}

/// The request of the deleted operation would otherwise run for the other one, also of another owner.
#[tokio::test(start_paused = true)]
async fn a_reclaim_of_a_deleted_operation_takes_no_other_operation_of_the_same_id() {
    let (odd, store) = Odd::store();
    let (id, _) = create(&store).await;
    odd.takes(SECOND);
    let lease = LeaseConfig::default();
    let reclaiming = tokio::spawn({
        let (store, lease) = (store.clone(), lease.clone());
        async move { store.reclaim(&lease, 64).await }
    });
    tokio::task::yield_now().await;
    odd.0.cells.lock().unwrap().clear();
    let again = store.create(NewOperation::new(id)).await.unwrap();
    let Created::New(again) = again else {
        panic!("the id is free: {again:?}");
    };
    assert!(reclaiming.await.unwrap().unwrap().is_empty());
    let taken = store.reclaim(&lease, 64).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].record.token(), again.token().next());
}

/// The operations that cannot be reclaimed fill several batches. They are examined once, and
/// then put aside for long.
#[tokio::test(start_paused = true)]
async fn operations_that_cannot_be_reclaimed_are_put_aside_and_delay_no_others() {
    let (odd, store) = Odd::store();
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(create(&store).await.0);
    }
    ids.sort();
    let foreign = odd.0.cells.lock().unwrap()[&ids[11]].1.head.clone();
    {
        let mut cells = odd.0.cells.lock().unwrap();
        for id in &ids[..3] {
            cells.get_mut(id).unwrap().1.head = "of a newer release".into();
        }
        // The head of another operation, a version that differs from the stamp, and operations
        // that the engine refuses to change.
        cells.get_mut(&ids[3]).unwrap().1.head = foreign;
        cells.get_mut(&ids[4]).unwrap().0.version = Version::from_number(9).unwrap();
    }
    odd.0
        .refuses
        .lock()
        .unwrap()
        .extend(ids[5..8].iter().cloned());
    assert!(store.get(&ids[0]).await.is_err());
    let lease = LeaseConfig::default();
    let mut taken = Vec::new();
    let take = async |taken: &mut Vec<OperationId>| {
        let some = store.reclaim(&lease, 2).await.unwrap();
        taken.extend(some.iter().map(|it| it.record.operation().id().clone()));
    };
    take(&mut taken).await;
    assert_eq!(taken, ids[8..10], "it goes on until it has some");
    let looks = odd.0.looks.load(SeqCst);
    let is_aside = |id: &OperationId| {
        let name = Bytes::from(id.to_string());
        odd.0.aside.lock().unwrap().contains(&name)
    };
    assert!(ids[..8].iter().all(is_aside));
    take(&mut taken).await;
    assert_eq!(
        odd.0.looks.load(SeqCst),
        looks + 1,
        "they cost no look more"
    );
    assert!(!ids[8..].iter().any(is_aside));
}

/// A node of the newer release reclaims the operation. Other operations are reclaimed meanwhile.
#[tokio::test(start_paused = true)]
async fn operations_in_a_newer_format_are_left_to_the_nodes_that_read_it() {
    let (odd, store) = Odd::store();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(create(&store).await.0);
    }
    ids.sort();
    for id in &ids[..4] {
        let mut cells = odd.0.cells.lock().unwrap();
        cells.get_mut(id).unwrap().1.head = r#"{"format":99,"another":"shape"}"#.into();
    }
    let lease = LeaseConfig::default();
    for expected in &ids[4..] {
        let taken = store.reclaim(&lease, 1).await.unwrap();
        assert_eq!(taken[0].record.operation().id(), expected);
        odd.0.cells.lock().unwrap().remove(expected);
    }
    assert!(odd.0.aside.lock().unwrap().is_empty());
    assert!(store.reclaim(&lease, 1).await.unwrap().is_empty());
}

/// The client got a 503. An operation that is created after that is ended, however late.
#[tokio::test(start_paused = true)]
async fn operations_that_are_created_after_their_503_are_ended() {
    let (odd, store) = Odd::store();
    *odd.0.inserts_after.lock().unwrap() = Some(12 * SECOND);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let inner = service_fn(move |_: Request<RequestBody<BufferedBody>>| {
        counted.fetch_add(1, SeqCst);
        std::future::ready(Ok::<_, Infallible>(Response::new(BufferedBody::default())))
    });
    let service = AsyncAcceptLayer::new(store.clone()).layer(inner);
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(odd.0.cells.lock().unwrap().is_empty());

    sleep(60 * SECOND).await;
    let id = odd.0.cells.lock().unwrap().keys().next().unwrap().clone();
    let record = store.get(&id).await.unwrap().unwrap();
    let problem = record.operation().problem().expect("it has ended");
    assert_eq!(problem.type_uri(), FailureKind::Interrupted.urn());
    assert_eq!(calls.load(SeqCst), 0, "it was run");
}

#[test]
fn the_engine_of_the_documentation_has_less_than_150_lines() {
    assert!(include_str!("map_engine.rs").lines().count() < 150);
}
