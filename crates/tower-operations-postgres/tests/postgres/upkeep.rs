//! Purging by recovery, and the health of the store.

use std::time::Duration;

use sqlx::{AssertSqlSafe, query_scalar, raw_sql};
use tokio::time::{Instant, sleep};
use tower_operations::{
    Operations, RecoveryStats,
    store::{HealthWarning, LeaseConfig, NodeId, Repository, Store},
};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{STUCK, create, pool, store, success},
    server::Postgres,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_recoveries_purge_exactly_the_expired_operations() {
    const EXPIRED: u64 = 1100;
    let server = Postgres::start().await;
    let store = store(&server).await;
    let (id, token) = create(&store).await;
    let brief = store.clone().ttl(Duration::from_millis(1));
    brief.finish(&id, token, success("x"), None).await.unwrap();
    let (live, _) = create(&store).await;
    // Copies of the expired operation.
    let admin = pool(server.port(), 1);
    let more = format!(
        "INSERT INTO operations (id, version, token, state, expires_at, head)
         SELECT o.id || '-' || n, version, token, state, expires_at, head
         FROM operations AS o, generate_series(2, {EXPIRED}) AS n WHERE expires_at IS NOT NULL"
    );
    raw_sql(AssertSqlSafe(more)).execute(&admin).await.unwrap();

    let mut all = Vec::new();
    for _ in 0..2 {
        let lease = LeaseConfig::new(NodeId::new(), Duration::from_millis(300));
        let recovery = Operations::new(store.clone()).lease(lease).recovery();
        all.push(recovery.stats());
        tokio::spawn(recovery.run());
    }
    let begun = Instant::now();
    let purged = || all.iter().map(RecoveryStats::purged).sum::<u64>();
    while purged() < EXPIRED {
        assert!(begun.elapsed() < STUCK, "{all:?}");
        sleep(Duration::from_millis(5)).await;
    }
    let left: i64 = query_scalar("SELECT count(*) FROM operations")
        .fetch_one(&admin)
        .await
        .unwrap();
    assert_eq!((purged(), left), (EXPIRED, 1));
    assert!(store.get(&live).await.unwrap().is_some());
}

#[tokio::test]
async fn changed_settings_are_health_warnings() {
    let server = Postgres::start().await;
    let admin = pool(server.port(), 1);
    let careless = PostgresStore::builder(pool(server.port(), 1)).accept_data_loss();
    let careless = careless.connect().await.unwrap();
    let store = store(&server).await;
    let set = async |sql: &str| {
        for sql in [sql, "SELECT pg_reload_conf()"] {
            raw_sql(AssertSqlSafe(sql.to_owned()))
                .execute(&admin)
                .await
                .unwrap();
        }
    };
    let wait_for_warnings = async |expected: &[HealthWarning]| {
        let begun = Instant::now();
        while store.health().await.unwrap().warnings != expected {
            assert!(begun.elapsed() < STUCK, "{:?}", store.health().await);
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(store.health().await.unwrap().is_good());
    for setting in ["synchronous_commit", "full_page_writes"] {
        set(&format!("ALTER SYSTEM SET {setting} = off")).await;
        let warning = HealthWarning::Setting {
            name: setting.into(),
            value: "off".into(),
        };
        wait_for_warnings(&[warning]).await;
        assert!(
            careless.health().await.unwrap().is_good(),
            "data loss was accepted"
        );
        set(&format!("ALTER SYSTEM SET {setting} = on")).await;
        wait_for_warnings(&[]).await;
    }
}
