//! A server that dies at each named point in the life of an operation, and what is
//! left then: a process on a file, killed from within, and started again.
//!
//! | it dies | its client has | with `fail` it ends as | with `rerun` it ends as |
//! | --- | --- | --- | --- |
//! | before it is created | no answer | is not there | is not there |
//! | created, before the 202 | no answer | interrupted | succeeded |
//! | from the 202 to before the outcome is recorded | a 202 | interrupted | succeeded |
//! | after that | a 202 | succeeded | succeeded |
//! | taking it over, or setting it going again | a 202 | interrupted | succeeded |
//!
//! In each case the same request with the same key afterwards is answered with a 202
//! and, where there was an operation, with that one.

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

/// What is to be true once a server has been started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    /// Whether the client may have had its 202: the answer goes out in another task.
    accepted: bool,
    /// How the operation ended; `None`: there is none.
    ended: Option<&'static str>,
}

fn verdict(point: &str, policy: Policy) -> Verdict {
    let recovered = match policy {
        Policy::Fail => "urn:tower-operations:interrupted",
        Policy::Rerun => "succeeded",
    };
    let (accepted, ended) = match point {
        "creating" => (false, None),
        "created" => (false, Some(recovered)),
        "finished" => (true, Some("succeeded")),
        "accepted" | "ready" | "starting" | "started" | "calling" | "called" | "collected"
        | "reporting" | "reported" | "finishing" | "taking-over" | "taken-over"
        | "running-again" => (true, Some(recovered)),
        other => panic!("{other} has no verdict"),
    };
    Verdict { accepted, ended }
}

/// A folder for one life, and how its servers are started.
struct Life {
    folder: PathBuf,
    policy: Policy,
}

impl Life {
    fn new(point: &str, policy: Policy) -> Self {
        let name = format!("crash-{}-{point}-{policy:?}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self { folder, policy }
    }

    async fn server(&self, crash_at: Option<&str>) -> Example {
        self.begin(crash_at).await.unwrap()
    }

    /// The same; an error if it dies before it says where it listens.
    async fn begin(&self, crash_at: Option<&str>) -> Result<Example, String> {
        let store = format!("redb:{}", self.folder.join("operations.redb").display());
        let runs = self.runs().display().to_string();
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
        ];
        let environment = crash_at.map(|point| ("TOWER_OPERATIONS_CRASH_AT", point));
        Example::start_in("server", &arguments, environment.as_slice()).await
    }

    fn runs(&self) -> PathBuf {
        self.folder.join("runs.jsonl")
    }

    /// The attempts that were begun of each operation.
    fn begun(&self) -> Vec<(String, u64)> {
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

impl Drop for Life {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const KEY: &str = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

async fn post(server: &Example) -> Option<Answer> {
    let client = Client::new(server.url());
    let order = json!({"title": "Q3", "pages": 2, "page_ms": 20});
    let request = client
        .request(Method::POST, "/reports")
        .header("idempotency-key", KEY);
    client
        .try_send(request, Bytes::from(order.to_string()))
        .await
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Every operation there is, once all have ended, with its state or its problem.
async fn all_ended(server: &Example) -> Vec<(String, String)> {
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

async fn dies_at(point: &str, policy: Policy) {
    let life = Life::new(point, policy);
    let is_of_recovery = matches!(point, "taking-over" | "taken-over" | "running-again");
    let answer = if is_of_recovery {
        // There has to be something to recover.
        let first = life.server(Some("calling")).await;
        let answer = post(&first).await;
        assert!(!first.wait().await.status.success());
        // Recovery looks at once, perhaps before the server listens.
        match life.begin(Some(point)).await {
            Ok(second) => assert!(
                !second.wait().await.status.success(),
                "{point} is never visited"
            ),
            Err(said) => assert_eq!(said, "", "it dies of something else"),
        }
        // Whether the answer was out before it died is a race; it is told below.
        answer
    } else {
        let first = life.server(Some(point)).await;
        let answer = post(&first).await;
        assert!(
            !first.wait().await.status.success(),
            "{point} is never visited"
        );
        answer
    };
    let verdict = verdict(point, policy);
    if let (false, Some(answer)) = (verdict.accepted, &answer) {
        panic!("{point}: the client was answered with {answer:?}");
    }

    let server = life.server(None).await;
    let ended = all_ended(&server).await;
    match (verdict.ended, &ended[..]) {
        (None, []) => {}
        (Some(state), [(_, ended)]) => assert_eq!(ended, state, "{point} {policy:?}"),
        (expected, found) => panic!("{point} {policy:?}: {found:?} instead of {expected:?}"),
    }
    if let Some(answer) = &answer {
        assert_eq!(id(answer), ended[0].0, "{point}: its 202 was lost");
    }

    // Who was not answered, or does not know it, asks again.
    let again = id(&post(&server).await.expect("it is alive"));
    if let [(id, _)] = &ended[..] {
        assert_eq!(again, *id, "{point}: the key was lost");
    }
    all_ended(&server).await;
    let begun = life.begun();
    let once: BTreeSet<_> = begun.iter().collect();
    assert_eq!(once.len(), begun.len(), "{point}: an attempt was run twice");
    assert!(begun.iter().all(|(operation, _)| *operation == again));
    server.signal("TERM").await;
    assert!(server.wait().await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_point_nothing_is_lost_and_nothing_ends_twice() {
    for point in crash_points::ALL {
        for policy in [Policy::Fail, Policy::Rerun] {
            // Nothing is set going again where everything fails.
            if (point, policy) != ("running-again", Policy::Fail) {
                dies_at(point, policy).await;
            }
        }
    }
}
