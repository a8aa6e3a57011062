//! The setup of the tables, and the check of the server.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, query, query_scalar, raw_sql};
use tower_operations::store::{Health, HealthWarning};

use super::{error::PostgresError, names::PostgresNames};

/// The versions of the tables, each from the one before.
const MIGRATIONS: [&str; 4] = [
    include_str!("sql/0001.sql"),
    include_str!("sql/0002.sql"),
    include_str!("sql/0003.sql"),
    include_str!("sql/0004.sql"),
];

/// The version of the tables that this release needs.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // a handful
const KNOWN: i32 = MIGRATIONS.len() as i32;

/// The advisory lock under which nodes that start at once set up the tables one after another.
/// The number is unlikely to be used for anything else.
const LOCK: i64 = 0x746f_7765_725f_6f70;

/// Returns the scripts with the names in place.
pub(super) fn scripts(names: &PostgresNames) -> impl Iterator<Item = String> {
    MIGRATIONS.iter().map(|script| names.put_into(script))
}

/// The settings that a server reports.
pub(super) struct ServerInfo {
    pub(super) is_standby: bool,
    /// Settings that can lose acknowledged changes, with their values.
    pub(super) losing: Vec<(&'static str, Box<str>)>,
}

impl ServerInfo {
    /// Returns the settings that made a server in use less durable since the check.
    pub(super) fn health(self, durable: bool) -> Health {
        let standby = self.is_standby.then_some(HealthWarning::Standby);
        let losing = self.losing.into_iter().filter(|_| durable);
        let settings = losing.map(|(name, value)| HealthWarning::Setting {
            name: name.into(),
            value,
        });
        Health::new(standby.into_iter().chain(settings).collect())
    }
}

pub(super) async fn ask_server(connection: &mut PgConnection) -> Result<ServerInfo, sqlx::Error> {
    let row = query(include_str!("sql/server.sql"))
        .fetch_one(connection)
        .await?;
    let mut losing = Vec::new();
    for setting in ["synchronous_commit", "fsync", "full_page_writes"] {
        let value: String = row.try_get(setting)?;
        if value == "off" {
            losing.push((setting, value.into()));
        }
    }
    Ok(ServerInfo {
        is_standby: row.try_get("is_standby")?,
        losing,
    })
}

/// Refuses a server that can lose acknowledged changes, or that takes no writes.
pub(super) async fn check_server(
    connection: &mut PgConnection,
    durable: bool,
) -> Result<(), PostgresError> {
    let told = ask_server(connection).await?;
    if told.is_standby {
        return Err(PostgresError::Standby);
    }
    match told.losing.into_iter().next() {
        Some((setting, value)) if durable => Err(PostgresError::NotDurable { setting, value }),
        _ => Ok(()),
    }
}

/// Brings the tables to the version that this release needs, or returns an error if they
/// need a change and `migrate` is false.
pub(super) async fn set_up(
    connection: &mut PgConnection,
    names: &PostgresNames,
    migrate: bool,
) -> Result<(), PostgresError> {
    // This look needs no lock, and no rights that a node may lack.
    let found = version(connection, names).await?;
    if is_current(found)? {
        return Ok(());
    }
    if !migrate {
        return Err(PostgresError::OlderSchema {
            found,
            needed: KNOWN,
        });
    }
    // One transaction, whose end releases the lock.
    let mut transaction = connection.begin().await?;
    query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    // Another node may have been faster.
    let found = version(&mut transaction, names).await?;
    if is_current(found)? {
        return Ok(());
    }
    let schema = names.schema();
    let is_there: bool = query_scalar("SELECT to_regnamespace(quote_ident($1)) IS NOT NULL")
        .bind(schema)
        .fetch_one(&mut *transaction)
        .await?;
    if !is_there {
        raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{schema}\"")))
            .execute(&mut *transaction)
            .await?;
    }
    let done = usize::try_from(found).unwrap_or_default();
    for script in scripts(names).skip(done) {
        raw_sql(AssertSqlSafe(script))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    tracing::info!(from = found, to = KNOWN, "tables migrated");
    Ok(())
}

/// Returns the version of the tables, 0 if there are none.
async fn version(
    connection: &mut PgConnection,
    names: &PostgresNames,
) -> Result<i32, PostgresError> {
    // The query reads the catalogue instead of the name alone: a session that has waited
    // for the lock would otherwise use its cached name.
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = to_regclass($1))";
    let is_there: bool = query_scalar(sql)
        .bind(names.versions())
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
        return Ok(0);
    }
    let sql = names.put_into(include_str!("sql/version.sql"));
    Ok(query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await?)
}

fn is_current(found: i32) -> Result<bool, PostgresError> {
    match found > KNOWN {
        true => Err(PostgresError::NewerSchema {
            found,
            known: KNOWN,
        }),
        false => Ok(found == KNOWN),
    }
}
