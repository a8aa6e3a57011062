//! Benchmark of `PostgresStore` against pgbench on an equal table of the same server.
//!
//! Run with: `cargo bench -p tower-operations-postgres` (about forty seconds).
//! The benchmark starts a private server on the disk that `TMPDIR` names, and prints a
//! table.
//!
//! *pgbench* inserts, updates and selects one row after the other on each of its connections. Each
//! statement is prepared and committed durably. A second run of pgbench has a second update, which
//! corresponds to the start of an operation that was not created as running, since its service was
//! not ready. Whole operations per second are compared with the transactions of the first run of
//! pgbench. The last run of pgbench has as many connections as the most callers of the store.
//!
//! The store has 16 connections, and more callers: a server accepts more requests at a time than it
//! has connections to its database.

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::Response;
use sqlx::postgres::PgPoolOptions;
use test_support::{postgres as server, private};
use tower_operations::{
    BufferedBody, OperationId, Outcome, RecordedResponse,
    store::{Created, LeaseConfig, NewOperation, Repository, Store},
};
use tower_operations_postgres::PostgresStore;

/// The connections of the store, and of pgbench.
const CONNECTIONS: u32 = 16;
/// The numbers of concurrent callers of the store.
const CALLERS: [u32; 3] = [16, 32, 64];
const TIME: Duration = Duration::from_secs(4);

const INSERT: &str = "\
INSERT INTO raw (id, version, token, state, lease_until, head)
  VALUES (gen_random_uuid()::text, 1, 1, 'pending', now() + interval '30 s', repeat('x', 300)::bytea)
  RETURNING id AS id \\gset
";

const START: &str = "\
UPDATE raw SET version = version + 1, state = 'running', head = repeat('y', 350)::bytea
  WHERE id = :id AND token = 1;
";

const END: &str = "\
UPDATE raw SET version = version + 1, state = 'succeeded', lease_until = NULL,
  expires_at = now() + interval '1 day', head = repeat('y', 400)::bytea,
  result = repeat('z', 1024)::bytea WHERE id = :id AND token = 1;
";

const SELECT: &str = "SELECT head, result FROM raw WHERE id = :id;\n";

#[tokio::main]
async fn main() {
    let server = server::Postgres::start().await;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(&server.url())
        .await
        .unwrap();
    let raw_table: PostgresStore = PostgresStore::builder(pool.clone())
        .table("raw")
        .connect()
        .await
        .unwrap();
    drop(raw_table);
    let store = PostgresStore::connect(pool).await.unwrap();

    println!("| | connections | callers | per second | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    let most = CALLERS[CALLERS.len() - 1];
    let raw = pgbench(&server, CONNECTIONS, &[INSERT, END, SELECT]);
    let print = |name, connections, callers, rate: f64| {
        let ratio = rate / raw;
        println!("| {name} | {connections} | {callers} | {rate:.0} | {ratio:.2} |");
    };
    let name = "pgbench: insert, update, select";
    print(name, CONNECTIONS, CONNECTIONS, raw);
    print(
        name,
        most,
        most,
        pgbench(&server, most, &[INSERT, END, SELECT]),
    );
    let starting = pgbench(&server, CONNECTIONS, &[INSERT, START, END, SELECT]);
    let name = "pgbench: insert, update, update, select";
    print(name, CONNECTIONS, CONNECTIONS, starting);
    for (name, starts) in [
        ("create as running, finish with 1 KiB, read", false),
        ("create, start, finish with 1 KiB, read", true),
    ] {
        for callers in CALLERS {
            let rate = ours(&store, callers, starts).await;
            print(name, CONNECTIONS, callers, rate);
        }
    }
}

/// Returns the transactions per second of pgbench.
fn pgbench(server: &server::Postgres, connections: u32, statements: &[&str]) -> f64 {
    let folder = private::Folder::new("pgbench");
    let script = folder.join("raw.sql");
    std::fs::write(&script, statements.concat()).unwrap();
    let installed = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let found: Option<PathBuf> = installed
        .filter_map(|version| Some(version.ok()?.path().join("bin/pgbench")))
        .find(|program| program.exists());
    let program = found.expect("pgbench: install the Debian package postgresql");
    let output = Command::new(program)
        .args(["-n", "-M", "prepared", "-h", "127.0.0.1", "-U", "postgres"])
        .args(["-c", &connections.to_string(), "-j", "2"])
        .args([
            "-T",
            &TIME.as_secs().to_string(),
            "-p",
            &server.port().to_string(),
        ])
        .arg("-f")
        .arg(script)
        .arg("postgres")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|rate| rate.split(' ').next()?.parse().ok());
    rate.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Returns the operations per second of the store, of all callers together.
async fn ours(store: &PostgresStore, callers: u32, starts: bool) -> f64 {
    let done = Arc::<AtomicU64>::default();
    let begun = Instant::now();
    let callers = (0..callers).map(|_| {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            while begun.elapsed() < TIME {
                operation(&store, starts).await;
                done.fetch_add(1, Relaxed);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    done.load(Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

async fn operation(store: &PostgresStore, starts: bool) {
    let id = OperationId::new();
    let mut new = NewOperation::new(id.clone()).with_lease(LeaseConfig::default());
    new.is_running = !starts;
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    if starts {
        store.start(&id, record.token()).await.unwrap();
    }
    let response = Response::new(BufferedBody::from(vec![b'z'; 1024]));
    let outcome = Outcome::Succeeded(Some(RecordedResponse::new(response)));
    store
        .finish(&id, record.token(), outcome, None)
        .await
        .unwrap();
    let read = store.get(&id).await.unwrap().unwrap();
    assert!(read.operation().state().is_terminal());
}
