//! What the first version of the schema holds is read by every later release.

use tower_operations::{
    State,
    store::{Created, Key, Keys, Owner, Repository, Reservation, Store},
};

use crate::{
    common::{held_by_nobody, pool, store},
    server::Postgres,
};

/// Rows as they were written: an operation that runs, one that was canceled, and
/// what remains of one that was forgotten, under its key.
const ROWS: &str = include_str!("format-1.sql");

#[tokio::test]
async fn what_the_first_version_wrote_is_read() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    let pool = pool(server.port(), 1);
    sqlx::raw_sql(ROWS).execute(&pool).await.unwrap();

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
    assert_eq!(
        (progress.get_completed(), progress.get_total()),
        (Some(1), Some(3))
    );

    let canceled = store
        .get(&"report-2".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(canceled.operation().state(), State::Canceled);

    let key = Key {
        name: "key-3".into(),
        fingerprint: [7; 32],
    };
    let found = store
        .create(held_by_nobody("report-4").key(key.clone()))
        .await;
    let Created::Existing(remains) = found.unwrap() else {
        panic!("the key was lost");
    };
    assert_eq!(remains.operation().id(), &"report-3".parse().unwrap());
    let token = tower_operations::store::FencingToken::random();
    let term = std::time::Duration::from_secs(1);
    let reserved = store.reserve(&key, None, token, term).await.unwrap();
    assert!(
        matches!(reserved, Reservation::Operation(_)),
        "{reserved:?}"
    );
}
