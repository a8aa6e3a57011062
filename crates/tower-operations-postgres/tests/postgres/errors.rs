//! Errors keep their source and are transient or permanent.

use std::{error::Error, time::Duration};

use sqlx::{Connection, postgres::PgPoolOptions, query};
use tower_operations::{
    OperationId,
    store::{NewOperation, Owner, Repository, Store, StoreError},
};
use tower_operations_postgres::{DriverError, PostgresStore};

use crate::{
    common::{create, pool, store, success, url},
    server::Postgres,
};

/// Returns the error of the driver.
fn source(error: &StoreError) -> &sqlx::Error {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.map_or_else(
        || panic!("{error:?} has lost its source"),
        DriverError::as_sqlx,
    )
}

fn code(error: &StoreError) -> String {
    match source(error) {
        sqlx::Error::Database(error) => error.code().unwrap().into_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn connection_errors_are_transient() {
    let mut server = Postgres::start().await;
    let short = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(200));
    let pool = short.connect(&url(server.port())).await.unwrap();
    let store = PostgresStore::connect(pool.clone()).await.unwrap();
    let id = OperationId::new();

    let acquired = pool.acquire().await.unwrap();
    let error = store.get(&id).await.unwrap_err();
    assert!(error.is_transient());
    assert!(matches!(source(&error), sqlx::Error::PoolTimedOut));
    drop(acquired);
    store.get(&id).await.unwrap();

    server.stop_immediately().await;
    for _ in 0..3 {
        let error = store.get(&id).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        source(&error);
    }
    server.run().await;
    while store.get(&id).await.is_err() {}

    pool.close().await;
    let error = store.get(&id).await.unwrap_err();
    assert!(error.is_transient());
    assert!(matches!(source(&error), sqlx::Error::PoolClosed));
}

#[tokio::test]
async fn a_lock_timeout_is_transient() {
    let server = Postgres::start().await;
    let url = format!("{}&options[statement_timeout]=100ms", url(server.port()));
    let impatient = PgPoolOptions::new().connect(&url).await.unwrap();
    let store = PostgresStore::connect(impatient).await.unwrap();
    let (id, token) = create(&store).await;
    let mut locking = pool(server.port(), 1).acquire().await.unwrap();
    let mut transaction = locking.begin().await.unwrap();
    query("SELECT FROM operations FOR UPDATE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let error = store.start(&id, token).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(code(&error), "57014");
    transaction.rollback().await.unwrap();
    store.start(&id, token).await.unwrap();
}

#[tokio::test]
async fn oversized_and_damaged_data_is_a_permanent_error() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let pool = pool(server.port(), 1);

    // Longer than an index entry may be, and incompressible.
    let long: String = (0..500).map(|_| OperationId::new().to_string()).collect();
    let new = NewOperation::new(OperationId::new()).with_owner(Some(Owner::new(long)));
    let error = store.create(new).await.unwrap_err();
    assert!(!error.is_transient());
    assert_eq!(code(&error), "54000");

    let (id, token) = create(&store).await;
    query("UPDATE operations SET head = 'x'")
        .execute(&pool)
        .await
        .unwrap();
    let error = store.get(&id).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(
        error.source().unwrap().is::<serde_json::Error>(),
        "{error:?}"
    );

    query("REVOKE ALL ON operations FROM postgres")
        .execute(&pool)
        .await
        .unwrap();
    query("ALTER TABLE operations RENAME TO lost")
        .execute(&pool)
        .await
        .unwrap();
    for error in [
        store.get(&id).await.unwrap_err(),
        store
            .finish(&id, token, success("done"), None)
            .await
            .unwrap_err(),
    ] {
        // A missing table may be restored.
        assert!(error.is_transient());
        assert_eq!(code(&error), "42P01");
    }
}
