//! Crashes of a server at each named point in the life of an operation: a process on a file
//! exits at the point, and is restarted.
//!
//! | point of the crash | answer to the client | end with `fail` | end with `rerun` |
//! | --- | --- | --- | --- |
//! | before the operation is created | none | no operation | no operation |
//! | after the create, before the 202 | none | interrupted | succeeded |
//! | from the 202 to before the outcome is recorded | a 202 | interrupted | succeeded |
//! | after the outcome is recorded | a 202 | succeeded | succeeded |
//! | reclaiming or rerunning the operation | a 202 | interrupted | succeeded |
//!
//! A repeated request with the same key is answered with a 202 in each case, and with the
//! first operation if there is one.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use test_support::{
    client::{Answer, Client},
    process::{Example, PATIENCE},
};
use tokio::time::{Instant, sleep};
use tower_operations::crash_points;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Fail,
    Rerun,
}

/// The expected state after the restart of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    /// Whether the client may have received its 202, which another task sends.
    accepted: bool,
    /// The end of the operation; `None` if there is no operation.
    ended: Option<&'static str>,
}

fn expected(point: &str, policy: Policy) -> Expected {
    let recovered = match policy {
        Policy::Fail => "urn:tower-operations:interrupted",
        Policy::Rerun => "succeeded",
    };
    let (accepted, ended) = match point {
        "request-stored" | "creating" => (false, None),
        "created" => (false, Some(recovered)),
        "finished" => (true, Some("succeeded")),
        "accepted" | "ready" | "starting" | "started" | "calling" | "called" | "collected"
        | "reporting" | "reported" | "finishing" | "taking-over" | "taken-over"
        | "running-again" | "uploaded" | "request-reading" => (true, Some(recovered)),
        other => panic!("{other} has no expected state"),
    };
    Expected { accepted, ended }
}

/// A folder for the servers of one crash, and their settings.
struct Fixture {
    folder: PathBuf,
    policy: Policy,
}

impl Fixture {
    fn new(point: &str, policy: Policy) -> Self {
        let name = format!("crash-{}-{point}-{policy:?}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self { folder, policy }
    }

    async fn server(&self, crash_at: Option<&str>) -> Example {
        self.try_server(crash_at).await.unwrap()
    }

    /// Starts a server. The error is the output of a server that exits before it listens.
    async fn try_server(&self, crash_at: Option<&str>) -> Result<Example, String> {
        let store = format!("redb:{}", self.folder.join("operations.redb").display());
        let runs = self.runs().display().to_string();
        let results = format!("file:{}", self.folder.join("results").display());
        let interrupted = match self.policy {
            Policy::Fail => "fail",
            Policy::Rerun => "rerun:5",
        };
        let arguments = [
            "--listen",
            "127.0.0.1:0",
            "--store",
            &store,
            "--runs",
            &runs,
            "--lease",
            "0.3",
            "--on-interrupted",
            interrupted,
            "--idempotency",
            "optional",
            "--list",
            "--results",
            &results,
        ];
        let environment = crash_at.map(|point| ("TOWER_OPERATIONS_CRASH_AT", point));
        Example::start_in("server", &arguments, environment.as_slice()).await
    }

    fn runs(&self) -> PathBuf {
        self.folder.join("runs.jsonl")
    }

    /// Returns the started attempts of each operation.
    fn attempts(&self) -> Vec<(String, u64)> {
        let text = fs::read_to_string(self.runs()).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line["event"] == "begin")
            .map(|line| {
                let operation = line["operation"].as_str().unwrap().to_owned();
                (operation, line["attempt"].as_u64().unwrap())
            })
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const KEY: &str = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

/// The length in bytes above which a body is in the result store.
const THRESHOLD: usize = 256 * 1024;

/// Posts an order, which is long and has a long result if the point is one of large bodies.
async fn post(server: &Example, point: &str) -> Option<Answer> {
    let client = Client::new(server.url());
    // A report is written while the next page is rendered.
    let page_ms = if point == "reported" { 1000 } else { 20 };
    let mut order = json!({"title": "Q3", "pages": 2, "page_ms": page_ms});
    let mut padding = 0;
    if crash_points::LARGE.contains(&point) {
        padding = THRESHOLD;
        order["format"] = "pdf".into();
        order["bytes"] = (2 * THRESHOLD).into();
    }
    let order = format!("{order}{}", " ".repeat(padding));
    let request = client
        .request(Method::POST, "/reports")
        .header("idempotency-key", KEY);
    client.try_send(request, Bytes::from(order)).await
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Waits until all operations have ended, and returns each with its state or its problem.
async fn wait_until_all_ended(server: &Example) -> Vec<(String, String)> {
    let client = Client::new(server.url());
    let begun = Instant::now();
    loop {
        let list = client.get("/operations/").await.json();
        let operations = list["operations"].as_array().unwrap();
        let states = operations.iter().map(|operation| {
            let text = |member: &str| operation[member].as_str().unwrap().to_owned();
            let problem = operation["problem"]["type"].as_str().map(str::to_owned);
            (text("id"), problem.unwrap_or_else(|| text("state")))
        });
        let states: Vec<_> = states.collect();
        let is_live = |(_, state): &(String, String)| state == "pending" || state == "running";
        if !states.iter().any(is_live) {
            return states;
        }
        assert!(begun.elapsed() < PATIENCE, "{states:?} never ends");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Returns whether a recovery visits the point.
fn is_of_recovery(point: &str) -> bool {
    matches!(point, "taking-over" | "taken-over" | "running-again")
}

/// Returns whether a rerun visits the point, and the first run does not: it needs no start,
/// since the service is ready when its request is accepted.
fn is_of_rerun(point: &str) -> bool {
    matches!(
        point,
        "running-again" | "ready" | "starting" | "started" | "request-reading"
    )
}

async fn crash_at_point(point: &str, policy: Policy) {
    let fixture = Fixture::new(point, policy);
    let answer = if is_of_recovery(point) || is_of_rerun(point) {
        // Recovery needs an interrupted operation.
        let first = fixture.server(Some("calling")).await;
        let answer = post(&first, point).await;
        assert!(!first.wait().await.status.success());
        // Recovery begins at once, perhaps before the server listens.
        match fixture.try_server(Some(point)).await {
            Ok(second) => assert!(
                !second.wait().await.status.success(),
                "{point} is never visited"
            ),
            Err(errors) => assert_eq!(errors, "", "the server fails for another reason"),
        }
        // The answer races with the crash, so it is checked below.
        answer
    } else {
        let first = fixture.server(Some(point)).await;
        let answer = post(&first, point).await;
        assert!(
            !first.wait().await.status.success(),
            "{point} is never visited"
        );
        answer
    };
    let expected = expected(point, policy);
    if let (false, Some(answer)) = (expected.accepted, &answer) {
        panic!("{point}: the client was answered with {answer:?}");
    }

    let server = fixture.server(None).await;
    let ended = wait_until_all_ended(&server).await;
    match (expected.ended, &ended[..]) {
        (None, []) => {}
        (Some(state), [(_, ended)]) => assert_eq!(ended, state, "{point} {policy:?}"),
        (wanted, found) => panic!("{point} {policy:?}: {found:?} instead of {wanted:?}"),
    }
    if let Some(answer) = &answer {
        assert_eq!(id(answer), ended[0].0, "{point}: its 202 was lost");
    }

    // A client without an answer repeats its request.
    let repeated = id(&post(&server, point).await.expect("the server answers"));
    if let [(id, _)] = &ended[..] {
        assert_eq!(repeated, *id, "{point}: the key was lost");
    }
    wait_until_all_ended(&server).await;
    let attempts = fixture.attempts();
    let distinct: BTreeSet<_> = attempts.iter().collect();
    assert_eq!(
        distinct.len(),
        attempts.len(),
        "{point}: an attempt was run twice"
    );
    assert!(attempts.iter().all(|(operation, _)| *operation == repeated));
    server.signal("TERM").await;
    assert!(server.wait().await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_lose_no_operation_and_repeat_no_attempt() {
    for point in crash_points::ALL.into_iter().chain(crash_points::LARGE) {
        for policy in [Policy::Fail, Policy::Rerun] {
            // No request is stored, and no operation rerun, with the policy `fail`.
            let reruns = is_of_rerun(point) || point == "request-stored";
            if !reruns || policy == Policy::Rerun {
                crash_at_point(point, policy).await;
            }
        }
    }
}
