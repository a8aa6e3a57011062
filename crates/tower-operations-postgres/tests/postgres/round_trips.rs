//! The number of statements per call.

use std::time::Duration;

use tower_operations::{
    OperationId, Progress,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, Lease, LeaseHandle, List,
        ListQuery, NewOperation, Purge, Repository, Store, Version, Watch, Written,
    },
};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{create, pool, response, success, term},
    proxy::Proxy,
    server::Postgres,
};

#[tokio::test]
async fn each_step_of_an_operation_is_one_statement() {
    let server = Postgres::start().await;
    let proxy = Proxy::before(server.port()).await;
    let store = PostgresStore::connect(pool(proxy.port(), 2)).await.unwrap();
    let assert_statements = |call: &str, times: usize| {
        let executed = proxy.executed();
        assert_eq!(executed.len(), times, "{call}: {executed:#?}");
    };
    proxy.executed();

    let (id, token) = create(&store).await;
    assert_statements("create", 1);
    store.start(&id, token).await.unwrap();
    assert_statements("start", 1);
    store
        .report(&id, token, Progress::from_count(1, 2))
        .await
        .unwrap();
    assert_statements("report", 1);
    let held = (0..100).map(|_| LeaseHandle::new(OperationId::new(), token));
    let held: Vec<_> = held.collect();
    assert_eq!(store.renew(&term(60), &held).await.unwrap().len(), 100);
    assert_statements("renew", 1);
    store.release(&held).await.unwrap();
    assert_statements("release", 1);
    let Written::Done(record) = store
        .finish(&id, token, success("done"), None)
        .await
        .unwrap()
    else {
        panic!("the operation was not finished");
    };
    assert_statements("finish", 1);
    store.get(&id).await.unwrap();
    assert_statements("poll", 1);
    store
        .changed(&id, Version::FIRST, Duration::from_secs(9))
        .await
        .unwrap();
    assert_statements("a wait for an earlier change", 1);
    store.list(&ListQuery::new(None, 10)).await.unwrap();
    assert_statements("list", 1);
    store.delete(&id, record.stamp().unwrap()).await.unwrap();
    assert_statements("read and delete", 2);
    store.purge(100).await.unwrap();
    assert_statements("purge: operations, then keys", 2);

    let key = IdempotencyKey::new(None, "once", [1; 32]);
    let (mine, minute) = (FencingToken::random(), Duration::from_secs(60));
    store.reserve(&key, mine, minute).await.unwrap();
    assert_statements("reserve", 1);
    let new = NewOperation::new(OperationId::new())
        .with_key(key.clone())
        .with_reservation(mine);
    assert!(matches!(
        store.create(new.clone()).await.unwrap(),
        Created::New(_)
    ));
    assert_statements("create with a key", 1);
    assert!(matches!(
        store.create(new).await.unwrap(),
        Created::Existing(_)
    ));
    assert_statements("a repeated create with a key", 1);
    let early = IdempotencyKey {
        name: "early".into(),
        ..key
    };
    store.reserve(&early, mine, minute).await.unwrap();
    store
        .complete(&early, mine, response("early"))
        .await
        .unwrap();
    assert_statements("reserve and complete", 2);

    // A node that has not cached the operation reads the row first.
    let other = PostgresStore::connect(pool(proxy.port(), 2)).await.unwrap();
    let (id, token) = create(&store).await;
    proxy.executed();
    other
        .finish(&id, token, success("done"), None)
        .await
        .unwrap();
    assert_statements("read and finish", 2);
}
