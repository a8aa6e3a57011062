//! By how much each operation of a store slows down as there is more of something.
//!
//! ```not_rust
//! TMPDIR=/dev/shm cargo bench -p system-benches --bench growth
//! ```
//!
//! `TMPDIR` says where the durable stores keep their files. In memory they never wait for
//! a disk: that takes as long however much there is, and hides what grows.
//!
//! A slope is the exponent of growth: 0 is no growth, 1 is as much longer as there is
//! more, 0.1 is a quarter longer with ten times as much. Each is the median of three that are
//! measured between two loads which differ in one thing. A time is the median
//! of one call after another, with nobody else there; so is a slope that of medians, and
//! what happens once in a while, a table that grows or a page that splits, is not in it.
//!
//! The stores of the features that are on take part; each starts a server of its own if
//! it needs one.

mod calls;
mod load;
mod slopes;

use test_support::{postgres, private, redis};
use tower_operations::MemoryStore;

use self::load::Load;

#[tokio::main]
async fn main() {
    let memory = async || {
        MemoryStore::new()
            .max_operations(usize::MAX)
            .max_bytes(usize::MAX)
    };
    // As many calls as make a steady median, and as much more as fits into a minute.
    slopes::print("MemoryStore", memory, Load::calls(2_000).more(100)).await;

    {
        let folder = private::Folder::new("growth");
        let number = std::sync::atomic::AtomicU32::new(0);
        let open = async || {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = folder.join(&format!("{number}.redb"));
            tower_operations_redb::RedbStore::open(path).expect("opened")
        };
        slopes::print("RedbStore", open, Load::calls(300).more(100)).await;
    }
    {
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
    {
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
