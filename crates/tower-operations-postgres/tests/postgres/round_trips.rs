//! How often the server is asked.

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
    let asked = |what: &str, times: usize| {
        let executed = proxy.executed();
        assert_eq!(executed.len(), times, "{what}: {executed:#?}");
    };
    proxy.executed();

    let (id, token) = create(&store).await;
    asked("create", 1);
    store.start(&id, token).await.unwrap();
    asked("start", 1);
    store
        .report(&id, token, Progress::from_count(1, 2))
        .await
        .unwrap();
    asked("report", 1);
    let held = (0..100).map(|_| LeaseHandle::new(OperationId::new(), token));
    let held: Vec<_> = held.collect();
    assert_eq!(store.renew(&term(60), &held).await.unwrap().len(), 100);
    asked("renew", 1);
    store.release(&held).await.unwrap();
    asked("release", 1);
    let Written::Done(record) = store
        .finish(&id, token, success("done"), None)
        .await
        .unwrap()
    else {
        panic!("it was not finished");
    };
    asked("finish", 1);
    store.get(&id).await.unwrap();
    asked("poll", 1);
    store
        .changed(&id, Version::FIRST, Duration::from_secs(9))
        .await
        .unwrap();
    asked("a wait for what has changed already", 1);
    store.list(&ListQuery::new(None, 10)).await.unwrap();
    asked("list", 1);
    store.delete(&id, record.version().unwrap()).await.unwrap();
    asked("read and forget", 2);
    store.purge(100).await.unwrap();
    asked("purge: operations, then keys", 2);

    let key = IdempotencyKey::new(None, "once", [1; 32]);
    let (mine, minute) = (FencingToken::random(), Duration::from_secs(60));
    store.reserve(&key, mine, minute).await.unwrap();
    asked("reserve", 1);
    let new = NewOperation::new(OperationId::new())
        .with_key(key.clone())
        .with_reservation(mine);
    assert!(matches!(
        store.create(new.clone()).await.unwrap(),
        Created::New(_)
    ));
    asked("create with a key", 1);
    assert!(matches!(
        store.create(new).await.unwrap(),
        Created::Existing(_)
    ));
    asked("the same again", 1);
    let early = IdempotencyKey {
        name: "early".into(),
        ..key
    };
    store.reserve(&early, mine, minute).await.unwrap();
    store
        .complete(&early, mine, response("early"))
        .await
        .unwrap();
    asked("reserve and settle", 2);

    // Of a node that does not know it yet.
    let other = PostgresStore::connect(pool(proxy.port(), 2)).await.unwrap();
    let (id, token) = create(&store).await;
    proxy.executed();
    other
        .finish(&id, token, success("done"), None)
        .await
        .unwrap();
    asked("read and finish", 2);
}
