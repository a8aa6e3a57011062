//! Rows of the first version of the schema are readable by every later release.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, raw_sql};
use tower_operations::{
    OperationId, State,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, NewOperation, Owner, Repository,
        Reservation, Store,
    },
};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{pool, store, success, without_lease},
    server::Postgres,
};

/// Rows as the first version wrote them: a running operation, a canceled operation, and
/// the key of a deleted operation.
const ROWS: &str = include_str!("format-1.sql");
/// An operation created with a key of its owner, a key reserved by its owner, and an
/// unowned key with the name of an owned one.
const KEYS: &str = include_str!("format-1-keys.sql");

async fn run(pool: &PgPool, sql: &str) {
    let ran = raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await;
    ran.unwrap();
}

/// Creates the tables of the first version with these rows.
async fn first_version(server: &Postgres, rows: &str) -> PgPool {
    let pool = pool(server.port(), 4);
    let scripts = PostgresStore::migrations("public", "operations").unwrap();
    run(&pool, &scripts[0]).await;
    run(&pool, rows).await;
    pool
}

fn ada_key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(Some(Owner::new("ada")), name, [7; 32])
}

#[tokio::test]
async fn keys_of_the_first_version_are_scoped_by_owner() {
    let server = Postgres::start().await;
    first_version(&server, KEYS).await;
    let store = store(&server).await;
    let term = Duration::from_secs(60);
    let reserve_key =
        async |key: &IdempotencyKey, token| store.reserve(key, token, term).await.unwrap();

    // The names are free without an owner and for other owners.
    let bob = Some(Owner::new("bob"));
    for owner in [None, bob] {
        let key = IdempotencyKey {
            owner,
            ..ada_key("key-5")
        };
        let free = reserve_key(&key, FencingToken::random()).await;
        assert!(matches!(free, Reservation::Reserved(_)), "{free:?}");
        let new = NewOperation::new(OperationId::new()).with_owner(key.owner.clone());
        let key = IdempotencyKey {
            name: "key-6".into(),
            ..key
        };
        let created = store.create(new.with_key(key)).await.unwrap();
        assert!(matches!(created, Created::New(_)), "{created:?}");
    }
    let found = reserve_key(&ada_key("key-5"), FencingToken::random()).await;
    let Reservation::Operation(found) = found else {
        panic!("{found:?}");
    };
    assert_eq!(found.operation().id(), &"report-5".parse().unwrap());
    let reserved = reserve_key(&ada_key("key-6"), FencingToken::random()).await;
    assert!(matches!(reserved, Reservation::InProgress), "{reserved:?}");
    let token = FencingToken::from_number(77);
    assert!(
        store
            .release_reservation(&ada_key("key-6"), token)
            .await
            .unwrap()
    );
    let token = FencingToken::from_number(78);
    let alike = IdempotencyKey::new(None, "@3:adakey-5", [7; 32]);
    assert!(store.release_reservation(&alike, token).await.unwrap());

    // The key still belongs to its operation.
    let id = found.operation().id();
    store
        .finish(id, found.token(), success("done"), None)
        .await
        .unwrap();
    let ended = store.get(id).await.unwrap().unwrap();
    store.delete(id, ended.stamp().unwrap()).await.unwrap();
    let deleted = reserve_key(&ada_key("key-5"), FencingToken::random()).await;
    assert!(matches!(deleted, Reservation::Deleted(_)), "{deleted:?}");
}

/// Nodes of the previous release keep running during the migration of the tables, and after it.
#[tokio::test]
async fn keys_written_by_first_version_nodes_are_scoped_by_owner() {
    let server = Postgres::start().await;
    let pool = first_version(&server, KEYS).await;
    let store = store(&server).await;
    run(
        &pool,
        "SELECT operations_insert_1('report-7', 1, 5, 'pending', 'ada', \
             '{\"format\":1,\"id\":\"report-7\",\"version\":1,\"state\":\"pending\",\
             \"owner\":\"ada\",\"token\":5,\"attempts\":0}', \
             NULL, NULL, 'key-7', decode(repeat('07', 32), 'hex'), NULL, now()); \
         SELECT operations_reserve_1('key-8', 'ada', decode(repeat('07', 32), 'hex'), 79, \
             interval '1 hour', now())",
    )
    .await;
    let term = Duration::from_secs(60);
    let reserve_key = async |key: IdempotencyKey| {
        let token = FencingToken::random();
        store.reserve(&key, token, term).await.unwrap()
    };
    let found = reserve_key(ada_key("key-7")).await;
    assert!(matches!(found, Reservation::Operation(_)), "{found:?}");
    let found = reserve_key(ada_key("key-8")).await;
    assert!(matches!(found, Reservation::InProgress), "{found:?}");
    for name in ["key-7", "key-8"] {
        let free = reserve_key(IdempotencyKey::new(None, name, [7; 32])).await;
        assert!(matches!(free, Reservation::Reserved(_)), "{free:?}");
    }
    // An insert that raced with the migration is refused.
    let old = "INSERT INTO operations_keys (name, owner, fingerprint, stands_for) \
               VALUES ('key-9', 'ada', '', 'request')";
    let refused = raw_sql(old).execute(&pool).await.unwrap_err();
    assert!(
        refused.to_string().contains("check constraint"),
        "{refused}"
    );
}

#[tokio::test]
async fn rows_of_the_first_version_are_readable() {
    let server = Postgres::start().await;
    first_version(&server, ROWS).await;
    let store = store(&server).await;

    let running = store
        .get(&"report-1".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(running.operation().state(), State::Running);
    assert_eq!(running.version().unwrap().get(), 3);
    assert_eq!(running.owner(), Some(&Owner::new("ada")));
    assert_eq!(running.attempts(), 1);
    assert_eq!(running.history().len(), 2);
    let progress = running.operation().metadata().progress().unwrap();
    assert_eq!((progress.completed(), progress.total()), (Some(1), Some(3)));

    let canceled = store
        .get(&"report-2".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(canceled.operation().state(), State::Canceled);

    let key = IdempotencyKey::new(None, "key-3", [7; 32]);
    let found = store
        .create(without_lease("report-4").with_key(key.clone()))
        .await;
    let Created::KeyHeld(Reservation::Deleted(deleted)) = found.unwrap() else {
        panic!("the key was lost");
    };
    assert_eq!(deleted.operation().id(), &"report-3".parse().unwrap());
    let term = Duration::from_secs(1);
    let reserved = store.reserve(&key, FencingToken::random(), term).await;
    assert!(matches!(reserved, Ok(Reservation::Deleted(_))));
}
