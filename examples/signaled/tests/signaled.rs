//! The example whose handler signals acceptance, run as a process.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use test_support::{
    client::Client,
    operations::{assert_problem, data_of, id_in, ids, wait_for_change},
    process::Example,
};
use tokio::time::Instant;

async fn signaled() -> (Example, Client) {
    let example = Example::start("signaled", &["127.0.0.1:0"]).await.unwrap();
    let client = Client::new(example.url());
    (example, client)
}

#[tokio::test]
async fn a_refusal_by_the_handler_creates_no_operation() {
    let (_example, client) = signaled().await;
    for order in [
        "",
        "this is no JSON",
        r#"{"title":"Q3"}"#,
        r#"{"title":"Q3","pages":0}"#,
        r#"{"title":"Q3","pages":101}"#,
    ] {
        let refused = client.post("/reports", order).await;
        assert_problem(&refused, 400, "about:blank");
        assert!(!refused.has("location"), "{order}");
    }
    assert_eq!(ids(&client.get("/operations/").await), [""; 0]);
}

#[tokio::test]
async fn an_accepted_order_reports_progress() {
    let (_example, client) = signaled().await;
    let begun = Instant::now();
    let order = r#"{"title":"Q3","pages":10}"#;
    let accepted = client.post("/reports", order).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED, "{accepted:?}");
    let location = accepted.header("location");

    // A report of ten pages takes two seconds, and reports progress meanwhile.
    let mut observed = Vec::new();
    let mut answer = client.get(location).await;
    while answer.json()["state"] != "succeeded" {
        let operation = answer.json();
        assert_ne!(operation["state"], "failed", "{operation}");
        observed.extend(operation["progress"]["completed"].as_u64());
        answer = wait_for_change(&client, location, &answer).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert!(observed.len() > 1 && observed.is_sorted(), "{observed:?}");
    let last = json!({ "percent": 100.0, "completed": 10, "total": 10, "unit": "pages" });
    assert_eq!(answer.json()["progress"], last);

    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.status(), StatusCode::OK);
    assert_eq!(result.body(), order);
    let operations = ids(&client.get("/operations/").await);
    assert_eq!(operations, [id_in(location)]);
}

#[tokio::test]
async fn progress_is_streamed_as_events() {
    let (_example, client) = signaled().await;
    let order = r#"{"title":"Q3","pages":3}"#;
    let location = client.post_accepted("/reports", order).await;
    let events = client.get(&format!("{location}/events")).await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    let data = data_of(&events);
    let states: Vec<_> = data.iter().map(|event| &event["state"]).collect();
    assert_eq!(states.last(), Some(&&json!("succeeded")), "{data:?}");
    let completed: Vec<_> = data
        .iter()
        .filter_map(|event| event["progress"]["completed"].as_u64())
        .collect();
    assert!(completed.is_sorted(), "{completed:?}");
    assert_eq!(completed.last(), Some(&3));
}

#[tokio::test]
async fn a_refusal_by_an_outer_layer_creates_no_operation() {
    let (_example, client) = signaled().await;
    for path in ["/exports", "/exports?format=docx", "/exports?size=1"] {
        let refused = client.post(path, "").await;
        assert_problem(&refused, 400, "about:blank");
    }
    assert_eq!(ids(&client.get("/operations/").await), [""; 0]);

    let location = client.post_accepted("/exports?format=csv", "").await;
    assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.body(), "everything as csv\n");
    assert_eq!(ids(&client.get("/operations/").await), [id_in(&location)]);
}

#[tokio::test]
async fn sigterm_lets_accepted_requests_end() {
    let (example, client) = signaled().await;
    let order = r#"{"title":"Q3","pages":10}"#;
    let accepted = client.post("/reports", order).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED, "{accepted:?}");
    let begun = Instant::now();

    example.signal("TERM").await;
    let refused = loop {
        let answer = client.post("/exports?format=csv", "").await;
        if answer.status() != StatusCode::ACCEPTED {
            break answer;
        }
    };
    assert_problem(&refused, 503, "urn:tower-operations:shutting-down");
    let poll = client.get(accepted.header("location")).await;
    assert_eq!(poll.json()["state"], "running");

    let exit = example.wait().await;
    assert!(exit.status.success(), "{exit:?}");
    // The report takes two seconds.
    assert!(begun.elapsed() > Duration::from_millis(1500));
}
