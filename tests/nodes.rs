//! Two processes on one store: whichever of them is asked, it is one service, also
//! when one of them dies or sleeps.

mod support {
    pub(crate) mod client;
    pub(crate) mod postgres;
    pub(crate) mod private;
    pub(crate) mod process;
    pub(crate) mod redis;
}

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{
    client::{Answer, Client},
    private::Folder,
    process::{Example, PATIENCE},
};
use tokio::time::{Instant, sleep};

/// What one node does is known to the other within this.
const SOON: Duration = Duration::from_secs(1);

/// Two nodes on the store of this address, and what they wrote down of their runs.
struct Nodes {
    a: Example,
    b: Example,
    runs: PathBuf,
    _folder: Folder,
}

impl Nodes {
    async fn start(store: &str, lease: &str, on_interrupted: &str) -> Self {
        let folder = Folder::new("nodes");
        let runs = folder.join("runs.jsonl");
        let (a, b) = tokio::join!(
            node(store, "a", &runs, lease, on_interrupted),
            node(store, "b", &runs, lease, on_interrupted),
        );
        Self {
            a,
            b,
            runs,
            _folder: folder,
        }
    }

    fn clients(&self) -> (Client, Client) {
        (Client::new(self.a.url()), Client::new(self.b.url()))
    }

    /// The lines about an operation.
    fn lines(&self, id: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.runs).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line["operation"] == id)
            .collect()
    }

    /// Waits for such a line about an operation.
    async fn line(&self, id: &str, event: &str, node: &str) -> Value {
        let begun = Instant::now();
        loop {
            let lines = self.lines(id);
            let found = lines
                .iter()
                .find(|line| line["event"] == event && line["node"] == node);
            if let Some(line) = found {
                return line.clone();
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "no {event} at {node}: {lines:?}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn node(store: &str, name: &str, runs: &Path, lease: &str, policy: &str) -> Example {
    let runs = runs.display().to_string();
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--store",
        store,
        "--node",
        name,
        "--runs",
        &runs,
        "--lease",
        lease,
        "--on-interrupted",
        policy,
        "--idempotency",
        "optional",
        "--list",
    ];
    Example::start("server", &arguments).await.unwrap()
}

fn order(pages: u32, page_ms: u32) -> String {
    json!({"title": "Q3", "pages": pages, "page_ms": page_ms}).to_string()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn at(line: &Value) -> Duration {
    Duration::from_millis(line["at"].as_u64().unwrap())
}

fn id(location: &str) -> &str {
    location.rsplit('/').next().unwrap()
}

async fn get(client: &Client, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = client.request(Method::GET, path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    client.send(request, Bytes::new()).await
}

/// The operation, once it has ended.
async fn ended(client: &Client, location: &str) -> Value {
    let begun = Instant::now();
    loop {
        let operation = client.get(&format!("{location}?wait=5")).await.json();
        if !matches!(operation["state"].as_str(), Some("pending" | "running")) {
            return operation;
        }
        assert!(begun.elapsed() < PATIENCE, "it never ends: {operation}");
    }
}

async fn waits_and_events_and_results_cross_nodes(nodes: &Nodes) {
    let (a, b) = nodes.clients();
    let location = a.accepted("/reports", order(4, 300)).await;
    let run = nodes.line(id(&location), "begin", "a").await;

    // A change is seen, and the end, as soon as they are there.
    let tag = b.get(&location).await.header("etag").to_owned();
    let (waiting, following) = (format!("{location}?wait=10"), format!("{location}/events"));
    let known = [("if-none-match", &*tag)];
    let changed = get(&b, &waiting, &known);
    let events = get(&b, &following, &[]);
    let whole = async {
        let operation = b.get(&format!("{location}?wait=10")).await.json();
        (operation, now())
    };
    let (changed, events, (operation, seen)) = tokio::join!(changed, events, whole);
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.header("etag"), tag);
    assert_eq!(operation["state"], "succeeded");
    let end = nodes.line(id(&location), "end", "a").await;
    assert!(at(&end) > at(&run));
    let took = seen.saturating_sub(at(&end));
    assert!(took < SOON, "a wait ended {took:?} late");

    // Each change is an event of its own, in order, the last one the end.
    let text = String::from_utf8_lossy(events.body()).into_owned();
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(names.last(), Some(&"succeeded"), "{text}");
    let versions: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .map(|tag| tag.split('-').next().unwrap().parse().unwrap())
        .collect();
    let first = versions[0];
    let complete: Vec<u64> = (first..).take(versions.len()).collect();
    assert_eq!(versions, complete, "{text}");

    let results = (
        a.get(&format!("{location}/result")).await,
        b.get(&format!("{location}/result")).await,
    );
    assert_eq!(results.0.body(), results.1.body());
    assert_eq!(results.0.header("operation-result"), "200");
}

async fn a_cancel_stops_the_work_wherever_it_runs(nodes: &Nodes) {
    let (a, b) = nodes.clients();
    for _ in 0..5 {
        let location = a.accepted("/reports", order(600, 100)).await;
        nodes.line(id(&location), "begin", "a").await;
        let asked = now();
        let answer = b.delete(&location).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.json()["state"], "canceled");
        let dropped = nodes.line(id(&location), "dropped", "a").await;
        let took = at(&dropped).saturating_sub(asked);
        assert!(took < SOON, "it went on for {took:?}");
        assert_eq!(a.get(&location).await.json()["state"], "canceled");
    }
}

async fn a_key_is_one_operation_on_all_nodes(nodes: &Nodes) {
    let (a, b) = nodes.clients();
    for round in 0..20 {
        let key = format!("\"a key of round {round:04}\"");
        let post = |client: &Client| {
            let client = client.clone();
            let request = client
                .request(Method::POST, "/reports")
                .header("idempotency-key", &key);
            async move { client.send(request, order(1, 1).into()).await }
        };
        let answers = tokio::join!(post(&a), post(&b), post(&a), post(&b));
        let answers = [answers.0, answers.1, answers.2, answers.3];
        let locations: HashSet<_> = answers
            .iter()
            .map(|answer| {
                assert_eq!(answer.status(), StatusCode::ACCEPTED, "{answer:?}");
                answer.header("location").to_owned()
            })
            .collect();
        assert_eq!(locations.len(), 1, "{locations:?}");
        let location = locations.into_iter().next().unwrap();
        assert_eq!(ended(&b, &location).await["state"], "succeeded");
        let lines = nodes.lines(id(&location));
        let begun = lines.iter().filter(|line| line["event"] == "begin");
        assert_eq!(begun.count(), 1, "{lines:?}");
    }
}

async fn a_tenants_list_is_the_same_everywhere(nodes: &Nodes) {
    let (a, b) = nodes.clients();
    let mut posted = Vec::new();
    for client in [&a, &b, &a] {
        let request = client
            .request(Method::POST, "/reports")
            .header("x-tenant", "ada");
        let answer = client.send(request, order(1, 1).into()).await;
        posted.insert(0, answer.json()["id"].clone());
    }
    for client in [&a, &b] {
        let list = get(client, "/operations/", &[("x-tenant", "ada")])
            .await
            .json();
        let operations = list["operations"].as_array().unwrap();
        let ids: Vec<_> = operations.iter().map(|it| it["id"].clone()).collect();
        assert_eq!(ids, posted);
    }
}

async fn all_that_crosses_nodes(store: &str) {
    let nodes = Nodes::start(store, "30", "fail").await;
    waits_and_events_and_results_cross_nodes(&nodes).await;
    a_cancel_stops_the_work_wherever_it_runs(&nodes).await;
    a_key_is_one_operation_on_all_nodes(&nodes).await;
    a_tenants_list_is_the_same_everywhere(&nodes).await;
}

/// With SIGKILL, and with SIGSTOP, after which it comes back late.
async fn what_a_lost_node_ran_goes_on_elsewhere(store: &str) {
    for signal in ["KILL", "STOP"] {
        let nodes = Nodes::start(store, "1", "rerun:3").await;
        let (a, b) = nodes.clients();
        let location = a.accepted("/reports", order(20, 50)).await;
        nodes.line(id(&location), "begin", "a").await;
        nodes.a.signal(signal).await;
        let operation = ended(&b, &location).await;
        assert_eq!(operation["state"], "succeeded", "{operation}");
        let again = nodes.line(id(&location), "begin", "b").await;
        assert_eq!(again["attempt"], 2);
        if signal == "STOP" {
            let before = b.get(&location).await;
            nodes.a.signal("CONT").await;
            // It comes to its end, or hears that it has lost the operation; neither
            // changes anything any more.
            let begun = Instant::now();
            let is_over = |line: &Value| line["node"] == "a" && line["event"] != "begin";
            while !nodes.lines(id(&location)).iter().any(is_over) {
                assert!(begun.elapsed() < PATIENCE, "it never wakes");
                sleep(Duration::from_millis(5)).await;
            }
            for client in [&a, &b].repeat(10) {
                let after = client.get(&location).await;
                assert_eq!(after.body(), before.body());
                assert_eq!(after.header("etag"), before.header("etag"));
            }
        }
    }

    let nodes = Nodes::start(store, "1", "fail").await;
    let (a, b) = nodes.clients();
    let location = a.accepted("/reports", order(600, 100)).await;
    nodes.line(id(&location), "begin", "a").await;
    nodes.a.signal("KILL").await;
    let operation = ended(&b, &location).await;
    assert_eq!(
        operation["problem"]["type"],
        "urn:tower-operations:interrupted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    let server = support::postgres::Postgres::start().await;
    all_that_crosses_nodes(&server.url()).await;
    what_a_lost_node_ran_goes_on_elsewhere(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    let server = support::redis::Redis::start().await;
    all_that_crosses_nodes(&server.url()).await;
    what_a_lost_node_ran_goes_on_elsewhere(&server.url()).await;
}

/// The example, which kills a node by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_a_kill() {
    let server = support::redis::Redis::start().await;
    let cluster = Example::start("cluster", &[&server.url(), "127.0.0.1:0"]).await;
    let mut cluster = cluster.unwrap();
    let client = Client::new(cluster.url());
    cluster.says("all 12 have succeeded").await;
    // The node that is left goes on.
    let location = client.accepted("/reports", order(1, 1)).await;
    assert_eq!(ended(&client, &location).await["state"], "succeeded");
}
