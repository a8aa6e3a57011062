//! Benchmark of `RedbStore` against redb itself in the same run.
//!
//! Run with: `cargo bench -p tower-operations-redb` (about ten seconds).
//! The benchmark uses the disk that `TMPDIR` names, and prints a table.
//!
//! *raw* is one table of 1 KiB values under ascending keys, with a fixed number of values
//! per commit. Durable changes per second are compared at the measured batch size.
//!
//! *over HTTP* is a server and its clients in one process, on two threads each. The
//! answers per second are measured for the bare service and for the layered service. Each
//! 202 is followed by a durable end.

use std::{
    convert::Infallible,
    hint::black_box,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use redb::{Database, TableDefinition};
use test_support::private;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, Service, service_fn};
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, Outcome, RecordedResponse, RequestBody,
    store::{Created, LeaseConfig, NewOperation, NodeId, Repository, Store},
};
use tower_operations_redb::RedbStore;

const RAW: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("raw");
const TIME: Duration = Duration::from_millis(1200);
const KIB: &[u8] = &[b'x'; 1024];

fn main() {
    let folder = private::Folder::new("redb-bench");
    println!("| what | concurrent | per second | a commit | raw at that size | ratio |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, work, concurrent) in [
        ("create", Work::Create, 256),
        ("create", Work::Create, 16),
        ("create with 1 KiB to run it again", Work::Request, 256),
        (
            "create as running, finish with 1 KiB, read",
            Work::Ready,
            256,
        ),
        ("create, start, finish with 1 KiB, read", Work::Whole, 256),
    ] {
        let store = measure(folder.path(), work, concurrent);
        let raw = raw(folder.path(), store.batch);
        println!(
            "| {name} | {concurrent} | {:.0} | {:.0} | {raw:.0} | {:.2} |",
            store.per_second,
            store.batch,
            store.changes_per_second / raw,
        );
    }
    println!("\n| over HTTP | connections | answers per second |\n| --- | --- | --- |");
    let bare = service_fn(answer::<Incoming>);
    let layered = service_fn(answer::<RequestBody<Incoming>>);
    let rate = over_http(&runtime(), bare);
    println!("| the service by itself, 200 | {CONNECTIONS} | {rate:.0} |");
    let memory = Operations::new(MemoryStore::new().min_retention(Duration::ZERO))
        .max_in_flight(usize::MAX)
        .layer();
    let rate = over_http(&runtime(), memory.layer(layered));
    println!("| accepted in memory, 202 | {CONNECTIONS} | {rate:.0} |");
    let server = runtime();
    let store: RedbStore =
        server.block_on(async { RedbStore::open(path(folder.path())).expect("opened") });
    let file = Operations::new(store.clone())
        .max_in_flight(usize::MAX)
        .layer();
    let rate = over_http(&server, file.layer(layered));
    println!("| accepted in a file, 202 | {CONNECTIONS} | {rate:.0} |");
    server.block_on(store.close()).expect("closed");
    println!("\n| read | per second |\n| --- | --- |");
    let (ours, raw) = reads(folder.path());
    println!("| raw get of 1 KiB | {raw:.0} |\n| get of an operation with 1 KiB | {ours:.0} |");
}

const CONNECTIONS: usize = 256;

async fn answer<B: http_body::Body<Error: std::fmt::Debug>>(
    request: Request<B>,
) -> Result<Response<BufferedBody>, Infallible> {
    use http_body_util::BodyExt;
    request
        .into_body()
        .collect()
        .await
        .expect("a whole request");
    Ok(Response::new(BufferedBody::from(Bytes::from_static(KIB))))
}

/// Returns the answers per second of all connections together.
fn over_http<S, B>(server: &tokio::runtime::Runtime, service: S) -> f64
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<tower::BoxError>> + Send + 'static,
{
    let listening = TcpListener::bind(("127.0.0.1", 0));
    let listener = server.block_on(listening).expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = server.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("no delay");
            let service = TowerToHyperService::new(service.clone());
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    let answered = Arc::new(AtomicU64::new(0));
    let rate = runtime().block_on(async {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| tokio::spawn(send_requests(address, Arc::clone(&answered))))
            .collect();
        tokio::time::sleep(TIME / 2).await;
        let (before, since) = (answered.load(Relaxed), Instant::now());
        tokio::time::sleep(2 * TIME).await;
        let rate = (answered.load(Relaxed) - before) as f64 / since.elapsed().as_secs_f64();
        clients.iter().for_each(tokio::task::JoinHandle::abort);
        rate
    });
    serving.abort();
    rate
}

async fn send_requests(server: SocketAddr, answered: Arc<AtomicU64>) {
    const ASK: &[u8] = b"POST /reports HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nQ3";
    let mut stream = TcpStream::connect(server).await.expect("connected");
    stream.set_nodelay(true).expect("no delay");
    let (mut buffer, mut length) = ([0; 4096], 0);
    loop {
        stream.write_all(ASK).await.expect("asked");
        let whole = loop {
            if let Some(whole) = answer_length(&buffer[..length]) {
                break whole;
            }
            let read = stream.read(&mut buffer[length..]).await.expect("answered");
            assert!(read > 0, "closed");
            length += read;
        };
        assert_eq!(whole, length, "one answer to one request");
        assert_eq!(buffer[9], b'2', "200 or 202");
        length = 0;
        answered.fetch_add(1, Relaxed);
    }
}

/// Returns the length of the first answer, if the answer is complete.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("text");
    let (_, length) = text.split_once("content-length: ").expect("a length");
    let length: usize = length.split('\r').next()?.parse().expect("a number");
    (bytes.len() >= head + length).then_some(head + length)
}

#[derive(Clone, Copy)]
enum Work {
    Create,
    Request,
    /// A whole operation, whose service is ready when its request is accepted.
    Ready,
    /// A whole operation, which is started later.
    Whole,
}

struct Measurement {
    per_second: f64,
    changes_per_second: f64,
    batch: f64,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn path(folder: &Path) -> std::path::PathBuf {
    folder.join(OperationId::new().to_string())
}

fn response() -> RecordedResponse {
    RecordedResponse::new(Response::new(BufferedBody::from(Bytes::from_static(KIB))))
}

async fn run_operation(store: &RedbStore, lease: &LeaseConfig, work: Work) {
    let id = OperationId::new();
    let mut new = NewOperation::new(id.clone()).with_lease(lease.clone());
    if let Work::Request = work {
        new = new.with_request(Some(Bytes::from_static(KIB)));
    }
    new.is_running = matches!(work, Work::Ready);
    let Ok(Created::New(record)) = store.create(new).await else {
        panic!("not created");
    };
    let token = record.token();
    if let Work::Whole = work {
        store.start(&id, token).await.expect("started");
    }
    if let Work::Ready | Work::Whole = work {
        let outcome = Outcome::Succeeded(Some(response()));
        store
            .finish(&id, token, outcome, None)
            .await
            .expect("finished");
        black_box(store.get(&id).await.expect("read"));
    }
}

fn measure(folder: &Path, work: Work, concurrent: usize) -> Measurement {
    let store = RedbStore::open(path(folder)).expect("opened");
    let (done, is_over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let lease = LeaseConfig::new(NodeId::new(), Duration::from_secs(30));
    runtime().block_on(async {
        let tasks: Vec<_> = (0..concurrent)
            .map(|_| {
                let (store, lease) = (store.clone(), lease.clone());
                let (done, is_over) = (Arc::clone(&done), Arc::clone(&is_over));
                tokio::spawn(async move {
                    while !is_over.load(Relaxed) {
                        run_operation(&store, &lease, work).await;
                        done.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        tokio::time::sleep(TIME / 4).await;
        let (before, done_before, since) = (store.stats(), done.load(Relaxed), Instant::now());
        tokio::time::sleep(TIME).await;
        let (after, done_after, time) = (store.stats(), done.load(Relaxed), since.elapsed());
        is_over.store(true, Relaxed);
        for task in tasks {
            task.await.expect("no panic");
        }
        store.close().await.expect("closed");
        let changes = (after.changes - before.changes) as f64;
        Measurement {
            per_second: (done_after - done_before) as f64 / time.as_secs_f64(),
            changes_per_second: changes / time.as_secs_f64(),
            batch: changes / (after.commits - before.commits) as f64,
        }
    })
}

/// Returns the values per second that redb commits durably at this batch size.
fn raw(folder: &Path, batch: f64) -> f64 {
    let database = Database::create(path(folder)).expect("created");
    let batch = batch.round().max(1.0) as u64;
    let (since, mut written) = (Instant::now(), 0);
    while since.elapsed() < TIME {
        let write = database.begin_write().expect("begun");
        {
            let mut table = write.open_table(RAW).expect("a table");
            for _ in 0..batch {
                let id = OperationId::new().to_string();
                table.insert(&*id, KIB).expect("inserted");
            }
        }
        write.commit().expect("committed");
        written += batch;
    }
    written as f64 / since.elapsed().as_secs_f64()
}

/// Returns the reads per second of `RedbStore` and of redb on one thread.
fn reads(folder: &Path) -> (f64, f64) {
    use redb::ReadableDatabase;

    const COUNT: usize = 2_000;
    let store = RedbStore::open(path(folder)).expect("opened");
    let database = Database::create(path(folder)).expect("created");
    let ids: Vec<OperationId> = (0..COUNT).map(|_| OperationId::new()).collect();
    let write = database.begin_write().expect("begun");
    {
        let mut table = write.open_table(RAW).expect("a table");
        for id in &ids {
            table.insert(&*id.to_string(), KIB).expect("inserted");
        }
    }
    write.commit().expect("committed");
    runtime().block_on(async {
        let all = ids.iter().cloned().map(|id| {
            let store = store.clone();
            tokio::spawn(async move {
                let created = store.create(NewOperation::new(id.clone())).await;
                let Ok(Created::New(record)) = created else {
                    panic!("not created");
                };
                let outcome = Outcome::Succeeded(Some(response()));
                let finished = store.finish(&id, record.token(), outcome, None).await;
                finished.expect("finished");
            })
        });
        for task in all.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
    });
    let rate = |read: &dyn Fn(&OperationId)| {
        let (since, mut count) = (Instant::now(), 0);
        while since.elapsed() < TIME / 2 {
            ids.iter().for_each(read);
            count += ids.len();
        }
        count as f64 / since.elapsed().as_secs_f64()
    };
    let ours = rate(&|id| drop(black_box(store.get_now(id))));
    let raw = rate(&|id| {
        let read = database.begin_read().expect("begun");
        let table = read.open_table(RAW).expect("a table");
        let value = table.get(&*id.to_string()).expect("read");
        black_box(value.map(|value| value.value().to_vec()));
    });
    (ours, raw)
}
