//! Benchmark of `RedisStore` against `redis-benchmark` with the same scripts in the same
//! run.
//!
//! Run with: `cargo bench -p tower-operations-redis` (about fifteen seconds).
//! The benchmark needs `redis-server` and `redis-benchmark`, and prints a table.
//!
//! *raw* is the server by itself: 50 connections that call the same script with values of
//! the same size, without decoding the answers. The store has 50 callers that share one
//! connection.

use std::{
    future::Future,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::Response;
use redis::{Cmd, Pipeline, Script};
use test_support::redis as server;
use tower_operations::{
    BufferedBody, OperationId, Outcome, Progress, RecordedResponse,
    store::{
        Created, FencingToken, IdempotencyKey, LeaseConfig, NewOperation, NodeId, Owner,
        Repository, Store, Written,
    },
};
use tower_operations_redis::RedisStore;

use self::server::Redis;

const CLIENTS: usize = 50;
const TIME: Duration = Duration::from_millis(1000);
const KIB: usize = 1024;

/// The number of operations created for each part.
const READY: usize = 10_000;

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(
            include_str!("../src/lua/common.lua"),
            include_str!(concat!("../src/lua/", $file))
        ))
    };
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for (name, settings) in [
        ("AOF always", &[][..]),
        ("AOF everysec", &["--appendfsync", "everysec"][..]),
    ] {
        println!("| {name} | per second | raw | ratio |\n| --- | --- | --- | --- |");
        runtime.block_on(table(settings));
        println!();
    }
    println!("| memory of one operation | bytes |\n| --- | --- |");
    runtime.block_on(memory());
}

/// Measures the memory that the server uses for one operation and its index entries.
async fn memory() {
    let redis = Redis::with(&["--appendonly", "no"]).await;
    let store = RedisStore::connect(&redis.url()).await.expect("a store");
    let owner = Some(Owner::new("0123456789abcdef".repeat(4)));
    let fingerprint = [7; 32];
    let plain = |id: OperationId| NewOperation::new(id).with_owner(owner.clone());
    let held = |id| plain(id).with_lease(lease());
    let with_key = |id: OperationId| {
        let name = id.to_string();
        held(id).with_key(IdempotencyKey::new(None, name, fingerprint))
    };
    let before = used(&redis).await;
    let live = create_all(&store, held).await;
    let one = (used(&redis).await - before) / READY;
    println!("| live, held | {one} |");
    for (id, token) in &live {
        done(&store.start(id, *token).await.expect("an answer"));
        done(
            &store
                .finish(id, *token, success(), None)
                .await
                .expect("an answer"),
        );
    }
    let one = (used(&redis).await - before) / READY;
    println!("| ended, with a result of 1 KiB | {one} |");
    let before = used(&redis).await;
    create_all(&store, with_key).await;
    let with = (used(&redis).await - before) / READY;
    println!("| live, held, with a key | {with} |");
}

async fn used(redis: &Redis) -> usize {
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("one");
    let mut info = Cmd::new();
    info.arg("INFO").arg("memory");
    let info: String = info.query_async(&mut connection).await.expect("an answer");
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|used| used.parse().ok()).expect("a number")
}

async fn table(settings: &[&str]) {
    let redis = Redis::with(settings).await;
    let store = RedisStore::connect(&redis.url()).await.expect("a store");
    let line = |name: &str, ours: f64, raw: f64| {
        println!("| {name} | {ours:.0} | {raw:.0} | {:.2} |", ours / raw);
    };

    let work = {
        let store = store.clone();
        move |_| {
            let new = NewOperation::new(OperationId::new()).with_lease(lease());
            let created = create(store.clone(), new);
            async { created.await.map(drop) }
        }
    };
    line("create, with a lease", rate(work).await, raw_insert(&redis));

    let new = |id| NewOperation::new(id).with_lease(lease());
    let held = Arc::new(create_all(&store, new).await);
    let work = {
        let (store, held) = (store.clone(), Arc::clone(&held));
        move |number: usize| {
            let (store, held) = (store.clone(), Arc::clone(&held));
            async move {
                let (id, token) = &held[number % READY];
                let progress = Progress::from_count(number as u64, u64::MAX);
                let write = store.report(id, *token, progress).await;
                done(&write.expect("an answer"));
                Some(())
            }
        }
    };
    let ours = rate(work).await;
    let raw = raw_replace(&redis, "running", 0).await;
    line("transition", ours, raw);

    let work = {
        let (store, held) = (store.clone(), Arc::clone(&held));
        move |number: usize| {
            let (store, held) = (store.clone(), Arc::clone(&held));
            async move {
                let (id, token) = held.get(number)?;
                let write = store.finish(id, *token, success(), None).await;
                done(&write.expect("an answer"));
                Some(())
            }
        }
    };
    let ours = rate(work).await;
    let raw = raw_replace(&redis, "succeeded", KIB).await;
    line("transition to the end, 1 KiB", ours, raw);

    let work = move |number: usize| {
        let (store, held) = (store.clone(), Arc::clone(&held));
        async move {
            let (id, _) = &held[number.wrapping_mul(7919) % READY];
            store.get(id).await.expect("an answer").map(drop)
        }
    };
    line("read, 1 KiB", rate(work).await, raw_read(&redis));
}

/// Returns the calls of `work` per second by 50 callers, until `work` returns `None`.
async fn rate<F>(work: impl Fn(usize) -> F + Send + Sync + 'static) -> f64
where
    F: Future<Output = Option<()>> + Send,
{
    let (work, next) = (Arc::new(work), Arc::new(AtomicUsize::new(0)));
    let since = Instant::now();
    let callers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (work, next) = (Arc::clone(&work), Arc::clone(&next));
            tokio::spawn(async move {
                let mut count = 0;
                while since.elapsed() < TIME && work(next.fetch_add(1, Relaxed)).await.is_some() {
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await.expect("a caller");
    }
    f64::from(count) / since.elapsed().as_secs_f64()
}

type Handle = (OperationId, FencingToken);

fn lease() -> LeaseConfig {
    LeaseConfig::new(NodeId::named("node"), Duration::from_secs(60))
}

async fn create(store: RedisStore, new: NewOperation) -> Option<Handle> {
    match store.create(new).await.expect("an answer") {
        Created::New(record) => Some((record.operation().id().clone(), record.token())),
        _ => None,
    }
}

async fn create_all(store: &RedisStore, new: impl Fn(OperationId) -> NewOperation) -> Vec<Handle> {
    let creating: Vec<_> = (0..READY)
        .map(|_| tokio::spawn(create(store.clone(), new(OperationId::new()))))
        .collect();
    let mut held = Vec::new();
    for created in creating {
        held.extend(created.await.expect("a task"));
    }
    held
}

fn done<T>(write: &Written<T>) {
    assert!(matches!(write, Written::Done(_)), "a write was lost");
}

fn success() -> Outcome<RecordedResponse> {
    let response = Response::new(BufferedBody::from("x".repeat(KIB)));
    Outcome::Succeeded(Some(RecordedResponse::new(response)))
}

/// The approximate size of a record.
const HEAD: usize = 400;

/// Returns the calls per second of `redis-benchmark`, which replaces `__rand_int__` in
/// arguments by a number of twelve digits below [`READY`].
fn benchmark(redis: &Redis, calls: usize, command: &[&str]) -> f64 {
    let output = Command::new("redis-benchmark")
        .args(["-p", &redis.port().to_string(), "--csv"])
        .args(["-c", &CLIENTS.to_string(), "-n", &calls.to_string()])
        .args(["-r", &READY.to_string()])
        .args(command)
        .output()
        .expect("redis-benchmark is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = text.lines().last().unwrap_or_default();
    let second = last.rsplit("\",\"").nth(6).unwrap_or_default();
    second
        .parse()
        .unwrap_or_else(|_| panic!("no figure in {text:?}"))
}

fn raw_insert(redis: &Redis) -> f64 {
    let (script, head) = (script!("insert.lua"), "x".repeat(HEAD));
    let mut words = vec!["EVALSHA", script.get_hash(), "2"];
    // Several random numbers make the key of almost every call new.
    let cell = "bench/{__rand_int____rand_int____rand_int__}";
    words.extend([cell, "bench/list", "bench/", "__rand_int____rand_int__"]);
    words.extend([
        "1", "60000", "", "", "", "0", "v", "1", "t", "1", "s", "pending", "h", &head,
    ]);
    benchmark(redis, 60_000, &words)
}

async fn raw_replace(redis: &Redis, state: &str, result: usize) -> f64 {
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("one");
    let (script, head, result) = (script!("replace.lua"), "x".repeat(HEAD), "y".repeat(result));
    for thousand in 0..READY / 1000 {
        let mut cells = Pipeline::new();
        for number in 0..1000 {
            let name = format!("bench/{{{:012}}}", 1000 * thousand + number);
            let mut set = Cmd::new();
            set.arg("HSET")
                .arg(name)
                .arg(&["v", "1", "t", "1", "n", "1", "h", &head]);
            cells.add_command(set).ignore();
        }
        cells.exec_async(&mut connection).await.expect("an answer");
    }
    let mut words = vec![
        "EVALSHA",
        script.get_hash(),
        "1",
        "bench/{__rand_int__}",
        "bench/",
    ];
    // As many others expire as end.
    let (at, removed) = ("4000000000000", "4000000060000");
    let (at, removed) = if result.is_empty() {
        ("", "")
    } else {
        (at, removed)
    };
    words.extend(["__rand_int__", "1", "1", "", "", at, removed, "60000"]);
    words.extend(["v", "1", "t", "1", "s", state, "h", &head]);
    if !result.is_empty() {
        words.extend(["r", &result, "x", at]);
    }
    benchmark(redis, 60_000, &words)
}

fn raw_read(redis: &Redis) -> f64 {
    let script = script!("read.lua");
    let cell = "bench/{__rand_int__}";
    // Nobody reads, and a result of any length.
    let words = [
        "EVALSHA",
        script.get_hash(),
        "1",
        cell,
        "bench/",
        "",
        "1048576",
    ];
    benchmark(redis, 100_000, &words)
}
