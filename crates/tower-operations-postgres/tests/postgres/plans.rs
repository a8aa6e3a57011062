//! Query plans: each statement uses an index, and updates stay within their page where
//! possible.

use sqlx::{AssertSqlSafe, Connection, PgConnection, query, query_scalar, raw_sql};
use tower_operations::{Progress, store::Repository};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{create, pool, store, success, url},
    server::Postgres,
};

const NAMES: [(&str, &str); 2] = [
    ("{operations}", "operations"),
    ("{keys}", "operations_keys"),
];

/// Fifty thousand ended operations of ten owners, and a hundred live ones.
const ROWS: &str = "
    INSERT INTO operations (id, version, token, state, owner, key, expires_at, head)
    SELECT 'ended-' || n, 3, n, 'succeeded',
        CASE WHEN n % 3 > 0 THEN convert_to('owner ' || n % 10, 'UTF8') END,
        CASE WHEN n % 2 > 0 THEN convert_to('key ' || n, 'UTF8') END,
        now() + n * interval '1 second', '{}'
    FROM generate_series(1, 50000) AS n;
    INSERT INTO operations_keys (name, fingerprint, stands_for, operation)
    SELECT convert_to('key ' || n, 'UTF8'), '', 'operation', 'ended-' || n
    FROM generate_series(1, 50000, 2) AS n;
    INSERT INTO operations_keys (name, fingerprint, stands_for, token, until)
    SELECT convert_to('reserved ' || n, 'UTF8'), '', 'request', n, now() + n * interval '1 second'
    FROM generate_series(1, 5000) AS n;
    INSERT INTO operations (id, version, token, state, lease_until, head)
    SELECT 'live-' || n, 2, n, 'running', now() + n * interval '1 second', '{}'
    FROM generate_series(1, 100) AS n;
    ANALYZE operations, operations_keys";

/// The arguments of `write.sql`.
const WRITE: &str = "'{new}'::text[], '{1}'::bigint[], '{1}'::bigint[], '{pending}'::text[],
    '{a}'::bytea[], '{a}'::bytea[], '{1}'::bigint[], '{a}'::bytea[],
    '{live-1,live-2}'::text[], '{2,2}'::bigint[], '{1,2}'::bigint[],
    '{3,3}'::bigint[], '{1,2}'::bigint[], '{running,running}'::text[],
    '{a,b}'::bytea[],
    '{live-3,live-4}'::text[], '{2,2}'::bigint[], '{3,4}'::bigint[],
    '{3,3}'::bigint[], '{3,4}'::bigint[], '{failed,failed}'::text[],
    '{a,b}'::bytea[], '{a,b}'::bytea[], '{1,2}'::bigint[]";

/// Returns the plan of a statement, generic or for these arguments.
async fn plan(connection: &mut PgConnection, sql: &str, arguments: &str, generic: bool) -> String {
    let sql = NAMES.iter().fold(sql.to_owned(), |sql, (place, name)| {
        sql.replace(place, name)
    });
    let mode = if generic {
        "force_generic_plan"
    } else {
        "force_custom_plan"
    };
    let types = arguments.matches("::").count();
    assert!(types > 0, "each value has its type");
    let set_up = format!("DEALLOCATE ALL; SET plan_cache_mode = {mode}; PREPARE asked AS {sql}");
    raw_sql(AssertSqlSafe(set_up))
        .execute(&mut *connection)
        .await
        .unwrap();
    let explain = format!("EXPLAIN EXECUTE asked ({arguments})");
    let rows: Vec<String> = query_scalar(AssertSqlSafe(explain))
        .persistent(false)
        .fetch_all(connection)
        .await
        .unwrap();
    rows.join("\n")
}

#[tokio::test]
async fn no_statement_reads_the_whole_table() {
    let server = Postgres::start().await;
    PostgresStore::connect(pool(server.port(), 1))
        .await
        .unwrap();
    let mut connection = PgConnection::connect(&url(server.port())).await.unwrap();
    raw_sql(ROWS).execute(&mut connection).await.unwrap();
    let list = include_str!("../../src/sql/list.sql");
    let unowned = list.replace("{is_owner}", "IS NULL AND $1::bytea IS NULL");
    let list = list.replace("{is_owner}", "= $1");
    for (sql, arguments, index) in [
        (
            include_str!("../../src/sql/read.sql"),
            "'live-1'::text, false::boolean, 'owner 7'::bytea, 9::bigint",
            "operations_pkey",
        ),
        (
            include_str!("../../src/sql/abandoned.sql"),
            "10::bigint",
            "operations_by_lease",
        ),
        (
            &list,
            "'owner 7'::bytea, 9000::bigint, null::text[], 0::bigint, 20::bigint, 1000::bigint, 9::bigint",
            "operations_by_owner",
        ),
        (
            &unowned,
            "null::bytea, 9000::bigint, null::text[], 0::bigint, 20::bigint, 1000::bigint, 9::bigint",
            "operations_by_owner",
        ),
        (
            include_str!("../../src/sql/purge.sql"),
            "0::bigint, 100::bigint",
            "operations_by_expiry",
        ),
        (
            include_str!("../../src/sql/purge_keys.sql"),
            "0::bigint, 100::bigint",
            "operations_keys_by_until",
        ),
        (
            include_str!("../../src/sql/renew.sql"),
            "'{live-1,live-2}'::text[], '{1,2}'::bigint[], 9::bigint",
            "operations_pkey",
        ),
        (
            include_str!("../../src/sql/release.sql"),
            "'{live-1,live-2}'::text[], '{1,2}'::bigint[]",
            "operations_pkey",
        ),
        (
            include_str!("../../src/sql/write.sql"),
            WRITE,
            "operations_pkey",
        ),
        (
            include_str!("../../src/sql/change.sql"),
            "'live-1'::text, 2::bigint, 1::bigint, 3::bigint, 1::bigint, 'running'::text, ''::bytea",
            "operations_pkey",
        ),
        (
            include_str!("../../src/sql/end.sql"),
            "'live-1'::text, 2::bigint, 1::bigint, 3::bigint, 1::bigint, 'running'::text, ''::bytea, ''::bytea, 0::bigint",
            "operations_pkey",
        ),
        (
            include_str!("../../src/sql/take_over.sql"),
            "'live-1'::text, 2::bigint, 1::bigint, 3::bigint, 1::bigint, 'running'::text, ''::bytea, 0::bigint",
            "operations_pkey",
        ),
        (
            include_str!("../../src/sql/delete.sql"),
            "'ended-1'::text, 3::bigint, 1::bigint, ''::bytea, 0::bigint",
            "operations_pkey",
        ),
        (
            include_str!("../../src/sql/settle.sql"),
            "'key 1'::bytea, 1::bigint, ''::bytea, 1::bigint",
            "operations_keys_pkey",
        ),
        (
            include_str!("../../src/sql/release_key.sql"),
            "'key 1'::bytea, 1::bigint",
            "operations_keys_pkey",
        ),
    ] {
        for generic in [true, false] {
            let plan = plan(&mut connection, sql, arguments, generic).await;
            assert!(plan.contains(index), "not by {index}:\n{sql}\n{plan}");
            assert!(!plan.contains("Seq Scan"), "{sql}\n{plan}");
            // The rows of a page may be sorted, but not all matching rows.
            let below = plan.split_once("Limit").map_or("", |(_, below)| below);
            assert!(!below.contains("Sort Key"), "{sql}\n{plan}");
        }
    }
}

#[tokio::test]
async fn starts_and_reports_are_hot_updates() {
    let server = Postgres::start().await;
    let store = store(&server).await;
    for _ in 0..50 {
        let (id, token) = create(&store).await;
        store.start(&id, token).await.unwrap();
        store
            .report(&id, token, Progress::from_count(1, 2))
            .await
            .unwrap();
        store
            .finish(&id, token, success("done"), None)
            .await
            .unwrap();
    }
    let pool = pool(server.port(), 1);
    // The statistics are flushed with a delay.
    let begun = tokio::time::Instant::now();
    loop {
        query("SELECT pg_stat_force_next_flush()")
            .execute(&pool)
            .await
            .unwrap();
        let (all, within): (i64, i64) = sqlx::query_as(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'operations'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        if all == 150 {
            assert!(within >= 80, "{within} of 100 possible HOT updates");
            return;
        }
        assert!(begun.elapsed() < crate::common::STUCK, "{all} updates");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A plan is kept as long as the server does not know that the table has grown.
#[tokio::test]
async fn joint_writes_use_the_index_of_a_table_without_statistics() {
    let server = Postgres::start().await;
    PostgresStore::connect(pool(server.port(), 1))
        .await
        .unwrap();
    let mut connection = PgConnection::connect(&url(server.port())).await.unwrap();
    for generic in [true, false] {
        let sql = include_str!("../../src/sql/write.sql");
        let plan = plan(&mut connection, sql, WRITE, generic).await;
        assert!(plan.contains("operations_pkey"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
}
