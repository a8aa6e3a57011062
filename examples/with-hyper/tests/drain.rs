//! What clients of a server see that is told to go, over sockets.

use std::time::Duration;

use http::{Method, StatusCode};
use test_support::{client::Client, process::Example};
use tokio::time::sleep;

#[tokio::test]
async fn what_is_told_of_the_end_on_a_server_without_a_framework_is_answered_too() {
    let example = Example::start("with-hyper", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());
    // A second, held.
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
    let ended = example.ended().await;
    assert_eq!(ended.status.code(), Some(0));
    assert!(
        ended.output.ends_with("0 finished, 0 interrupted\n"),
        "{}",
        ended.output
    );
}
