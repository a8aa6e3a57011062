//! A process that is killed and started again, over and over, within the term of one
//! lease: whatever it left behind is in other hands at once.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    env,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
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

/// The attempt that ends by itself.
const LAST: u32 = 4;

/// Less than the term of a lease, and much more than a restart takes on a machine that
/// has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

fn say(what: &str, id: &OperationId) {
    // In one write, so that no line is torn.
    let line = format!("{what} {id}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// Not a test by itself: the process that is killed. It accepts two operations, one of
/// which may be run again, and says what it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(path) = env::var(FILE) else {
        return;
    };
    let store = RedbStore::open(path).unwrap();
    println!("open");
    // With the lease that a layer has unless it is told otherwise.
    let operations = Operations::new(store.clone());
    let layer = operations
        .layer()
        .rerun_if(|parts| parts.uri.path() == "/again");
    let inner = service_fn(async |request: Request<RequestBody<BufferedBody>>| {
        let operation = OperationHandle::from_extensions(request.extensions());
        let id = operation.id().expect("it was accepted").clone();
        if operation.attempt() >= LAST {
            say("ending", &id);
        } else {
            say("running", &id);
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(Response::new(BufferedBody::from("done")))
    });
    let app = layer.layer(inner);
    let whole = app.clone().map_response(|response| {
        response.map(|_| BufferedBody::default()) // nobody reads it
    });
    tokio::spawn(operations.recovery().rerun_with(whole, 2 * RESTARTS).run());
    let mut mine = Vec::new();
    for target in ["/again", "/once"] {
        let request = Request::post(target).body(BufferedBody::default()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let location = response.headers()["location"].to_str().unwrap();
        let id = location.rsplit('/').next().unwrap().parse().unwrap();
        say(target.trim_start_matches('/'), &id);
        mine.push(id);
    }
    // Those that are live are this process's, or run again by it.
    let is_settled = |record: &Record<RecordedResponse>| {
        let attempts = record.attempts();
        attempts < LAST && (attempts > 1 || mine.contains(record.operation().id()))
    };
    while !live(&store).await.iter().all(|record| is_settled(record)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    say("settled", &mine[0]);
    std::future::pending::<()>().await;
}

async fn live(store: &RedbStore) -> Vec<Arc<Record<RecordedResponse>>> {
    let mut live = Vec::new();
    for state in [State::Pending, State::Running] {
        let query = ListQuery::new(None, 1000).with_state(state);
        live.extend(store.list(&query).await.unwrap().records);
    }
    live
}

/// A victim that is alive.
struct Victim {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Victim {
    /// Starts one, and waits until it has the file.
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
        // On the line on which the harness names the test.
        while !victim.lines.next().unwrap().unwrap().ends_with("open") {}
        victim
    }

    /// The next thing that it says.
    fn next(&mut self) -> (String, OperationId) {
        let line = self.lines.next().expect("it lives").unwrap();
        let (what, id) = line.split_once(' ').expect("a word and an id");
        (what.to_owned(), id.parse().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn fifty_restarts_within_a_lease_lose_nothing_and_stall_nothing() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let mut accepted = HashMap::new();
    // What is to be run again by the next one.
    let mut running = HashSet::<OperationId>::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..RESTARTS {
        let mut victim = Victim::start(&path);
        let opened = Instant::now();
        // It is killed as soon as everything is in its hands.
        let (mut missing, mut new) = (running.clone(), 2);
        while !missing.is_empty() || new > 0 {
            let (what, id) = victim.next();
            match what.as_str() {
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
            assert!(opened.elapsed() < PATIENCE, "{missing:?} are in no hands");
        }
    }
    // What had begun to end may have been cut off each time.
    let mut victim = Victim::start(&path);
    while victim.next().0 != "settled" {}
    drop(victim);

    let store = RedbStore::open(&path).unwrap();
    assert_eq!(accepted.len(), 2 * RESTARTS as usize);
    for (id, what) in &accepted {
        let record = store.get(id).await.unwrap().expect("nothing is lost");
        let operation = record.operation();
        let problem = operation.problem().map(Problem::type_uri);
        match (*what, operation.state()) {
            ("again", State::Succeeded) => {}
            ("again", State::Running) => assert!(record.attempts() < LAST),
            ("once", State::Failed) => assert_eq!(problem, Some(FailureKind::Interrupted.urn())),
            (what, state) => panic!("{id}, {what}, is {state}: {problem:?}"),
        }
    }
    println!("everything was in other hands within {slowest:?} of opening");
}
