//! The disk accesses of a read.

use std::thread;

use tower_operations::{
    engine::{Cell, Engine, NextCell, Replaced},
    operation::{State, Stored},
    store::{
        IdempotencyKeys, List, ListQuery, Reader, Repository, Reservation, Store, Version, Watch,
        Written,
    },
};

use super::{counted_file::CountedFile, *};

const LARGE: usize = 8 * 1024 * 1024;

/// Creates an operation of the owner "somebody" that has ended with a large result.
async fn ended(store: &RedbStore) -> OperationId {
    let id = OperationId::new();
    let Created::New(record) = store.create(leased(&id)).await.unwrap() else {
        panic!("the id is new");
    };
    let outcome = success(&"a".repeat(LARGE));
    let finished = store.finish(&id, record.token(), outcome, None).await;
    assert!(matches!(finished.unwrap(), Written::Done(_)));
    id
}

#[tokio::test]
async fn reads_for_other_owners_read_no_byte_of_a_result() {
    let disk = Disk::default();
    let store = open(&disk, NO_CACHE);
    let id = ended(&store).await;
    let read = async |id: &OperationId, owner: Option<&str>| {
        disk.read();
        let owner = owner.map(Owner::new);
        store
            .get_for(id, Reader::new(owner.as_ref()))
            .await
            .unwrap();
        let slowly = disk.read();
        store.get_now_for(id, Reader::new(owner.as_ref()));
        (slowly, disk.read())
    };
    let unknown = OperationId::new();
    for owner in [Some("another"), None] {
        let (foreign, at_once) = read(&id, owner).await;
        let (nothing, _) = read(&unknown, owner).await;
        assert!(foreign <= nothing + 4096, "{foreign} and {nothing} bytes");
        assert!(at_once <= nothing + 4096, "{at_once} and {nothing} bytes");
    }
    let (own, _) = read(&id, Some("somebody")).await;
    assert!(own > LARGE, "{own} bytes");
}

#[tokio::test]
async fn repetitions_read_no_byte_of_a_result() {
    let disk = Disk::default();
    let store = open(&disk, NO_CACHE);
    let mut costs = Vec::new();
    for length in [1, LARGE] {
        let owner = Some(Owner::new("somebody"));
        let key = IdempotencyKey::new(owner.clone(), format!("of {length}"), [7; 32]);
        let new = leased(&OperationId::new()).with_key(key.clone());
        let record = created(store.create(new.clone()).await.unwrap());
        let outcome = success(&"a".repeat(length));
        let finished = store.finish(&new.id, record.token(), outcome, None).await;
        assert!(matches!(finished.unwrap(), Written::Done(_)));
        let mut by_key = new.clone();
        by_key.id = OperationId::new();
        let by_id = NewOperation::new(new.id.clone()).with_owner(owner);
        let foreign = by_id.clone().with_owner(Some(Owner::new("another")));
        disk.read();
        for new in [by_key, by_id] {
            let found = store.create(new.clone()).await.unwrap();
            let Created::Existing(found) = found else {
                panic!("{new:?} gave {found:?}");
            };
            assert_eq!(found.operation().state(), State::Succeeded);
        }
        let taken = store.create(foreign).await.unwrap();
        assert!(matches!(taken, Created::IdTaken), "{taken:?}");
        let reserved = store.reserve(&key, FencingToken::random(), TERM).await;
        assert!(matches!(reserved.unwrap(), Reservation::Operation(_)));
        costs.push(disk.read());
    }
    assert!(costs[1] < costs[0] + 64 * 1024, "{costs:?} bytes");
}

#[tokio::test]
async fn lists_and_polls_read_no_byte_of_a_result_that_they_do_not_show() {
    let file = CountedFile::open();
    let store = &file.store;
    let mut id = ended(store).await;
    for _ in 1..100 {
        id = ended(store).await;
    }
    let owner = Some(Owner::new("somebody"));
    let short = Reader::new(owner.as_ref()).with_max_body(LARGE - 1);
    let query = ListQuery::new(owner.clone(), 100).with_max_body(LARGE - 1);
    file.read();
    let page = store.list(&query).await.unwrap();
    let listed = file.read();
    assert!(
        page.records.len() == 100 && listed < LARGE / 8,
        "{listed} bytes"
    );
    let found = store.get_for(&id, short).await.unwrap().unwrap();
    let polled = file.read();
    assert!(polled < 64 * 1024, "{polled} bytes");
    for record in page.records.iter().chain([&found]) {
        let response = record.operation().response().unwrap();
        assert_eq!((response.body(), response.body_len()), (None, LARGE));
    }
    let whole = Reader::new(owner.as_ref()).with_max_body(LARGE);
    let found = store.get_for(&id, whole).await.unwrap().unwrap();
    let body = found.operation().response().unwrap().body().unwrap();
    assert!(body.len() == LARGE && body.iter().all(|byte| *byte == b'a'));
}

/// Early releases stored a response as a whole, and said nothing of it in the head.
#[tokio::test]
async fn responses_of_earlier_releases_are_read_by_every_reader() {
    let store = open(&Disk::default(), NO_CACHE);
    let id = ended(&store).await;
    let record = store.get(&id).await.unwrap().unwrap();
    let stamp = record.stamp().unwrap();
    let cell = Cell::encode(&record).unwrap();
    let head = std::str::from_utf8(&cell.head).unwrap();
    let (head, _) = head.split_once(",\"response\":").unwrap();
    let head = head.replace("\"format\":2", "\"format\":1") + "}";
    let result = record.operation().response().unwrap();
    let result = result.to_bytes().unwrap();
    let mut old = NextCell::new(stamp, State::Succeeded, head.as_bytes());
    (old.result, old.expires_at) = (
        Some(&result[..]),
        record.operation().metadata().expires_at(),
    );
    let replaced = store.0.engine().replace(&id, stamp, old).await.unwrap();
    assert!(matches!(replaced, Replaced::Done));

    let owner = Some(Owner::new("somebody"));
    let reader = Reader::new(owner.as_ref());
    assert_eq!(store.get(&id).await.unwrap().as_ref(), Some(&record));
    assert_eq!(store.get_for(&id, reader).await.unwrap(), Some(record));
    let short = reader.with_max_body(LARGE - 1);
    let query = ListQuery::new(owner.clone(), 9).with_max_body(LARGE - 1);
    let found = store.get_for(&id, short).await.unwrap().unwrap();
    let page = store.list(&query).await.unwrap();
    assert_eq!(page.records.len(), 1);
    for record in page.records.iter().chain([&found]) {
        let response = record.operation().response().unwrap();
        assert_eq!((response.body(), response.body_len()), (None, LARGE));
    }
    let other = Owner::new("another");
    let foreign = Reader::new(Some(&other)).with_max_body(9);
    let found = store.get_for(&id, foreign).await.unwrap().unwrap();
    assert!(found.operation().response().is_none());
}

#[tokio::test]
async fn pages_end_where_their_results_are_large() {
    let disk = Disk::default();
    let store = open(&disk, NO_CACHE);
    for _ in 0..5 {
        ended(&store).await;
    }
    let owner = Some(Owner::new("somebody"));
    let mut query = ListQuery::new(owner, 5).with_max_bytes(LARGE + 1024);
    let mut lengths = Vec::new();
    loop {
        disk.read();
        let page = store.list(&query).await.unwrap();
        lengths.push(page.records.len());
        let read = disk.read();
        assert!(read < 5 * LARGE, "{read} bytes were read for a page");
        match page.next {
            Some(next) => query = query.with_after(next),
            None => break,
        }
    }
    assert_eq!(lengths, [2, 2, 1]);
}

/// The runtime has one thread, which is this one.
#[tokio::test]
async fn reads_of_the_disk_block_no_thread_of_the_runtime() {
    let disk = Disk::default();
    let store = open(&disk, NO_CACHE);
    let id = ended(&store).await;
    let owner = Some(Owner::new("somebody"));
    let this = thread::current().id();
    disk.readers();
    assert!(store.get_now(&id).is_none(), "it is not in memory");
    assert!(
        store
            .get_now_for(&id, Reader::new(owner.as_ref()))
            .is_none()
    );
    assert!(disk.readers().is_empty());
    assert!(store.get(&id).await.unwrap().is_some());
    store.get_for(&id, Reader::new(None)).await.unwrap();
    store.changed(&id, Version::FIRST, TERM).await.unwrap();
    store.list(&ListQuery::new(owner, 9)).await.unwrap();
    let readers = disk.readers();
    assert!(!readers.is_empty() && !readers.contains(&this));
}

#[tokio::test]
async fn latest_writes_are_read_in_place_unless_they_are_large() {
    let disk = Disk::default();
    let store = open(&disk, 1024 * 1024);
    let (owner, other) = (Owner::new("somebody"), Owner::new("another"));
    let id = OperationId::new();
    let record = created(store.create(leased(&id)).await.unwrap());
    disk.readers();
    let now = |owner| {
        let found = store.get_now_for(&id, Reader::new(owner))?;
        Some(found.unwrap().expect("it is there"))
    };
    assert_eq!(now(Some(&owner)).as_ref(), Some(&record));
    let outcome = success("small");
    let finished = store.finish(&id, record.token(), outcome, None).await;
    let Written::Done(record) = finished.unwrap() else {
        panic!("nobody else writes");
    };
    assert_eq!(now(Some(&owner)).as_ref(), Some(&record));
    assert_eq!(store.get(&id).await.unwrap().as_ref(), Some(&record));
    let foreign = now(Some(&other)).expect("a head is small");
    assert_eq!(foreign.operation().state(), State::Succeeded);
    assert!(foreign.operation().response().is_none());
    store.delete(&id, record.stamp().unwrap()).await.unwrap();
    assert!(store.get_now(&id).is_none());
    assert!(store.get(&id).await.unwrap().is_none());

    let id = ended(&store).await;
    assert!(store.get_now(&id).is_none());
    let foreign = store.get_now_for(&id, Reader::new(Some(&other)));
    assert!(foreign.is_some(), "its head is in memory");
    store.close().await.unwrap();
    assert!(
        store
            .get_now_for(&id, Reader::new(Some(&other)))
            .unwrap()
            .is_err()
    );
}
