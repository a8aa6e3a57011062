//! Two processes on one store act as one service, even if one of them is killed or
//! suspended.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use test_support::{
    client::{Answer, Client},
    private::Folder,
    process::{Example, PATIENCE},
    runs::Runs,
};
use tokio::time::{Instant, sleep, timeout};

/// The time within which a node sees the changes of another.
const SOON: Duration = Duration::from_secs(1);

/// Two nodes on one store, and the log of their runs.
struct Nodes {
    a: Example,
    b: Example,
    runs: Runs,
    _folder: Folder,
}

impl Nodes {
    /// Starts the nodes with further arguments.
    async fn start(store: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new("nodes");
        let runs = Runs::at(folder.join("runs.jsonl"));
        let (a, b) = tokio::join!(
            node(store, "a", runs.path(), arguments),
            node(store, "b", runs.path(), arguments),
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
}

async fn node(store: &str, name: &str, runs: &Path, more: &[&str]) -> Example {
    let runs = runs.display().to_string();
    let mut arguments = vec!["--listen", "127.0.0.1:0", "--idempotency", "optional"];
    arguments.extend(["--list", "--store", store, "--node", name, "--runs", &runs]);
    arguments.extend(more);
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

/// Waits and event streams at node b see every change at node a within [`SOON`].
async fn waits_and_events_see_changes_of_other_nodes(nodes: &Nodes) {
    let (a, b) = nodes.clients();
    // The nodes run one operation at a time, so the second one stays pending.
    let first = a.post_accepted("/reports", order(600, 100)).await;
    nodes.runs.line(id(&first), "begin", "a").await;
    let location = a.post_accepted("/reports", order(4, 300)).await;

    let pending = b.get(&location).await;
    assert_eq!(pending.json()["state"], "pending");
    let following = b.request(Method::GET, &format!("{location}/events"));
    let mut events = b.open(following, "").await.into_body();
    let mut text = String::new();
    while !text.contains("\n\n") {
        text += &next(&mut events).await.expect("the stream begins");
    }

    let waiting = format!("{location}?wait=10");
    let known = [("if-none-match", pending.header("etag"))];
    let change = async { (get(&b, &waiting, &known).await, now()) };
    let end = async { (b.get(&waiting).await.json(), now()) };
    let follow = async {
        while let Some(more) = next(&mut events).await {
            text += &more;
        }
        now()
    };
    let (change, end, followed, canceled) = tokio::join!(change, end, follow, b.delete(&first));
    assert_eq!(canceled.status(), StatusCode::OK);

    assert_eq!(change.0.status(), StatusCode::OK);
    assert_ne!(change.0.header("etag"), pending.header("etag"));
    assert_eq!(change.0.json()["state"], "running");
    assert_eq!(end.0["state"], "succeeded");
    let begun = at(&nodes.runs.line(id(&location), "begin", "a").await);
    let ended = at(&nodes.runs.line(id(&location), "end", "a").await);
    for (name, observed, happened) in [
        ("the change", change.1, begun),
        ("the end", end.1, ended),
        ("the end of the events", followed, ended),
    ] {
        let took = observed.saturating_sub(happened);
        assert!(took < SOON, "{name} was seen {took:?} late");
    }
    assert!(change.1 < ended, "the change was seen after the end");
    assert_every_change(&text);
}

/// Asserts that an event stream has an event for each change, in order.
fn assert_every_change(text: &str) {
    let all = |prefix| {
        text.lines()
            .filter_map(move |line| line.strip_prefix(prefix))
    };
    let states: Vec<&str> = all("event: ").collect();
    let (first, rest) = states.split_first().unwrap();
    let (last, running) = rest.split_last().unwrap();
    assert_eq!((*first, *last), ("pending", "succeeded"), "{text}");
    assert!(running.iter().all(|state| *state == "running"), "{text}");

    let versions: Vec<u64> = all("id: ")
        .map(|tag| tag.split('-').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(versions.len(), states.len(), "{text}");
    let complete: Vec<u64> = (versions[0]..).take(versions.len()).collect();
    assert_eq!(versions, complete, "{text}");

    let pages: Vec<u64> = all("data: ")
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|operation| operation["progress"]["completed"].as_u64())
        .collect();
    assert!(pages.is_sorted(), "{text}");
    let (some, end) = (pages.first(), pages.last());
    assert!(some < Some(&4) && end == Some(&4), "{text}");
}

async fn next(events: &mut Incoming) -> Option<String> {
    let frame = timeout(PATIENCE, events.frame()).await;
    let data = frame
        .expect("the next event arrives")?
        .unwrap()
        .into_data()
        .unwrap();
    Some(String::from_utf8(data.to_vec()).unwrap())
}

async fn a_result_is_the_same_on_all_nodes(nodes: &Nodes) {
    let (a, b) = nodes.clients();
    let document = json!({"title": "Q3", "format": "pdf", "bytes": 100_000}).to_string();
    for order in [order(2, 1), document] {
        let location = a.post_accepted("/reports", order).await;
        assert_eq!(b.wait_for_end(&location).await["state"], "succeeded");
        let result = format!("{location}/result");
        let (here, there) = tokio::join!(a.get(&result), b.get(&result));
        assert_eq!(here.status(), StatusCode::OK);
        assert_eq!(there.status(), here.status());
        assert!(!here.body().is_empty());
        assert_eq!(there.body(), here.body());
        assert_eq!(there.header("content-type"), here.header("content-type"));
        assert_eq!(there.header("operation-result"), "200");
    }
}

async fn a_cancel_stops_a_run_on_another_node(nodes: &Nodes) {
    let (a, b) = nodes.clients();
    for _ in 0..5 {
        // The run reports no progress, whose refusal would stop the run as well.
        let location = a.post_accepted("/reports", order(1, 60_000)).await;
        nodes.runs.line(id(&location), "begin", "a").await;
        let requested_at = now();
        let answer = b.delete(&location).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.json()["state"], "canceled");
        let dropped = nodes.runs.line(id(&location), "dropped", "a").await;
        let took = at(&dropped).saturating_sub(requested_at);
        assert!(took < SOON, "the run continued for {took:?}");
        assert_eq!(a.get(&location).await.json()["state"], "canceled");
    }
}

async fn a_key_has_one_operation_on_all_nodes(nodes: &Nodes) {
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
        assert_eq!(b.wait_for_end(&location).await["state"], "succeeded");
        let lines = nodes.runs.lines(id(&location));
        let begun = lines.iter().filter(|line| line["event"] == "begin");
        assert_eq!(begun.count(), 1, "{lines:?}");
    }
}

async fn a_key_of_two_tenants_has_two_operations_on_all_nodes(nodes: &Nodes) {
    let (a, b) = nodes.clients();
    for round in 0..20 {
        let key = format!("\"a key of tenants {round:04}\"");
        let post = |client: &Client, tenant: &str| {
            let client = client.clone();
            let request = client
                .request(Method::POST, "/reports")
                .header("x-tenant", tenant)
                .header("idempotency-key", &key);
            async move { client.send(request, order(1, 1).into()).await }
        };
        let (cleo, dora, cleo_again, dora_again) = tokio::join!(
            post(&a, "cleo"),
            post(&b, "dora"),
            post(&b, "cleo"),
            post(&a, "dora")
        );
        for answer in [&cleo, &dora] {
            assert_eq!(answer.status(), StatusCode::ACCEPTED, "{answer:?}");
        }
        assert_eq!(cleo.header("location"), cleo_again.header("location"));
        assert_eq!(dora.header("location"), dora_again.header("location"));
        assert_ne!(cleo.header("location"), dora.header("location"));
        let foreign = a.request(Method::GET, cleo.header("location"));
        let foreign = foreign.header("x-tenant", "dora");
        let answer = a.send(foreign, String::new().into()).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
}

/// A request that may still be answered directly reserves its key. A repeated request at
/// the other node gets the same answer, or runs if the first node is killed.
async fn a_reserved_key_has_one_call_on_all_nodes(store: &str) {
    let after = ["--lease", "1", "--accept", "after:60"];
    let nodes = Nodes::start(store, &after).await;
    let (a, b) = nodes.clients();
    let post = |client: &Client, title: &str, page_ms: u32| {
        let client = client.clone();
        let request = client
            .request(Method::POST, "/reports")
            .header("idempotency-key", format!("\"the key of {title}\""));
        let order = json!({"title": title, "pages": 1, "page_ms": page_ms}).to_string();
        async move { client.try_send(request, order.into()).await }
    };
    let begun = |title: &str| {
        let lines = nodes.runs.all();
        let begun = |line: &&Value| line["event"] == "begin" && line["title"] == title;
        lines.iter().filter(begun).count()
    };
    for round in 0..10 {
        let title = format!("answered once {round}");
        let (first, second) = tokio::join!(post(&a, &title, 50), post(&b, &title, 50));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.status(), StatusCode::OK, "{first:?}");
        assert_eq!(second.status(), StatusCode::OK, "{second:?}");
        assert_eq!(first.body(), second.body());
        assert_eq!(begun(&title), 1, "{title}");
    }

    let title = "answered after a kill";
    let first = tokio::spawn(post(&a, title, 3000));
    let since = Instant::now();
    while begun(title) == 0 {
        assert!(since.elapsed() < PATIENCE, "the run never begins");
        sleep(Duration::from_millis(5)).await;
    }
    nodes.a.signal("KILL").await;
    assert!(
        first.await.unwrap().is_none(),
        "the first request was answered although its node was killed"
    );
    let second = post(&b, title, 3000).await.unwrap();
    assert_eq!(second.status(), StatusCode::OK, "{second:?}");
    assert_eq!(begun(title), 2);
}

async fn a_list_is_the_same_on_all_nodes(nodes: &Nodes) {
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
        let others = get(client, "/operations/", &[("x-tenant", "bob")]).await;
        assert_eq!(others.json()["operations"], json!([]));
    }
}

async fn check_shared_operations(store: &str) {
    let nodes = Nodes::start(store, &["--lease", "30", "--concurrency", "1"]).await;
    waits_and_events_see_changes_of_other_nodes(&nodes).await;
    a_result_is_the_same_on_all_nodes(&nodes).await;
    a_cancel_stops_a_run_on_another_node(&nodes).await;
    a_key_has_one_operation_on_all_nodes(&nodes).await;
    a_key_of_two_tenants_has_two_operations_on_all_nodes(&nodes).await;
    a_list_is_the_same_on_all_nodes(&nodes).await;
}

const RERUN: [&str; 4] = ["--lease", "1", "--on-interrupted", "rerun:3"];

/// Starts an operation at node a, sends a signal to node a, and waits until node b ends the
/// operation.
async fn rerun_after_signal(nodes: &Nodes, signal: &str) -> String {
    let (a, b) = nodes.clients();
    let location = a.post_accepted("/reports", order(20, 50)).await;
    let first = nodes.runs.line(id(&location), "begin", "a").await;
    assert_eq!(first["attempt"], 1);
    nodes.a.signal(signal).await;
    let operation = b.wait_for_end(&location).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let second = nodes.runs.line(id(&location), "begin", "b").await;
    assert_eq!(second["attempt"], 2);
    let lines = nodes.runs.lines(id(&location));
    let begun = lines.iter().filter(|line| line["event"] == "begin");
    assert_eq!(begun.count(), 2, "{lines:?}");
    location
}

async fn an_operation_of_a_killed_node_is_rerun(store: &str) {
    let nodes = Nodes::start(store, &RERUN).await;
    rerun_after_signal(&nodes, "KILL").await;
}

async fn an_operation_of_a_killed_node_is_interrupted(store: &str) {
    let nodes = Nodes::start(store, &["--lease", "1", "--on-interrupted", "fail"]).await;
    let (a, b) = nodes.clients();
    let location = a.post_accepted("/reports", order(600, 100)).await;
    nodes.runs.line(id(&location), "begin", "a").await;
    nodes.a.signal("KILL").await;
    let operation = b.wait_for_end(&location).await;
    let problem = &operation["problem"]["type"];
    assert_eq!(problem, "urn:tower-operations:interrupted");
    assert_eq!(nodes.runs.lines(id(&location)).len(), 1);
}

async fn a_resumed_node_does_not_end_a_reclaimed_operation(store: &str) {
    let nodes = Nodes::start(store, &RERUN).await;
    let (a, b) = nodes.clients();
    // The run ends while the node is suspended. The resumed node has an outcome to record
    // before it can learn that the lease is lost.
    let location = a.post_accepted("/reports", order(1, 900)).await;
    nodes.runs.line(id(&location), "begin", "a").await;
    nodes.a.signal("STOP").await;
    nodes.runs.line(id(&location), "begin", "b").await;
    nodes.a.signal("CONT").await;
    let operation = b.wait_for_end(&location).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    // The outcome is that of node b, which logs the end before it records the outcome.
    let lines = nodes.runs.lines(id(&location));
    let is_end = |line: &Value| line["event"] == "end" && line["node"] == "b";
    assert!(lines.iter().any(is_end), "{lines:?}");
}

async fn a_resumed_node_does_not_change_an_ended_operation(store: &str) {
    let nodes = Nodes::start(store, &RERUN).await;
    let location = rerun_after_signal(&nodes, "STOP").await;
    let (a, b) = nodes.clients();
    let result = format!("{location}/result");
    let before = (b.get(&location).await, b.get(&result).await);

    nodes.a.signal("CONT").await;
    // The run of node a ends, or stops because the lease is lost.
    let begun = Instant::now();
    let is_over = |line: &Value| line["node"] == "a" && line["event"] != "begin";
    while !nodes.runs.lines(id(&location)).iter().any(is_over) {
        assert!(begun.elapsed() < PATIENCE, "the node never resumes");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(a.get(&location).await.body(), before.0.body());
    // A drained node makes no further attempts to write.
    nodes.a.signal("TERM").await;
    let exit = nodes.a.wait().await;
    assert!(exit.status.success(), "{exit:?}");
    let after = (b.get(&location).await, b.get(&result).await);
    assert_eq!(after.0.body(), before.0.body());
    assert_eq!(after.0.header("etag"), before.0.header("etag"));
    assert_eq!(after.1.body(), before.1.body());
}

async fn check_failed_nodes(store: &str) {
    an_operation_of_a_killed_node_is_rerun(store).await;
    an_operation_of_a_killed_node_is_interrupted(store).await;
    a_resumed_node_does_not_end_a_reclaimed_operation(store).await;
    a_resumed_node_does_not_change_an_ended_operation(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_postgres() {
    let server = test_support::postgres::Postgres::start().await;
    check_shared_operations(&server.url()).await;
    a_reserved_key_has_one_call_on_all_nodes(&server.url()).await;
    check_failed_nodes(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_redis() {
    let server = test_support::redis::Redis::start().await;
    check_shared_operations(&server.url()).await;
    a_reserved_key_has_one_call_on_all_nodes(&server.url()).await;
    check_failed_nodes(&server.url()).await;
}
