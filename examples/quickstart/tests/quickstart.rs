//! The quickstart, run as a process and called over a socket.

use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};
use test_support::{client::Client, process::Example};

#[test]
fn the_quickstart_has_less_than_80_lines() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs");
    let lines = std::fs::read_to_string(file).unwrap().lines().count();
    assert!(lines < 80, "{lines}");
}

#[test]
fn the_readme_shows_the_quickstart() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file| std::fs::read_to_string(root.join(file)).unwrap();
    let (readme, example) = (read("README.md"), read("examples/quickstart/src/main.rs"));
    let shown = readme
        .split("```rust,no_run\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let mut lines = example.lines();
    for line in shown.lines() {
        assert!(
            lines.any(|own| own == line),
            "not in the example, or not in this order: {line}"
        );
    }
}

#[tokio::test]
async fn the_printed_requests_work() {
    let example = Example::start("quickstart", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());

    let location = client
        .post_accepted("/reports", r#"{"title":"Q3","pages":1}"#)
        .await;
    let operation = client.get(&location).await;
    assert_eq!(operation.status(), StatusCode::OK);
    assert_eq!(operation.json()["result"], Value::Null);
    let ended = client.wait_for_end(&location).await;
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["result"], json!({ "title": "Q3", "pages": 1 }));
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.status(), StatusCode::OK);
    assert_eq!(result.body(), r#"{"title":"Q3","pages":1}"#);

    let location = client
        .post_accepted("/reports", r#"{"title":"Q3","pages":500}"#)
        .await;
    assert_eq!(client.delete(&location).await.json()["state"], "canceled");
}
