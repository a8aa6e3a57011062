//! Repeated kills and restarts of a process within the term of one lease: the next process
//! reclaims the operations at once.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    env,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, FailureKind, OperationHandle, OperationId, Operations, Problem, RecordedResponse,
    RequestBody, State,
    store::{List, ListQuery, Record, Store},
};
use tower_operations_redb::RedbStore;

use super::private::Folder;

const FILE: &str = "OPERATIONS_RESTART_FILE";
const RESTARTS: u32 = 50;

/// The attempt that completes.
const LAST: u32 = 4;

/// Less than the term of a lease, and much more than a restart takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn print_event(event: &str, id: &OperationId) {
    // The line is written in one call, so that no line is torn.
    let line = format!("{event} {id}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// The process that is killed; not a test by itself. The process accepts two operations,
/// one of which may be rerun, and prints a line for each run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(path) = env::var(FILE) else {
        return;
    };
    let store = RedbStore::open(path).unwrap();
    println!("open");
    // The layer has its default lease.
    let operations = Operations::new(store.clone());
    let layer = operations
        .layer()
        .rerun_if(|parts| parts.uri.path() == "/again");
    let inner = service_fn(async |request: Request<RequestBody<BufferedBody>>| {
        let operation = OperationHandle::from_extensions(request.extensions());
        let id = operation.id().expect("the request was accepted").clone();
        if operation.attempt() >= LAST {
            print_event("ending", &id);
        } else {
            print_event("running", &id);
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
    });
    let app = layer.layer(inner);
    let whole = app.clone().map_response(|response| {
        response.map(|_| BufferedBody::default()) // no client reads the response
    });
    tokio::spawn(operations.recovery().rerun_with(whole, 2 * RESTARTS).run());
    let mut own_ids = Vec::new();
    for target in ["/again", "/once"] {
        let request = Request::post(target).body(BufferedBody::default()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let location = response.headers()["location"].to_str().unwrap();
        let id = location.rsplit('/').next().unwrap().parse().unwrap();
        print_event(target.trim_start_matches('/'), &id);
        own_ids.push(id);
    }
    // Live operations were accepted or rerun by this process.
    let is_settled = |record: &Record<RecordedResponse>| {
        let attempts = record.attempts();
        attempts < LAST && (attempts > 1 || own_ids.contains(record.operation().id()))
    };
    while !live(&store).await.iter().all(is_settled) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    print_event("settled", &own_ids[0]);
    std::future::pending::<()>().await;
}

async fn live(store: &RedbStore) -> Vec<Record<RecordedResponse>> {
    let mut live = Vec::new();
    for state in [State::Pending, State::Running] {
        let query = ListQuery::new(None, 1000).with_state(state);
        live.extend(store.list(&query).await.unwrap().records);
    }
    live
}

/// A running victim process.
struct Victim {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Victim {
    /// Starts the process, and waits until the file is open.
    fn start(path: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "restarts::victim",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(FILE, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let lines = BufReader::new(output).lines();
        let mut victim = Self { child, lines };
        // The harness prints the name of the test on the same line.
        while !victim.lines.next().unwrap().unwrap().ends_with("open") {}
        victim
    }

    /// Returns the next printed event and its operation.
    fn next(&mut self) -> (String, OperationId) {
        let line = self.lines.next().expect("the victim is alive").unwrap();
        let (event, id) = line.split_once(' ').expect("a word and an id");
        (event.to_owned(), id.parse().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn restarts_within_a_lease_lose_and_delay_no_operation() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let mut accepted = HashMap::new();
    // Operations that the next process has to rerun.
    let mut running = HashSet::<OperationId>::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..RESTARTS {
        let mut victim = Victim::start(&path);
        let opened = Instant::now();
        // The victim is killed as soon as it runs every operation.
        let (mut missing, mut new) = (running.clone(), 2);
        while !missing.is_empty() || new > 0 {
            let (event, id) = victim.next();
            match event.as_str() {
                "running" => {
                    if missing.remove(&id) && missing.is_empty() {
                        slowest = slowest.max(opened.elapsed());
                    }
                }
                "settled" => {}
                "ending" => {
                    missing.remove(&id);
                    running.remove(&id);
                }
                "again" => {
                    new -= 1;
                    running.insert(id.clone());
                    accepted.insert(id, "again");
                }
                "once" => {
                    new -= 1;
                    accepted.insert(id, "once");
                }
                other => panic!("{other}"),
            }
            assert!(
                opened.elapsed() < PATIENCE,
                "{missing:?} were not reclaimed"
            );
        }
    }
    // Operations that were ending may have been interrupted each time.
    let mut victim = Victim::start(&path);
    while victim.next().0 != "settled" {}
    drop(victim);

    let store = RedbStore::open(&path).unwrap();
    assert_eq!(accepted.len(), 2 * RESTARTS as usize);
    for (id, event) in &accepted {
        let record = store
            .get(id)
            .await
            .unwrap()
            .expect("the operation is not lost");
        let operation = record.operation();
        let problem = operation.problem().map(Problem::type_uri);
        match (*event, operation.state()) {
            ("again", State::Succeeded) => {}
            ("again", State::Running) => assert!(record.attempts() < LAST),
            ("once", State::Failed) => assert_eq!(problem, Some(FailureKind::Interrupted.urn())),
            (event, state) => panic!("{id}, {event}, is {state}: {problem:?}"),
        }
    }
    println!("everything was in other hands within {slowest:?} of opening");
}
