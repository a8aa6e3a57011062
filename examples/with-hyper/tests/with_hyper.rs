//! The example on hyper alone, run as a process.

use http::StatusCode;
use serde_json::json;
use test_support::{
    client::Client,
    operations::{assert_problem, progress_of, wait_until_running},
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
