//! The example on hyper alone, run as a process.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use test_support::{
    client::{Answer, Client},
    process::{Example, Exit},
};

#[tokio::test]
async fn hyper_counts_words_over_http1_and_http2() {
    let example = Example::start("with-hyper", &["127.0.0.1:0"])
        .await
        .unwrap();
    for client in [Client::new(example.url()), Client::http2(example.url())] {
        let location = client.post_accepted("/words", "three slow words").await;
        let progress = progress_of(&client, &location).await;
        let counted = json!({ "percent": 100.0, "completed": 3, "total": 3, "unit": "words" });
        assert_eq!(progress.last(), Some(&counted));
        assert!(progress.len() > 1, "{progress:?}");
        let result = client.get(&format!("{location}/result")).await;
        assert_eq!(result.status(), StatusCode::OK);
        assert_eq!(result.body(), "3\n");

        let location = client.post_accepted("/words", "word ".repeat(1000)).await;
        assert_eq!(client.delete(&location).await.json()["state"], "canceled");

        let refused = client.get("/words").await;
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.header("allow"), "POST");
        assert_eq!(
            client.post("/nope", "words").await.status(),
            StatusCode::NOT_FOUND
        );
        assert_eq!(
            client.get("/operationsx").await.status(),
            StatusCode::NOT_FOUND
        );
        assert_problem(
            &client.get("/operations").await,
            400,
            "urn:tower-operations:missing-id",
        );
    }
}

#[tokio::test]
async fn running_operations_finish_during_a_drain() {
    let example = Example::start("with-hyper", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());
    let location = client.post_accepted("/words", "one two three four").await;
    wait_until_running(&client, &location).await;
    example.signal("INT").await;
    let Exit { status, output, .. } = example.wait().await;
    assert!(status.success(), "{status}");
    assert_eq!(output, "1 finished, 0 interrupted\n");
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(answer.status().as_u16(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{problem}");
    let problem_type = problem.get("type").and_then(Value::as_str);
    assert_eq!(problem_type.unwrap_or("about:blank"), kind, "{problem}");
}

/// Returns each progress that was observed until the operation ended.
async fn progress_of(client: &Client, location: &str) -> Vec<Value> {
    let mut observed = Vec::new();
    let mut answer = client.get(location).await;
    loop {
        let operation = answer.json();
        if let Some(progress) = operation.get("progress")
            && observed.last() != Some(progress)
        {
            observed.push(progress.clone());
        }
        if !matches!(operation["state"].as_str(), Some("pending" | "running")) {
            return observed;
        }
        answer = wait_for_change(client, location, &answer).await;
    }
}

async fn wait_until_running(client: &Client, location: &str) {
    let mut answer = client.get(location).await;
    while answer.json()["state"] == "pending" {
        answer = wait_for_change(client, location, &answer).await;
    }
    assert_eq!(answer.json()["state"], "running");
}

/// Waits until the operation has changed.
async fn wait_for_change(client: &Client, location: &str, previous: &Answer) -> Answer {
    let request = client
        .request(Method::GET, location)
        .header("prefer", "wait=30")
        .header("if-none-match", previous.header("etag"));
    let answer = client.send(request, "".into()).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    answer
}
