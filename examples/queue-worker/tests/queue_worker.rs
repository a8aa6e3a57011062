//! The worker with its own queue, run as a process.

use http::StatusCode;
use serde_json::json;
use test_support::{
    client::Client,
    operations::{assert_problem, wait_until_running},
    process::Example,
};

#[tokio::test]
async fn a_custom_queue_worker_keeps_the_contract() {
    let example = Example::start("queue-worker", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());

    let accepted = client.post("/factors", r#"{"number":360}"#).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(accepted.header("retry-after"), "1");
    let location = accepted.header("location");
    let id = location.strip_prefix("/status?job=").unwrap();
    assert_eq!(
        accepted.json(),
        json!({ "id": id, "state": "pending", "location": location })
    );
    let ended = client.wait_for_end(location).await;
    assert_eq!(ended["state"], "succeeded");
    let factors = json!({ "number": 360, "factors": [2, 2, 2, 3, 3, 5] });
    assert_eq!(ended["result"], factors);
    assert_eq!(ended["progress"]["message"], "1 is left");
    let result = ended["links"]["result"].as_str().unwrap();
    assert_eq!(result, format!("/status/result?job={id}"));
    let result = client.get(result).await;
    assert_eq!(result.status(), StatusCode::OK);
    assert_eq!(result.json(), factors);

    let location = client.post_accepted("/factors", r#"{"number":0}"#).await;
    let ended = client.wait_for_end(&location).await;
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["problem"]["detail"], "zero is no product of primes");
}

#[tokio::test]
async fn a_queue_worker_drops_canceled_operations() {
    let example = Example::start("queue-worker", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());
    let running = client.post_accepted("/factors", r#"{"number":2147483648}"#);
    let running = running.await;
    let queued = client.post_accepted("/factors", r#"{"number":2}"#).await;
    let last = client.post_accepted("/factors", r#"{"number":3}"#).await;
    wait_until_running(&client, &running).await;
    assert_eq!(client.get(&queued).await.json()["state"], "pending");
    assert_eq!(client.delete(&queued).await.json()["state"], "canceled");
    assert_eq!(client.delete(&running).await.json()["state"], "canceled");

    assert_eq!(
        client.wait_for_end(&last).await["result"]["factors"],
        json!([3])
    );
    for location in [running, queued] {
        assert_eq!(client.get(&location).await.json()["state"], "canceled");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_requests() {
    let example = Example::start("queue-worker", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());
    let mut refused = None;
    // One request runs, and three are queued.
    for _ in 0..10 {
        let answer = client.post("/factors", r#"{"number":2147483648}"#).await;
        if answer.status() != StatusCode::ACCEPTED {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the queue is full");
    assert_problem(&refused, 503, "about:blank");
    assert_eq!(refused.header("retry-after"), "5");
}

#[tokio::test]
async fn a_queue_worker_writes_its_own_errors() {
    let example = Example::start("queue-worker", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());
    for (path, status, code) in [
        ("/status", StatusCode::BAD_REQUEST, "missing-id"),
        ("/status?job=", StatusCode::BAD_REQUEST, "missing-id"),
        ("/status?job=a%2Fb", StatusCode::BAD_REQUEST, "invalid-id"),
        ("/status?job=nobodys", StatusCode::NOT_FOUND, "not-found"),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.json()["error"], code, "{path}");
    }
}
