//! Benchmark of the growth of stores: how each call slows down with a larger load.
//!
//! ```not_rust
//! TMPDIR=/dev/shm cargo bench -p system-benches --bench growth
//! TMPDIR=/dev/shm cargo bench -p system-benches --bench growth -- RedbStore RedisStore
//! ```
//!
//! Arguments name the stores to measure; without any, all are measured.
//!
//! `TMPDIR` names the folder of the durable stores. A folder in memory avoids waits for a
//! disk, which take the same time under any load and hide the growth.
//!
//! A slope is the exponent of growth: 0 is no growth, 1 is growth in proportion to the load,
//! and 0.1 is a quarter longer with ten times the load. Each slope is the median of three
//! measurements between two loads that differ in one number. A time is the median of
//! consecutive calls without other clients. Medians hide rare events, such as the growth of
//! a table or the split of a page.
//!
//! Each store starts a private server if it needs one.

mod calls;
mod load;
mod slopes;

use test_support::{postgres, private, redis};
use tower_operations::MemoryStore;

use self::load::Load;

#[tokio::main]
async fn main() {
    // cargo adds an argument of its own.
    let named: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_measured = |store: &str| named.is_empty() || named.iter().any(|name| name == store);
    let memory = async || {
        MemoryStore::new()
            .max_operations(usize::MAX)
            .max_bytes(usize::MAX)
    };
    // The number of calls makes a stable median, and the factor fits into a minute.
    if is_measured("MemoryStore") {
        slopes::print("MemoryStore", memory, Load::calls(2_000).more(100)).await;
    }
    if is_measured("RedbStore") {
        let folder = private::Folder::new("growth");
        let number = std::sync::atomic::AtomicU32::new(0);
        let open = async || {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = folder.join(&format!("{number}.redb"));
            tower_operations_redb::RedbStore::open(path).expect("opened")
        };
        slopes::print("RedbStore", open, Load::calls(300).more(100)).await;
    }
    if is_measured("PostgresStore") {
        let server = postgres::Postgres::start().await;
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(16)
            .connect(&server.url())
            .await
            .expect("connected");
        let number = std::sync::atomic::AtomicU32::new(0);
        let connect = async || {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tower_operations_postgres::PostgresStore::builder(pool.clone())
                .table(&format!("growth_{number}"))
                .connect()
                .await
                .expect("connected")
        };
        slopes::print("PostgresStore", connect, Load::calls(300).more(30)).await;
    }
    if is_measured("RedisStore") {
        let server = redis::Redis::start().await;
        let number = std::sync::atomic::AtomicU32::new(0);
        let connect = async || {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tower_operations_redis::RedisBuilder::new(&server.url())
                .prefix(&format!("growth{number}"))
                .connect()
                .await
                .expect("connected")
        };
        slopes::print("RedisStore", connect, Load::calls(300).more(100)).await;
    }
}
