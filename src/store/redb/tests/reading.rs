//! What a read asks of the disk.

use super::*;
use crate::store::{List, ListQuery, Repository, Store, Write};

const LARGE: usize = 8 * 1024 * 1024;

/// An operation of "somebody" that has ended with a large result.
async fn ended(store: &RedbStore) -> OperationId {
    let id = OperationId::new();
    let Created::New(record) = store.create(leased(&id)).await.unwrap() else {
        panic!("the id is new");
    };
    let outcome = success(&"a".repeat(LARGE));
    let finished = store.finish(&id, record.token(), outcome, None).await;
    assert!(matches!(finished.unwrap(), Write::Done(_)));
    id
}

#[tokio::test]
async fn a_stranger_s_read_takes_no_byte_of_a_result() {
    let disk = Disk::default();
    let store = open(&disk, NO_CACHE);
    let id = ended(&store).await;
    let read = async |id: &OperationId, owner: Option<&str>| {
        disk.read();
        let owner = owner.map(Owner::new);
        store.get_for(id, owner.as_ref()).await.unwrap();
        let slowly = disk.read();
        store.get_now_for(id, owner.as_ref());
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
async fn a_page_ends_where_its_results_are_large() {
    let disk = Disk::default();
    let store = open(&disk, NO_CACHE);
    for _ in 0..5 {
        ended(&store).await;
    }
    let owner = Some(Owner::new("somebody"));
    let mut query = ListQuery::new(owner, 5).max_bytes(LARGE + 1024);
    let mut lengths = Vec::new();
    loop {
        disk.read();
        let page = store.list(&query).await.unwrap();
        lengths.push(page.records.len());
        let read = disk.read();
        assert!(read < 5 * LARGE, "{read} bytes were read for a page");
        match page.next {
            Some(next) => query = query.after(next),
            None => break,
        }
    }
    assert_eq!(lengths, [2, 2, 1]);
}
