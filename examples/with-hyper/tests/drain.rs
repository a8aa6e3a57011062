//! Answers to clients of a draining server, over sockets.

use std::time::Duration;

use http::{Method, StatusCode};
use test_support::{client::Client, process::Example};
use tokio::time::sleep;

#[tokio::test]
async fn held_requests_are_answered_during_a_drain() {
    let example = Example::start("with-hyper", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());
    // A held request that takes one second.
    let request = client
        .request(Method::POST, "/words")
        .header("prefer", "wait=20");
    let held = {
        let client = client.clone();
        tokio::spawn(async move { client.send(request, "two words".into()).await })
    };
    sleep(Duration::from_millis(300)).await;
    example.signal("INT").await;
    let held = held.await.unwrap();
    assert_eq!(
        (held.status(), &held.body()[..]),
        (StatusCode::OK, &b"2\n"[..])
    );
    let ended = example.wait().await;
    assert_eq!(ended.status.code(), Some(0));
    assert!(
        ended.output.ends_with("0 finished, 0 interrupted\n"),
        "{}",
        ended.output
    );
}
