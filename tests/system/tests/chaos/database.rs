//! The store of a scenario, and its faults.

use std::time::Duration;

use redb::{ReadableTable, TableDefinition};
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use test_support::{postgres::Postgres, private::Folder, redis::Redis};
use tokio::time::sleep;

pub(crate) enum Database {
    Memory,
    Redb,
    Postgres(Postgres),
    Redis(Redis),
}

/// The size of a result, in bytes, that the store refuses.
pub(crate) const TOO_LARGE: usize = 1_048_576;

const GARBAGE: &[u8] = b"\xff\x00 this is no record";

impl Database {
    pub(crate) async fn postgres() -> Self {
        Self::Postgres(Postgres::start().await)
    }

    /// Starts a Redis that refuses large values.
    pub(crate) async fn redis() -> Self {
        let limit = TOO_LARGE.to_string();
        Self::Redis(Redis::with(&["--proto-max-bulk-len", &limit]).await)
    }

    pub(crate) fn url(&self, folder: &Folder) -> String {
        match self {
            Self::Memory => "memory".into(),
            Self::Redb => format!("redb:{}", folder.join("store").display()),
            Self::Postgres(postgres) => postgres.url(),
            Self::Redis(redis) => redis.url(),
        }
    }

    pub(crate) fn is_in_the_node(&self) -> bool {
        matches!(self, Self::Memory | Self::Redb)
    }

    /// Makes the database refuse large results, once its tables exist.
    pub(crate) async fn refuse_large_results(&self) {
        if let Self::Postgres(_) = self {
            let check = format!(
                "ALTER TABLE operations ADD CONSTRAINT small CHECK (octet_length(result) < \
                 {TOO_LARGE})"
            );
            self.sql(&check).await;
        }
    }

    /// Stops or kills the database, and starts it after a pause.
    pub(crate) async fn interrupt(&mut self, kills: bool, pause: Duration) {
        match self {
            Self::Memory | Self::Redb => unreachable!("the store is in the node"),
            Self::Postgres(postgres) => {
                match kills {
                    true => postgres.kill().await,
                    false => postgres.stop().await,
                }
                sleep(pause).await;
                postgres.run().await;
            }
            Self::Redis(redis) => {
                match kills {
                    true => redis.kill().await,
                    false => redis.stop().await,
                }
                sleep(pause).await;
                redis.run().await;
            }
        }
    }

    /// Makes an operation unreadable: replaces the operation or its record by garbage, or
    /// removes the operation and leaves its index entries.
    pub(crate) async fn damage(&self, folder: &Folder, operation: &str, kind: usize) {
        match self {
            Self::Memory => unreachable!("the memory of a node cannot be damaged"),
            Self::Redb => damage_file(folder, operation, kind),
            Self::Postgres(_) => {
                let head = match kind % 2 {
                    0 => "'\\x7b'",
                    _ => "''",
                };
                let update =
                    format!("UPDATE operations SET head = {head} WHERE id = '{operation}'");
                self.sql(&update).await;
            }
            Self::Redis(redis) => {
                let client = ::redis::Client::open(redis.url()).unwrap();
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                let cell = format!("operations/{{{operation}}}");
                let commands: &[&[&[u8]]] = match kind % 3 {
                    0 => &[&[b"DEL", cell.as_bytes()], &[b"SET", cell.as_bytes(), b"x"]],
                    1 => &[&[b"HSET", cell.as_bytes(), b"h", GARBAGE]],
                    _ => &[&[b"HSET", cell.as_bytes(), b"v", b"x", b"t", b"x", b"h", b""]],
                };
                for words in commands {
                    let mut command = ::redis::Cmd::new();
                    command.arg(*words);
                    command.exec_async(&mut connection).await.unwrap();
                }
            }
        }
    }

    async fn sql(&self, text: &str) {
        let Self::Postgres(postgres) = self else {
            unreachable!("the database is PostgreSQL");
        };
        let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
        let done = raw_sql(AssertSqlSafe(text)).execute(&mut connection).await;
        done.unwrap();
    }
}

/// Damages an operation in a file that no process has open.
fn damage_file(folder: &Folder, operation: &str, kind: usize) {
    const CELLS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("cells");
    let database = redb::Database::open(folder.join("store")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut cells = write.open_table(CELLS).unwrap();
        let id = operation.as_bytes();
        match kind % 3 {
            0 => drop(cells.insert(id, GARBAGE).unwrap()),
            1 => drop(cells.remove(id).unwrap()),
            _ => {
                // The row keeps its start, and loses the end of its record.
                let row = cells.get(id).unwrap().map(|row| row.value().to_vec());
                let mut row = row.expect("the operation was accepted");
                row.truncate(row.len() - 20);
                cells.insert(id, &*row).unwrap();
            }
        }
    }
    write.commit().unwrap();
}
