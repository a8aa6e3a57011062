use std::time::Duration;

use super::*;
use crate::{
    operation::{OperationId, Outcome},
    store::{
        FencingToken, IdempotencyKey, IdempotencyKeys, MemoryStore, NewOperation, Purge,
        Repository, Written,
    },
};

const SHARE: OwnerShare = OwnerShare::ALL;

#[test]
fn accounts_exist_as_long_as_they_have_entries() {
    let ledger = Ledger::default();
    let (ada, bob) = (Owner::new("ada"), Owner::new("bob"));
    let at = EntryLocation { shard: 0, slot: 0 };
    assert!(ledger.open(&ada, 1, at, (100, 0), SHARE));
    assert!(ledger.open(&bob, 2, at, (200, 0), SHARE));
    let past = (Tick::at(3), Arc::from("a key"));
    ledger.enter(Some(&ada), 150, Some(past.clone()));
    assert_eq!(ledger.past(Some(&ada)).as_deref(), Some("a key"));
    assert!(ledger.past(Some(&bob)).is_none() && ledger.past(None).is_none());
    assert_eq!(ledger.largest(9), [(250, ada.clone()), (200, bob.clone())]);
    assert_eq!(ledger.bytes(), 450);
    assert!(ledger.soonest(&ada).is_none());
    ledger.change(&ada, 1, 100, 40, Some(Tick::at(5)));
    assert_eq!(ledger.soonest(&ada).map(|(number, _)| number), Some(1));
    assert_eq!(ledger.largest(1), [(200, bob.clone())]);
    ledger.close(&ada, 1, 40, Tick::at(5));
    ledger.leave(Some(&ada), 150, Some(past));
    ledger.close(&bob, 2, 200, Tick::NEVER);
    assert!(ledger.lock().by_owner.is_empty() && ledger.lock().by_bytes.is_empty());
    assert_eq!(ledger.bytes(), 0);
}

#[test]
fn operations_come_newest_first() {
    let (ledger, ada) = (Ledger::default(), Owner::new("ada"));
    for number in 0..10 {
        let at = EntryLocation { shard: 0, slot: 0 };
        assert!(ledger.open(&ada, number, at, (1, 0), SHARE));
    }
    let numbers = |before, limit| {
        let found = ledger.before(&ada, before, limit);
        found
            .into_iter()
            .map(|(number, _)| number)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(u64::MAX, 3), [9, 8, 7]);
    assert_eq!(numbers(7, 3), [6, 5, 4]);
    assert_eq!(numbers(2, 3), [1, 0]);
    assert!(ledger.before(&Owner::new("bob"), 9, 9).is_empty());
}

#[tokio::test(start_paused = true)]
async fn removed_entries_leave_nothing_in_the_ledger() {
    let second = Duration::from_secs(1);
    let store = MemoryStore::<String>::with_weigher(String::capacity)
        .ttl(9 * second)
        .max_operations(20)
        .min_retention(second);
    let owner = |n: usize| Some(Owner::new(["ada", "bob", "carol"][n % 3]));
    let key = |n: usize| IdempotencyKey::new(owner(n), format!("key {n}"), [0; 32]);
    for n in 0..200 {
        let mut new = NewOperation::new(OperationId::new()).with_owner(owner(n));
        let (is_keyed, token) = (n % 4 == 0, FencingToken::random());
        if is_keyed {
            let key = key(n);
            let reserved = store.reserve(&key, token, second);
            reserved.await.unwrap();
            new = new.with_key(key).with_reservation(token);
        }
        let (id, token) = (new.id.clone(), new.token);
        store.create(new).await.unwrap();
        let outcome = Outcome::Succeeded(Some("done".repeat(n)));
        let ended = store.finish(&id, token, outcome, None).await.unwrap();
        if let (Written::Done(record), 0) = (ended, n % 8) {
            store.delete(&id, record.stamp().unwrap()).await.unwrap();
        }
        tokio::time::advance(second / 4).await;
    }
    let ledger = &store.shared.room.ledger;
    assert_eq!(ledger.bytes(), store.bytes(), "all of it is somebody's");
    let open: usize = (ledger.lock().by_owner.values())
        .map(|account| account.operations.len())
        .sum();
    assert_eq!(open, store.len());
    tokio::time::advance(10 * second).await;
    store.purge(usize::MAX).await.unwrap();
    assert_eq!((ledger.bytes(), store.bytes()), (0, 0));
    assert!(ledger.lock().by_owner.is_empty() && ledger.lock().by_bytes.is_empty());
}
