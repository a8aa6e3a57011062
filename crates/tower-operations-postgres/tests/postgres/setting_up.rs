//! Migrations, names, permissions, and refused servers.

use std::{fs, time::Duration};

use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions, query, query_scalar, raw_sql};
use test_support::said::LogOutput;
use tokio::{task::JoinSet, time::timeout};
use tower_operations::{
    OperationId,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, List, ListQuery, NewOperation,
        Purge, Repository, Store, Written,
    },
};
use tower_operations_postgres::{PostgresError, PostgresStore};

use crate::{
    common::{STUCK, create, pool, store, success, term},
    server::Postgres,
};

async fn run(pool: &PgPool, sql: &str) {
    raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_connects_migrate_once() {
    let server = Postgres::start().await;
    let mut nodes = JoinSet::new();
    for _ in 0..12 {
        let pool = pool(server.port(), 2);
        nodes.spawn(async move {
            let builder = PostgresStore::builder(pool).schema("Mine");
            builder.connect().await.unwrap()
        });
    }
    let nodes = nodes.join_all().await;
    let (id, _) = create(&nodes[0]).await;
    assert!(nodes[11].get(&id).await.unwrap().is_some());
    let pool = pool(server.port(), 1);
    let versions: Vec<i32> = query_scalar("SELECT version FROM \"Mine\".operations_versions")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(versions, [1, 2, 3, 4]);

    let newer = "INSERT INTO \"Mine\".operations_versions (version) VALUES (99)";
    query(newer).execute(&pool).await.unwrap();
    let refused = PostgresStore::builder(pool).schema("Mine").connect().await;
    assert!(matches!(
        refused,
        Err(PostgresError::NewerSchema {
            found: 99,
            known: 4
        })
    ));
}

#[tokio::test]
async fn existing_tables_need_no_create_permission() {
    let server = Postgres::start().await;
    let admin = pool(server.port(), 2);
    run(&admin, "CREATE ROLE app LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE SCHEMA jobs; GRANT USAGE ON SCHEMA jobs TO app").await;
    let app = || {
        let url = format!(
            "postgres://app@127.0.0.1:{}/postgres?sslmode=disable",
            server.port()
        );
        PgPool::connect_lazy(&url).unwrap()
    };
    let builder = || PostgresStore::builder(app()).schema("jobs").table("ops");
    let refused = builder().migrate(false).connect().await;
    assert!(matches!(
        refused,
        Err(PostgresError::OlderSchema {
            found: 0,
            needed: 4
        })
    ));
    let refused = builder().connect().await;
    let Err(error @ PostgresError::Database(_)) = refused else {
        panic!("{refused:?}");
    };
    assert!(error.to_string().contains("permission denied"), "{error}");

    for script in PostgresStore::migrations("jobs", "ops").unwrap() {
        run(&admin, &script).await;
    }
    run(
        &admin,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON jobs.ops, jobs.ops_keys TO app; \
         GRANT SELECT ON jobs.ops_versions TO app",
    )
    .await;
    let store = builder().migrate(false).connect().await.unwrap();
    let store = store.ttl(Duration::from_millis(1));
    let (id, token) = create(&store).await;
    store.start(&id, token).await.unwrap();
    let finished = store
        .finish(&id, token, success("done"), None)
        .await
        .unwrap();
    assert!(matches!(finished, Written::Done(_)));
    let key = IdempotencyKey::new(None, "key", [0; 32]);
    let mine = FencingToken::random();
    store
        .reserve(&key, mine, Duration::from_secs(9))
        .await
        .unwrap();
    let new = NewOperation::new(OperationId::new())
        .with_key(key)
        .with_reservation(mine)
        .with_lease(term(60));
    assert!(matches!(store.create(new).await.unwrap(), Created::New(_)));
    let listed = store.list(&ListQuery::new(None, 10)).await.unwrap();
    assert_eq!(listed.records.len(), 1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(store.purge(10).await.unwrap(), 1);
    // A connect with migrations enabled changes nothing.
    builder().connect().await.unwrap();
}

#[tokio::test]
async fn stores_in_different_tables_are_separate() {
    let server = Postgres::start().await;
    let named = async |schema, table| {
        let builder = PostgresStore::builder(pool(server.port(), 2));
        builder.schema(schema).table(table).connect().await.unwrap()
    };
    let stores = [
        named("public", "operations").await,
        named("public", "Operations").await,
        named("public", &"x".repeat(49)).await,
        named("other", "operations").await,
    ];
    let new = NewOperation::new(OperationId::new());
    for store in &stores {
        assert!(matches!(
            store.create(new.clone()).await.unwrap(),
            Created::New(_)
        ));
    }
    for bad in ["", "1st", "a b", "a\"b", &"x".repeat(50)] {
        let builder = PostgresStore::builder(pool(server.port(), 1)).table(bad);
        let refused = builder.connect().await;
        assert!(
            matches!(refused, Err(PostgresError::InvalidName { .. })),
            "{bad}"
        );
        assert!(PostgresStore::migrations("public", bad).is_err());
    }
}

#[tokio::test]
async fn data_loss_settings_are_refused_unless_accepted() {
    for name in ["synchronous_commit", "fsync", "full_page_writes"] {
        let server = Postgres::with(&[&format!("{name}=off")]).await;
        let refused = PostgresStore::connect(pool(server.port(), 1)).await;
        match refused {
            Err(PostgresError::NotDurable { setting, value }) => {
                assert_eq!((setting, &*value), (name, "off"));
            }
            other => panic!("{other:?}"),
        }
        let builder = PostgresStore::builder(pool(server.port(), 1));
        builder.accept_data_loss().connect().await.unwrap();
    }
}

#[tokio::test]
async fn a_standby_is_refused_and_never_read() {
    let mut server = Postgres::start().await;
    let store = store(&server).await;
    let (id, token) = create(&store).await;
    let folder: String = query_scalar("SHOW data_directory")
        .fetch_one(&pool(server.port(), 1))
        .await
        .unwrap();
    server.stop().await;
    let signal = format!("{folder}/standby.signal");
    fs::write(&signal, "").unwrap();
    server.run().await;
    let refused = PostgresStore::connect(pool(server.port(), 1)).await;
    assert!(
        matches!(refused, Err(PostgresError::Standby)),
        "{refused:?}"
    );
    for error in [
        store.get(&id).await.unwrap_err(),
        store.get(&OperationId::new()).await.unwrap_err(),
        store.list(&ListQuery::new(None, 10)).await.unwrap_err(),
        store.start(&id, token).await.unwrap_err(),
        store
            .create(NewOperation::new(OperationId::new()))
            .await
            .unwrap_err(),
    ] {
        assert!(error.is_transient(), "{error:?}");
    }
    server.stop().await;
    fs::remove_file(&signal).unwrap();
    server.run().await;
    let mut starts = 0;
    while store.start(&id, token).await.is_err() {
        starts += 1;
        assert!(starts < 10, "the server does not recover");
    }
}

#[tokio::test]
async fn connect_errors_contain_the_cause_and_no_password() {
    let server = Postgres::start().await;
    for (url, cause) in [
        ("postgres://app:s3cret@127.0.0.1:1/db".to_owned(), "refused"),
        (
            format!("postgres://app:s3cret@127.0.0.1:{}/db", server.port()),
            "role \"app\" does not exist",
        ),
    ] {
        let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(300));
        let pool = pool.connect_lazy(&url).unwrap();
        let connected = timeout(STUCK, PostgresStore::builder(pool).connect()).await;
        let error = connected.expect("the connect fails early").unwrap_err();
        let (shown, debugged) = (error.to_string(), format!("{error:?}"));
        assert!(shown.contains(cause), "{shown}");
        assert!(shown.ends_with(cause) || !shown.contains("role"), "{shown}");
        assert!(!shown.contains("s3cret") && !debugged.contains("s3cret"));
    }
}

#[tokio::test]
async fn a_slow_first_connection_is_logged() {
    let (log, _default) = LogOutput::collect();
    // No server listens on this port, and the pool retries.
    let url = "postgres://app:s3cret@127.0.0.1:1/db";
    for (wait, is_logged) in [(300, false), (2_500, true)] {
        let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(wait));
        let pool = pool.connect_lazy(url).unwrap();
        let connected = timeout(STUCK, PostgresStore::builder(pool).connect()).await;
        connected.expect("the connect times out").unwrap_err();
        let text = log.text();
        let line = text.lines().find(|line| line.contains("waiting"));
        assert_eq!(line.is_some(), is_logged, "{text}");
        if let Some(line) = line {
            assert!(
                line.contains("WARN") && line.contains("127.0.0.1"),
                "{line}"
            );
            assert!(line.contains("port=1 "), "{line}");
        }
        assert!(!text.contains("s3cret"), "{text}");
    }
}
