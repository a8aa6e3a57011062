//! Fronts that accept, and workers elsewhere that run it, with a queue of apalis between
//! them: the `workers` example on PostgreSQL and on Redis.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
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

/// A front on a queue, and what the workers of that queue wrote down.
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

    /// With these environment variables. Whatever is lost is missed soon.
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

    /// With these environment variables.
    async fn worker_in(&self, name: &str, environment: &[(&str, &str)]) -> Example {
        let runs = self.runs.path().display().to_string();
        let arguments = ["worker", "--queue", &self.url, "--name", name];
        let more = ["--lease", "1", "--drain", "1", "--runs", &runs];
        let arguments = [&arguments[..], &more].concat();
        let started = Example::start_saying("workers", &arguments, environment, "working as ");
        started.await.unwrap()
    }
}

/// So many pages, 50 ms each.
fn order(pages: u32) -> String {
    json!({"title": "Q3", "pages": pages, "page_ms": 50}).to_string()
}

fn id(location: &str) -> &str {
    location.rsplit('/').next().unwrap()
}

/// What the guide shows.
async fn a_killed_worker_loses_nothing(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let one = queue.worker("one").await;
    let first = client.accepted("/reports", order(60)).await;
    queue.runs.line(id(&first), "begin", "one").await;
    let _others = (queue.worker("two").await, queue.worker("three").await);
    let mut operations = vec![first];
    for _ in 0..6 {
        operations.push(client.accepted("/reports", order(4)).await);
    }
    one.signal("KILL").await;
    one.ended().await;
    for operation in &operations {
        let ended = client.ended(operation).await;
        assert_eq!(ended["state"], "succeeded");
    }
    let runs = queue.runs.begun(id(&operations[0]));
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_ne!(runs[1], "one");
}

/// Who looks on knows whom to kill.
async fn a_worker_says_what_it_runs(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let worker = async |name| {
        let arguments = [
            "worker", "--queue", &queue.url, "--name", name, "--lease", "1",
        ];
        let started = Example::start_saying("workers", &arguments, &[], "working as ").await;
        started.unwrap()
    };
    let mut one = worker("one").await;
    let operation = client.accepted("/reports", order(40)).await;
    let runs = |name: &str, process: u32| {
        format!("worker {name} runs {} in process {process}", id(&operation))
    };
    one.says(&runs("one", one.pid())).await;
    one.signal("KILL").await;
    one.ended().await;
    let mut two = worker("two").await;
    two.says(&runs("two", two.pid())).await;
    assert_eq!(client.ended(&operation).await["state"], "succeeded");
}

/// A worker that is stopped ends what it can and gives the rest to the others.
async fn a_drained_worker_loses_nothing(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let one = queue.worker("one").await;
    let long = client.accepted("/reports", order(60)).await;
    let short = client.accepted("/reports", order(10)).await;
    queue.runs.line(id(&long), "begin", "one").await;
    queue.runs.line(id(&short), "begin", "one").await;
    let _two = queue.worker("two").await;
    one.signal("TERM").await;
    let drained = one.ended().await;
    assert!(drained.status.success(), "{drained:?}");
    let released = format!("released {}", id(&long));
    assert!(drained.output.contains(&released), "{drained:?}");
    for operation in [&long, &short] {
        assert_eq!(client.ended(operation).await["state"], "succeeded");
    }
    assert_eq!(queue.runs.begun(id(&long)), ["one", "two"]);
    assert_eq!(queue.runs.begun(id(&short)), ["one"]);
}

/// A request that kills who runs it is run three times, and no more.
async fn a_poison_request_is_given_up(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let poison = client.accepted("/reports", order(600)).await;
    for name in ["one", "two", "three"] {
        let worker = queue.worker(name).await;
        queue.runs.line(id(&poison), "begin", name).await;
        worker.signal("KILL").await;
        worker.ended().await;
    }
    let _four = queue.worker("four").await;
    let failed = client.ended(&poison).await;
    let kind = FailureKind::AttemptsExhausted.urn();
    assert_eq!(failed["problem"]["type"], kind, "{failed}");
    assert_eq!(queue.runs.begun(id(&poison)), ["one", "two", "three"]);
}

/// It is in the queue when there is a worker at last, and finds that it is over.
async fn what_was_canceled_while_pending_is_never_started(url: String) {
    let queue = Queue::at(url).await;
    let client = queue.client();
    let canceled = client.accepted("/reports", order(1)).await;
    let answer = client.delete(&canceled).await;
    assert_eq!(answer.json()["state"], "canceled");
    let other = client.accepted("/reports", order(1)).await;
    let _one = queue.worker("one").await;
    assert_eq!(client.ended(&other).await["state"], "succeeded");
    assert_eq!(queue.runs.begun(id(&other)), ["one"]);
    assert!(queue.runs.begun(id(&canceled)).is_empty());
    assert_eq!(client.ended(&canceled).await["state"], "canceled");
}

macro_rules! on_both {
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

on_both!(
    a_killed_worker_loses_nothing,
    a_worker_says_what_it_runs,
    a_drained_worker_loses_nothing,
    a_poison_request_is_given_up,
    what_was_canceled_while_pending_is_never_started,
);

/// The tables of the engine, behind its back.
struct Tables(PgConnection);

impl Tables {
    async fn of(postgres: &Postgres) -> Self {
        Self(PgConnection::connect(&postgres.url()).await.unwrap())
    }

    /// How many rows it changed.
    async fn change(&mut self, statement: &'static str) -> u64 {
        let changed = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.0);
        changed.await.unwrap().rows_affected()
    }

    /// How many tasks the engine has to do, and how many are done.
    async fn tasks(&mut self) -> (i64, i64) {
        let counts = "SELECT count(*) FILTER (WHERE status <> 'Done'), \
                      count(*) FILTER (WHERE status = 'Done') FROM apalis.jobs";
        sqlx::query_as(counts).fetch_one(&mut self.0).await.unwrap()
    }

    /// Asks until there are so many: the engine tells nobody what it has acknowledged.
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
async fn what_the_queue_has_lost_is_dispatched_again() {
    let postgres = Postgres::start().await;
    let (queue, mut tables) = (Queue::at(postgres.url()).await, Tables::of(&postgres).await);
    let client = queue.client();
    let lost = client.accepted("/reports", order(1)).await;
    assert_eq!(tables.change("DELETE FROM apalis.jobs").await, 1);
    let _one = queue.worker("one").await;
    assert_eq!(client.ended(&lost).await["state"], "succeeded");
    assert_eq!(queue.runs.begun(id(&lost)), ["one"]);
}

/// However often a task is in the queue, its operation is run once; the others are done
/// when there is nothing to do for them. None is done before the outcome is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_there_five_times_runs_once() {
    const COPY: &str = "INSERT INTO apalis.jobs \
        (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata) \
        SELECT left(id, 25) || n, job_type, job, status, attempts, max_attempts, run_at, \
        priority, metadata FROM apalis.jobs, unnest('{A,B,C,D}'::text[]) AS n \
        ON CONFLICT DO NOTHING";
    let postgres = Postgres::start().await;
    let (queue, mut tables) = (Queue::at(postgres.url()).await, Tables::of(&postgres).await);
    let client = queue.client();
    let operation = client.accepted("/reports", order(40)).await;
    assert!(tables.change(COPY).await >= 3);
    let (all, _) = tables.tasks().await;
    let _workers = (queue.worker("one").await, queue.worker("two").await);
    // One stays until its operation has ended.
    tables.until((1, all - 1)).await;
    let running = client.get(&operation).await.json();
    assert_eq!(running["state"], "running");
    assert_eq!(tables.tasks().await, (1, all - 1));
    assert_eq!(client.ended(&operation).await["state"], "succeeded");
    tables.until((0, all)).await;
    assert_eq!(queue.runs.begun(id(&operation)).len(), 1);
}

/// Never a 202 for work that nobody will do.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_queue_takes_is_refused_and_recorded_as_failed() {
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
    let operation = client.accepted("/reports", order(1)).await;
    assert_eq!(client.ended(&operation).await["state"], "succeeded");
}

#[tokio::test]
async fn what_cannot_be_waited_for_is_a_mistake_on_the_command_line() {
    for accept in ["signaled", "after:2"] {
        let arguments = ["--queue", "redis://127.0.0.1:1", "--accept", accept];
        let front = [&["front"], &arguments[..]].concat();
        for (example, arguments) in [("server", &arguments[..]), ("workers", &front)] {
            let ended = run(example, arguments).await;
            assert_eq!(ended.status.code(), Some(2), "{ended:?}");
            let said = String::from_utf8(ended.stderr).unwrap();
            assert!(said.contains("cannot go with --queue"), "{said}");
        }
    }
    let url = "redis://127.0.0.1:1";
    let ended = run("server", &["--queue", url, "--store", url]).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    let ended = run("workers", &["front"]).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
}

/// Front and workers die at each point on the way from one to the other, and when the
/// outcome is recorded but the engine has not heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_on_the_way_loses_nothing() {
    let [dispatching, dispatched, claiming, claimed] = tower_operations::crash_points::HANDED_OFF;
    let at = |point| [("TOWER_OPERATIONS_CRASH_AT", point)];
    let postgres = Postgres::start().await;
    let url = postgres.url();
    for point in [dispatching, dispatched] {
        let dying = Queue::at_in(url.clone(), &at(point)).await;
        let post = dying.client().request(http::Method::POST, "/reports");
        let post = post.header("x-tenant", point);
        let answer = dying.client().try_send(post, order(2).into()).await;
        assert!(answer.is_none(), "{point}: {answer:?}");
        assert!(!dying.front.ended().await.status.success(), "{point}");

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
        // Its lease is over in a while, and then it is on its way again.
        queue.runs.line(id, "begin", "one").await;
        let ended = client.request(http::Method::GET, &format!("/operations/{id}?wait=9"));
        let ended = client
            .send(ended.header("x-tenant", point), "".into())
            .await;
        assert_eq!(ended.json()["state"], "succeeded", "{point}: {ended:?}");
        assert_eq!(queue.runs.begun(id), ["one"], "{point}");
    }
    for point in [claiming, claimed, "started", "finished"] {
        let queue = Queue::at(url.clone()).await;
        let client = queue.client();
        let dying = queue.worker_in("one", &at(point)).await;
        let operation = client.accepted("/reports", order(2)).await;
        assert!(!dying.ended().await.status.success(), "{point}");
        let _two = queue.worker("two").await;
        let ended = client.ended(&operation).await;
        assert_eq!(ended["state"], "succeeded", "{point}: {ended}");
        let runs = match point {
            "finished" => "one",
            _ => "two",
        };
        assert_eq!(queue.runs.begun(id(&operation)), [runs], "{point}");
    }
}
