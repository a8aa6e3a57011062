//! Connections lost between the commit and the answer: a repeated call finds its own
//! effect.

use std::time::Duration;

use tower_operations::{
    OperationId,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, NewOperation, Owner, Repository,
        Reservation, Store, Written,
    },
};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{create, pool, response, success, term},
    proxy::Proxy,
    server::Postgres,
};

async fn set_up() -> (Postgres, Proxy, PostgresStore) {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 2)).await.unwrap();
    (server, proxy, store)
}

#[tokio::test]
async fn a_repeated_create_finds_its_operation() {
    let (_server, proxy, store) = set_up().await;
    let owner = Some(Owner::new("me"));
    let new = NewOperation::new(OperationId::new())
        .with_owner(owner.clone())
        .with_request(Some("again".into()))
        .with_lease(term(60));
    let key = IdempotencyKey::new(None, "once", [3; 32]);
    let keyed = NewOperation::new(OperationId::new())
        .with_owner(owner)
        .with_key(key)
        .with_lease(term(60));
    for (cut, (new, sql)) in [(new, "INSERT INTO"), (keyed, "_insert_2")]
        .into_iter()
        .enumerate()
    {
        proxy.cut_answer_to(sql);
        let error = store.create(new.clone()).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert_eq!(proxy.cuts(), cut + 1);
        let committed = store
            .get(&new.id)
            .await
            .unwrap()
            .expect("the call was committed");
        match store.create(new).await.unwrap() {
            Created::Existing(record) => {
                assert_eq!(record, committed);
                // The repeated create holds the lease.
                let write = store.start(record.operation().id(), record.token()).await;
                assert!(matches!(write, Ok(Written::Done(_))));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_repeated_change_is_applied_once() {
    let (_server, proxy, store) = set_up().await;
    let (id, token) = create(&store).await;
    proxy.cut_answer_to("UPDATE");
    store.start(&id, token).await.unwrap_err();
    let Written::Done(running) = store.start(&id, token).await.unwrap() else {
        panic!("the repeated start was lost");
    };
    assert_eq!(
        (running.version().unwrap().get(), running.attempts()),
        (2, 1)
    );

    proxy.cut_answer_to("expires_at =");
    let error = store
        .finish(&id, token, success("done"), None)
        .await
        .unwrap_err();
    assert!(error.is_transient());
    let committed = store
        .get(&id)
        .await
        .unwrap()
        .expect("the call was committed");
    assert!(committed.operation().state().is_terminal());
    match store
        .finish(&id, token, success("done"), None)
        .await
        .unwrap()
    {
        // The record of a write may lack the body of its result.
        Written::Done(record) => assert_eq!(record.stamp(), committed.stamp()),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get(&id).await.unwrap(), Some(committed.clone()));

    proxy.cut_answer_to("DELETE");
    let stamp = committed.stamp().unwrap();
    store.delete(&id, stamp).await.unwrap_err();
    assert!(matches!(store.delete(&id, stamp).await, Ok(Written::Gone)));
    assert_eq!(proxy.cuts(), 3);
}

#[tokio::test]
async fn a_repeated_reservation_keeps_its_token() {
    let (_server, proxy, store) = set_up().await;
    let key = IdempotencyKey::new(None, "once", [3; 32]);
    let (token, minute) = (FencingToken::random(), Duration::from_secs(60));
    proxy.cut_answer_to("_reserve_2");
    store.reserve(&key, token, minute).await.unwrap_err();
    let again = store.reserve(&key, token, minute).await.unwrap();
    assert!(matches!(again, Reservation::Reserved(mine) if mine == token));
    proxy.cut_answer_to("'answer'");
    store
        .complete(&key, token, response("early"))
        .await
        .unwrap_err();
    assert!(
        store
            .complete(&key, token, response("early"))
            .await
            .unwrap()
    );
    match store
        .reserve(&key, FencingToken::random(), minute)
        .await
        .unwrap()
    {
        Reservation::Answered(answer) => assert_eq!(*answer, response("early")),
        other => panic!("{other:?}"),
    }
    assert_eq!(proxy.cuts(), 2);
}
