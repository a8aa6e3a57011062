//! The `workers` example on PostgreSQL and on Redis: fronts that accept requests, and
//! workers that run them, with a queue of apalis in between.

use std::{fs, path::Path, time::Duration};

use http::StatusCode;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use test_support::{
    client::Client,
    postgres::Postgres,
    private::Folder,
    process::{Example, PATIENCE, run},
    redis::Redis,
    runs::Runs,
};
use tokio::time::{Instant, sleep};
use tower_operations::FailureKind;

/// A front on a queue, and the log of runs of the queue's workers.
struct Queue {
    url: String,
    front: Example,
    runs: Runs,
    _folder: Folder,
}

impl Queue {
    async fn at(url: String) -> Self {
        Self::at_in(url, &[]).await
    }

    /// Starts a front with environment variables and short leases.
    async fn at_in(url: String, environment: &[(&str, &str)]) -> Self {
        let folder = Folder::new("workers");
        let arguments = ["--listen", "127.0.0.1:0", "--lease", "1", "--list"];
        let arguments = [&arguments[..], &["--claimed-within", "2", "--queue", &url]].concat();
        let arguments = [&["front"], &arguments[..]].concat();
        let front = Example::start_in("workers", &arguments, environment).await;
        Self {
            front: front.unwrap(),
            runs: Runs::at(folder.join("runs")),
            url,
            _folder: folder,
        }
    }

    fn client(&self) -> Client {
        Client::new(self.front.url())
    }

    async fn worker(&self, name: &str) -> Example {
        self.worker_in(name, &[]).await
    }

    /// Starts a worker with environment variables.
    async fn worker_in(&self, name: &str, environment: &[(&str, &str)]) -> Example {
        let runs = self.runs.path().display().to_string();
        let arguments = ["worker", "--queue", &self.url, "--name", name];
        let more = ["--lease", "1", "--drain", "1", "--runs", &runs];
        let arguments = [&arguments[..], &more].concat();
        let started = Example::start_until("workers", &arguments, environment, "working as ");
        started.await.unwrap()
    }
}

/// Returns an order of `pages` pages, 50 ms each.
fn order(pages: u32) -> String {
    json!({"title": "Q3", "pages": pages, "page_ms": 50}).to_string()
}

fn id(location: &str) -> &str {
    location.rsplit('/').next().unwrap()
}

/// The scenario of the guide.
async fn a_killed_worker_loses_no_operation(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let one = queue.worker("one").await;
    let first = client.post_accepted("/reports", order(60)).await;
    queue.runs.line(id(&first), "begin", "one").await;
    let _others = (queue.worker("two").await, queue.worker("three").await);
    let mut operations = vec![first];
    for _ in 0..6 {
        operations.push(client.post_accepted("/reports", order(4)).await);
    }
    one.signal("KILL").await;
    one.wait().await;
    for operation in &operations {
        let ended = client.wait_for_end(operation).await;
        assert_eq!(ended["state"], "succeeded");
    }
    let runs = queue.runs.nodes(id(&operations[0]));
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_ne!(runs[1], "one");
}

/// The output names the process that runs an operation.
async fn a_worker_prints_its_runs(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let worker = async |name| {
        let arguments = [
            "worker", "--queue", &queue.url, "--name", name, "--lease", "1",
        ];
        let started = Example::start_until("workers", &arguments, &[], "working as ").await;
        started.unwrap()
    };
    let mut one = worker("one").await;
    let operation = client.post_accepted("/reports", order(40)).await;
    let runs = |name: &str, process: u32| {
        format!("worker {name} runs {} in process {process}", id(&operation))
    };
    one.wait_for_line(&runs("one", one.pid())).await;
    one.signal("KILL").await;
    one.wait().await;
    let mut two = worker("two").await;
    two.wait_for_line(&runs("two", two.pid())).await;
    assert_eq!(client.wait_for_end(&operation).await["state"], "succeeded");
}

/// A draining worker finishes short runs, and releases the others.
async fn a_drained_worker_loses_no_operation(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let one = queue.worker("one").await;
    let long = client.post_accepted("/reports", order(60)).await;
    let short = client.post_accepted("/reports", order(10)).await;
    queue.runs.line(id(&long), "begin", "one").await;
    queue.runs.line(id(&short), "begin", "one").await;
    let _two = queue.worker("two").await;
    one.signal("TERM").await;
    let drained = one.wait().await;
    assert!(drained.status.success(), "{drained:?}");
    let released = format!("released {}", id(&long));
    assert!(drained.output.contains(&released), "{drained:?}");
    for operation in [&long, &short] {
        assert_eq!(client.wait_for_end(operation).await["state"], "succeeded");
    }
    assert_eq!(queue.runs.nodes(id(&long)), ["one", "two"]);
    assert_eq!(queue.runs.nodes(id(&short)), ["one"]);
}

/// A request that kills its worker runs at most three times.
async fn a_poison_request_exhausts_its_attempts(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let poison = client.post_accepted("/reports", order(600)).await;
    for name in ["one", "two", "three"] {
        let worker = queue.worker(name).await;
        queue.runs.line(id(&poison), "begin", name).await;
        worker.signal("KILL").await;
        worker.wait().await;
    }
    let _four = queue.worker("four").await;
    let failed = client.wait_for_end(&poison).await;
    let kind = FailureKind::AttemptsExhausted.urn();
    assert_eq!(failed["problem"]["type"], kind, "{failed}");
    assert_eq!(queue.runs.nodes(id(&poison)), ["one", "two", "three"]);
}

/// A worker receives the task of the canceled operation, and does not start a run.
async fn an_operation_canceled_while_pending_never_starts(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let canceled = client.post_accepted("/reports", order(1)).await;
    let answer = client.delete(&canceled).await;
    assert_eq!(answer.json()["state"], "canceled");
    let other = client.post_accepted("/reports", order(1)).await;
    let _one = queue.worker("one").await;
    assert_eq!(client.wait_for_end(&other).await["state"], "succeeded");
    assert_eq!(queue.runs.nodes(id(&other)), ["one"]);
    assert!(queue.runs.nodes(id(&canceled)).is_empty());
    assert_eq!(client.wait_for_end(&canceled).await["state"], "canceled");
}

/// Returns the names of the files below a folder.
fn files(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

/// A long request waits in the folder until a worker reads it, and the long result comes back from
/// there.
async fn long_requests_and_results_go_through_a_folder(url: String) {
    const LENGTH: usize = 20_000_000;
    let folder = Folder::new("workers-results");
    let path = folder.join("results");
    let results = ["--results", &format!("file:{}", path.display())];
    let front = ["--listen", "127.0.0.1:0", "--queue", &url];
    let front = Example::start_in("server", &[&front[..], &results].concat(), &[]).await;
    let front = front.unwrap();
    let client = Client::new(front.url());
    let notes = "long ".repeat(200_000);
    let order = json!({"title": "Q3", "format": "pdf", "bytes": LENGTH, "notes": notes});
    let operation = client.post_accepted("/reports", order.to_string()).await;
    let stored = files(&path);
    assert!(stored.len() == 1 && stored[0].ends_with(".request"));
    assert!(fs::metadata(&stored[0]).unwrap().len() > 1_000_000);

    let worker = ["worker", "--queue", &url, "--name", "one"];
    let worker = [&worker[..], &results].concat();
    let worker = Example::start_until("workers", &worker, &[], "working as ").await;
    let _worker = worker.unwrap();
    assert_eq!(client.wait_for_end(&operation).await["state"], "succeeded");
    let result = client.get(&format!("{operation}/result")).await;
    assert_eq!(result.body().len(), LENGTH);
    let digest = Sha256::digest(result.body());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(result.header("x-checksum"), digest);
    assert_eq!(files(&path).len(), 2);
}

macro_rules! on_postgres_and_redis {
    ($($law:ident),* $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                let postgres = super::Postgres::start().await;
                super::$law(postgres.url()).await;
            })*
        }

        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                let redis = super::Redis::start().await;
                super::$law(redis.url()).await;
            })*
        }
    };
}

on_postgres_and_redis!(
    a_killed_worker_loses_no_operation,
    a_worker_prints_its_runs,
    a_drained_worker_loses_no_operation,
    a_poison_request_exhausts_its_attempts,
    an_operation_canceled_while_pending_never_starts,
    long_requests_and_results_go_through_a_folder,
);

/// The tables of the engine, accessed directly.
struct Tables(PgConnection);

impl Tables {
    async fn of(postgres: &Postgres) -> Self {
        Self(PgConnection::connect(&postgres.url()).await.unwrap())
    }

    /// Executes a statement, and returns the number of changed rows.
    async fn change(&mut self, statement: &'static str) -> u64 {
        let changed = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.0);
        changed.await.unwrap().rows_affected()
    }

    /// Returns the number of open tasks and the number of done ones.
    async fn tasks(&mut self) -> (i64, i64) {
        let counts = "SELECT count(*) FILTER (WHERE status <> 'Done'), \
                      count(*) FILTER (WHERE status = 'Done') FROM apalis.jobs";
        sqlx::query_as(counts).fetch_one(&mut self.0).await.unwrap()
    }

    /// Polls until the numbers are as wanted, because the engine does not notify.
    async fn until(&mut self, wanted: (i64, i64)) {
        let begun = Instant::now();
        loop {
            let tasks = self.tasks().await;
            if tasks == wanted {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{tasks:?}, not {wanted:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_task_is_dispatched_again() {
    let postgres = Postgres::start().await;
    let (queue, mut tables) = (Queue::at(postgres.url()).await, Tables::of(&postgres).await);
    let client = queue.client();
    let lost = client.post_accepted("/reports", order(1)).await;
    assert_eq!(tables.change("DELETE FROM apalis.jobs").await, 1);
    let _one = queue.worker("one").await;
    assert_eq!(client.wait_for_end(&lost).await["state"], "succeeded");
    assert_eq!(queue.runs.nodes(id(&lost)), ["one"]);
}

/// Copies of a task run their operation once. The copies that run nothing are done early;
/// the running task is done after the outcome is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicated_task_runs_once() {
    const COPY: &str = "INSERT INTO apalis.jobs \
        (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata) \
        SELECT left(id, 25) || n, job_type, job, status, attempts, max_attempts, run_at, \
        priority, metadata FROM apalis.jobs, unnest('{A,B,C,D}'::text[]) AS n \
        ON CONFLICT DO NOTHING";
    let postgres = Postgres::start().await;
    let (queue, mut tables) = (Queue::at(postgres.url()).await, Tables::of(&postgres).await);
    let client = queue.client();
    let operation = client.post_accepted("/reports", order(40)).await;
    assert!(tables.change(COPY).await >= 3);
    let (all, _) = tables.tasks().await;
    let _workers = (queue.worker("one").await, queue.worker("two").await);
    // One task stays open until its operation has ended.
    tables.until((1, all - 1)).await;
    let running = client.get(&operation).await.json();
    assert_eq!(running["state"], "running");
    assert_eq!(tables.tasks().await, (1, all - 1));
    assert_eq!(client.wait_for_end(&operation).await["state"], "succeeded");
    tables.until((0, all)).await;
    assert_eq!(queue.runs.nodes(id(&operation)).len(), 1);
}

/// A request that reaches no queue is not answered with 202.
#[tokio::test(flavor = "multi_thread")]
async fn an_undispatched_request_is_refused_and_recorded_as_failed() {
    let postgres = Postgres::start().await;
    let (queue, mut tables) = (Queue::at(postgres.url()).await, Tables::of(&postgres).await);
    let client = queue.client();
    tables
        .change("ALTER TABLE apalis.jobs RENAME TO gone")
        .await;
    let request = client
        .request(http::Method::POST, "/reports")
        .header("x-tenant", "acme");
    let refused = client.send(request, order(1).into()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.has("retry-after"), "{refused:?}");
    assert!(!refused.has("location"), "{refused:?}");
    let request = client
        .request(http::Method::GET, "/operations/")
        .header("x-tenant", "acme");
    let list = client.send(request, "".into()).await.json();
    let kind = FailureKind::NotDispatched.urn();
    assert_eq!(list["operations"][0]["problem"]["type"], kind, "{list}");

    tables
        .change("ALTER TABLE apalis.gone RENAME TO jobs")
        .await;
    let _one = queue.worker("one").await;
    let operation = client.post_accepted("/reports", order(1)).await;
    assert_eq!(client.wait_for_end(&operation).await["state"], "succeeded");
}

#[tokio::test]
async fn conflicting_arguments_are_refused() {
    for accept in ["signaled", "after:2"] {
        let arguments = ["--queue", "redis://127.0.0.1:1", "--accept", accept];
        let front = [&["front"], &arguments[..]].concat();
        for (example, arguments) in [("server", &arguments[..]), ("workers", &front)] {
            let ended = run(example, arguments).await;
            assert_eq!(ended.status.code(), Some(2), "{ended:?}");
            let errors = String::from_utf8(ended.stderr).unwrap();
            assert!(errors.contains("cannot go with --queue"), "{errors}");
        }
    }
    let url = "redis://127.0.0.1:1";
    let ended = run("server", &["--queue", url, "--store", url]).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    let ended = run("workers", &["front"]).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
}

/// The front and the workers crash at each point of the dispatch, and between the record of
/// the outcome and the acknowledgement to the engine.
#[tokio::test(flavor = "multi_thread")]
async fn crashes_during_a_dispatch_lose_no_operation() {
    let [dispatching, dispatched, claiming, claimed] = tower_operations::crash_points::HANDED_OFF;
    let at = |point| [("TOWER_OPERATIONS_CRASH_AT", point)];
    let postgres = Postgres::start().await;
    let url = postgres.url();
    for point in [dispatching, dispatched] {
        let crashing = Queue::at_in(url.clone(), &at(point)).await;
        let post = crashing.client().request(http::Method::POST, "/reports");
        let post = post.header("x-tenant", point);
        let answer = crashing.client().try_send(post, order(2).into()).await;
        assert!(answer.is_none(), "{point}: {answer:?}");
        assert!(!crashing.front.wait().await.status.success(), "{point}");

        let queue = Queue::at(url.clone()).await;
        let client = queue.client();
        let list = client
            .request(http::Method::GET, "/operations/")
            .header("x-tenant", point);
        let list = client.send(list, "".into()).await.json();
        let operations = list["operations"].as_array().unwrap();
        assert_eq!(operations.len(), 1, "{point}: {list}");
        let id = operations[0]["id"].as_str().unwrap();
        let _one = queue.worker("one").await;
        // The operation is dispatched again once its lease has expired.
        queue.runs.line(id, "begin", "one").await;
        let ended = client.request(http::Method::GET, &format!("/operations/{id}?wait=9"));
        let ended = client
            .send(ended.header("x-tenant", point), "".into())
            .await;
        assert_eq!(ended.json()["state"], "succeeded", "{point}: {ended:?}");
        assert_eq!(queue.runs.nodes(id), ["one"], "{point}");
    }
    for point in [claiming, claimed, "started", "finished"] {
        let queue = Queue::at(url.clone()).await;
        let client = queue.client();
        let crashing = queue.worker_in("one", &at(point)).await;
        let operation = client.post_accepted("/reports", order(2)).await;
        assert!(!crashing.wait().await.status.success(), "{point}");
        let _two = queue.worker("two").await;
        let ended = client.wait_for_end(&operation).await;
        assert_eq!(ended["state"], "succeeded", "{point}: {ended}");
        let runs = match point {
            "finished" => "one",
            _ => "two",
        };
        assert_eq!(queue.runs.nodes(id(&operation)), [runs], "{point}");
    }
}
