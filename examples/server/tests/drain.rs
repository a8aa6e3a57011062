//! Answers to clients of a draining server, over sockets.

use std::time::Duration;

use http::{Method, StatusCode};
use test_support::{
    client::{Answer, Client},
    process::Example,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

const HANG: &str = r#"{"title":"Q3","outcome":"hang"}"#;

/// An order that takes four seconds.
const SLOW: &str = r#"{"title":"Q3","pages":4,"page_ms":1000}"#;

async fn server(arguments: &[&str]) -> (Example, Client) {
    let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
    let example = Example::start("server", &arguments).await.unwrap();
    let client = Client::new(example.url());
    (example, client)
}

/// Posts a report, and waits until the server has received the request.
async fn post(client: &Client, prefer: &str, order: &'static str) -> JoinHandle<Answer> {
    let request = client.request(Method::POST, "/reports");
    let request = request.header("prefer", prefer.to_owned());
    let client = client.clone();
    let answer = tokio::spawn(async move { client.send(request, order.into()).await });
    sleep(Duration::from_millis(500)).await;
    answer
}

fn assert_refused(answer: &Answer) {
    assert_eq!(
        answer.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "{answer:?}"
    );
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:tower-operations:shutting-down");
}

#[tokio::test]
async fn a_held_call_is_refused_at_the_deadline_and_reported() {
    for (accept, prefer) in [
        ("always", "wait=20"),
        ("preferred", "respond-async, wait=20"),
        ("after:20", "handling=strict"),
        ("preferred", "handling=strict"),
    ] {
        let (example, client) = server(&["--accept", accept, "--drain", "2"]).await;
        let answer = post(&client, prefer, HANG).await;
        let begun = Instant::now();
        example.signal("TERM").await;
        assert_refused(&answer.await.unwrap());
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_secs(2),
            "{accept} {prefer}: {took:?}"
        );
        let ended = example.wait().await;
        assert_eq!(ended.status.code(), Some(0));
        let lines: Vec<_> = ended.output.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].ends_with(": 0 finished, 0 interrupted, 0 unrecorded"),
            "{lines:?}"
        );
        assert_eq!(lines[1], "requests: 0 answered, 1 refused, 0 unanswered");
    }
}

#[tokio::test]
async fn a_directly_answered_request_finishes_within_the_drain() {
    for (accept, prefer) in [
        ("preferred", "handling=strict"),
        ("preferred", "respond-async, wait=20"),
        ("after:20", "handling=strict"),
        ("always", "wait=20"),
    ] {
        let (example, client) = server(&["--accept", accept, "--drain", "10"]).await;
        let answer = post(&client, prefer, SLOW).await;
        example.signal("TERM").await;
        let answer = answer.await.unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::OK,
            "{accept} {prefer}: {answer:?}"
        );
        assert_eq!(answer.json()["pages"], 4);
        let ended = example.wait().await;
        assert_eq!(ended.status.code(), Some(0));
        let report = "requests: 1 answered, 0 refused, 0 unanswered";
        assert_eq!(
            ended.output.lines().nth(1),
            Some(report),
            "{accept} {prefer}"
        );
    }
}
