//! Listing, and laws 8 and 9.

mod cursors;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tower_operations::{
    operation::{OperationId, RecordedResponse, State, StateSet},
    store::{List, ListQuery, Owner, Page, Repository},
};

use super::subject::{
    SHORT, Seen, assert_expire, create, done, finish, law, new_operation, new_owner, ok, stamp,
    start,
};

pub(super) async fn check<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let store = &**store;
    the_newest_come_first(store).await;
    every_owner_sees_its_own(store).await;
    states_can_be_asked_for(store).await;
    pages_go_on_where_they_ended(store).await;
    new_operations_move_no_page(store).await;
    deleted_operations_move_no_page(store).await;
    cursors::check(store).await;
    a_short_page_loses_no_operation(store).await;
}

/// Checks a store that has [`SHORT`] as its time to live.
pub(super) async fn check_expiry<R>(store: &Arc<R>)
where
    R: Repository<Output = RecordedResponse> + List,
{
    expired_operations_are_not_listed(&**store).await;
}

async fn list<R>(store: &R, query: &ListQuery) -> Page<RecordedResponse>
where
    R: List<Output = RecordedResponse>,
{
    let page = ok(store.list(query).await);
    let length = page.records.len();
    assert!(
        length <= query.limit,
        "listing: asked for {}, {length} came",
        query.limit
    );
    page
}

/// Lists everything, page by page.
async fn list_all<R>(store: &R, query: &ListQuery) -> Vec<Seen>
where
    R: List<Output = RecordedResponse>,
{
    let mut all = Vec::new();
    let mut query = query.clone();
    // Endless pages are cut off: no check lists so many.
    for _ in 0..1000 {
        let page = list(store, &query).await;
        all.extend(page.records);
        match page.next {
            Some(next) => query = query.with_after(next),
            None => return all,
        }
    }
    panic!("listing: there is no last page");
}

fn ids(records: &[Seen]) -> Vec<OperationId> {
    records
        .iter()
        .map(|record| record.operation().id().clone())
        .collect()
}

/// Waits for another millisecond, the resolution of times in a store.
async fn next_millisecond() {
    let millisecond = || {
        let age = SystemTime::now().duration_since(UNIX_EPOCH);
        age.unwrap_or(Duration::ZERO).as_millis()
    };
    let now = millisecond();
    while millisecond() == now {
        tokio::task::yield_now().await;
    }
}

/// Creates operations of `owner`, each newer than the one before.
async fn create_some<R>(store: &R, owner: Option<&Owner>, number: usize) -> Vec<OperationId>
where
    R: Repository<Output = RecordedResponse>,
{
    let mut ids = Vec::new();
    for _ in 0..number {
        next_millisecond().await;
        let record = create(store, new_operation().with_owner(owner.cloned())).await;
        ids.push(record.operation().id().clone());
    }
    ids
}

async fn the_newest_come_first<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owner = new_owner();
    let mut created = create_some(store, owner.as_ref(), 10).await;
    created.reverse();
    let page = list(store, &ListQuery::new(owner, 100)).await;
    assert_eq!(
        ids(&page.records),
        created,
        "listing: the newest come first"
    );
    assert!(page.next.is_none(), "listing: the only page has a next one");
    for record in &page.records {
        let found = ok(store.get(record.operation().id()).await);
        law!(
            1,
            found.as_ref() == Some(record),
            "a list has {record:?}, a read {found:?}"
        );
    }
}

async fn every_owner_sees_its_own<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owners = [new_owner(), new_owner()];
    let mut created = Vec::new();
    for owner in &owners {
        created.push(create_some(store, owner.as_ref(), 3).await);
    }
    let nobodys = create_some(store, None, 1).await;
    for (owner, mut created) in owners.into_iter().zip(created) {
        created.reverse();
        let listed = list_all(store, &ListQuery::new(owner, 2)).await;
        assert_eq!(
            ids(&listed),
            created,
            "listing: an owner sees its own and no other"
        );
    }
    let none = list_all(store, &ListQuery::new(new_owner(), 2)).await;
    assert!(none.is_empty(), "listing: another owner sees {none:?}");
    // Other checks may have created more operations without an owner.
    let page = list(store, &ListQuery::new(None, 100)).await;
    let owned: Vec<_> = page
        .records
        .iter()
        .filter(|record| record.owner().is_some())
        .collect();
    assert!(
        owned.is_empty(),
        "listing: operations without an owner are not {owned:?}"
    );
    assert!(
        ids(&page.records).contains(&nobodys[0]),
        "listing: operations without an owner are left out"
    );
}

async fn states_can_be_asked_for<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owner = new_owner();
    let mut expected = Vec::new();
    for number in 0..9 {
        next_millisecond().await;
        let pending = create(store, new_operation().with_owner(owner.clone())).await;
        let record = match number % 3 {
            0 => pending,
            1 => start(store, &pending).await,
            _ => finish(store, &pending).await,
        };
        expected.insert(0, record);
    }
    // A set of two equal states has one state.
    for first in State::ALL {
        for second in State::ALL {
            let asked: StateSet = [first, second].into_iter().collect();
            let expected: Vec<Seen> = expected
                .iter()
                .filter(|record| asked.contains(record.operation().state()))
                .cloned()
                .collect();
            let query = ListQuery::new(owner.clone(), 2).with_states(asked.iter());
            let listed = list_all(store, &query).await;
            assert_eq!(
                ids(&listed),
                ids(&expected),
                "listing: those that are one of {asked:?}"
            );
        }
    }
    let nothing = ListQuery::new(owner, 2).with_states([]);
    let listed = list_all(store, &nothing).await;
    assert!(
        listed.is_empty(),
        "listing: in no state there is {listed:?}"
    );
}

async fn pages_go_on_where_they_ended<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owner = new_owner();
    let mut created = create_some(store, owner.as_ref(), 12).await;
    created.reverse();
    // Some limits divide the number of operations, others do not.
    for limit in [1, 5, 6, 12, 13] {
        let query = ListQuery::new(owner.clone(), limit);
        let listed = list_all(store, &query).await;
        assert_eq!(ids(&listed), created, "listing: pages of {limit}");
    }
}

async fn new_operations_move_no_page<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owner = new_owner();
    let mut created = create_some(store, owner.as_ref(), 10).await;
    created.reverse();
    let mut query = ListQuery::new(owner.clone(), 3);
    let mut listed = Vec::new();
    for _ in 0..100 {
        let page = list(store, &query).await;
        listed.extend(ids(&page.records));
        create_some(store, owner.as_ref(), 2).await;
        match page.next {
            Some(next) => query = query.with_after(next),
            None => {
                assert_eq!(listed, created, "listing: pages while others are created");
                return;
            }
        }
    }
    panic!("listing: there is no last page while others are created");
}

async fn deleted_operations_move_no_page<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owner = new_owner();
    let mut records = Vec::new();
    for _ in 0..10 {
        next_millisecond().await;
        let record = create(store, new_operation().with_owner(owner.clone())).await;
        records.insert(0, finish(store, &record).await);
    }
    let query = ListQuery::new(owner, 4);
    let first = list(store, &query).await;
    let Some(next) = first.next else {
        panic!("listing: 10 operations on a page of 4");
    };
    // An operation that was listed, the last one listed, and one not yet listed.
    for gone in [0, 3, 6] {
        let record = &records[gone];
        let deleted = store.delete(record.operation().id(), stamp(record));
        done(2, ok(deleted.await), "deleting");
    }
    records.remove(6);
    let listed = list_all(store, &query.with_after(next)).await;
    assert_eq!(
        ids(&listed),
        ids(&records[4..]),
        "listing: the next pages while others are deleted"
    );
}

async fn expired_operations_are_not_listed<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owner = new_owner();
    let mut ended = Vec::new();
    for _ in 0..3 {
        let record = create(store, new_operation().with_owner(owner.clone())).await;
        finish(store, &record).await;
        ended.push(record.operation().id().clone());
    }
    let live = create(store, new_operation().with_owner(owner.clone())).await;
    assert_expire(store, &ended, SHORT).await;
    let listed = list_all(store, &ListQuery::new(owner, 2)).await;
    law!(
        8,
        listed == [live],
        "an expired operation is listed: {listed:?}"
    );
}

async fn a_short_page_loses_no_operation<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owner = new_owner();
    let mut made = Vec::new();
    for _ in 0..5 {
        let record = create(store, new_operation().with_owner(owner.clone())).await;
        made.insert(0, finish(store, &record).await);
    }
    for max_bytes in [0, 1, 150, usize::MAX] {
        let mut query = ListQuery::new(owner.clone(), 3).with_max_bytes(max_bytes);
        let mut listed = Vec::new();
        loop {
            let page = list(store, &query).await;
            let is_last = page.next.is_none();
            assert!(
                is_last || !page.records.is_empty(),
                "listing: a page that others follow is empty"
            );
            listed.extend(page.records);
            match page.next {
                Some(cursor) if listed.len() < 9 => query = query.with_after(cursor),
                _ => break,
            }
        }
        assert!(
            listed == made,
            "listing: pages of {max_bytes} bytes gave {listed:?} instead of {made:?}"
        );
    }
}
