//! Damaged rows do not block the other rows.

use sqlx::{AssertSqlSafe, raw_sql};
use tower_operations::store::{Lease, LeaseHandle, List, ListQuery, Store};
use tower_operations_postgres::PostgresStore;

use crate::{
    common::{create, pool, store, term},
    server::Postgres,
};

async fn run(store: &sqlx::PgPool, sql: String) {
    raw_sql(AssertSqlSafe(sql)).execute(store).await.unwrap();
}

#[tokio::test]
async fn damaged_rows_do_not_block_other_rows() {
    let server = Postgres::start().await;
    let store: PostgresStore = store(&server).await;
    let admin = pool(server.port(), 1);
    run(
        &admin,
        "ALTER TABLE operations ALTER head DROP NOT NULL".into(),
    )
    .await;
    let damages = [
        "head = NULL",
        "head = 'no JSON'",
        "head = ''",
        "version = version + 1",
        "token = token + 1",
        "head = (SELECT head FROM operations ORDER BY number DESC LIMIT 1)",
        // The trigger below refuses later changes of this row only.
        "state = 'refused'",
    ];
    run(
        &admin,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF OLD.state = 'refused' AND NEW.version <> OLD.version THEN
                RAISE EXCEPTION 'damaged' USING ERRCODE = '23514';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON operations FOR EACH ROW EXECUTE FUNCTION refuse()"
            .into(),
    )
    .await;
    let mut held = Vec::new();
    for _ in 0..=damages.len() {
        let (id, token) = create(&store).await;
        held.push(LeaseHandle::new(id, token));
    }
    let good = held.last().unwrap().clone();
    store.release(&held).await.unwrap();
    for (damage, held) in damages.iter().zip(&held) {
        run(
            &admin,
            format!("UPDATE operations SET {damage} WHERE id = '{}'", held.id),
        )
        .await;
    }

    // A second handle has not cached the rows.
    let other = PostgresStore::connect(pool(server.port(), 2))
        .await
        .unwrap();
    let listed = other.list(&ListQuery::new(None, 100)).await.unwrap();
    assert!(
        listed
            .records
            .iter()
            .any(|record| *record.operation().id() == good.id)
    );
    assert!(
        listed.records.len() > damages.len() - 4,
        "{}",
        listed.records.len()
    );
    let reclaimed = other.reclaim(&term(60), 1).await.unwrap();
    assert_eq!(reclaimed.len(), 1);
    assert_eq!(*reclaimed[0].record.operation().id(), good.id);
    assert!(
        other.get(&held[0].id).await.is_err() || other.get(&held[0].id).await.unwrap().is_none()
    );

    assert!(other.reclaim(&term(60), 9).await.unwrap().is_empty());
    // Damaged rows are set aside for a while before they are tried again.
    let later = "SELECT count(*) FROM operations WHERE lease_until > now() + interval '19 min'";
    let set_aside: i64 = sqlx::query_scalar(later).fetch_one(&admin).await.unwrap();
    assert_eq!(usize::try_from(set_aside).unwrap(), damages.len());
    let lost = other.renew(&term(60), &held).await.unwrap();
    assert!(lost.contains(&good), "the lease was reclaimed");
}
