//! Operations as clients see them over the wire of the default dialect.

use http::{Method, StatusCode};
use serde_json::Value;

use crate::client::{Answer, Client};

/// Asserts that the answer is a problem of this status and type.
#[track_caller]
pub fn assert_problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(answer.status().as_u16(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{problem}");
    let problem_type = problem.get("type").and_then(Value::as_str);
    assert_eq!(problem_type.unwrap_or("about:blank"), kind, "{problem}");
}

/// Waits until the operation has changed.
pub async fn wait_for_change(client: &Client, location: &str, previous: &Answer) -> Answer {
    let request = client
        .request(Method::GET, location)
        .header("prefer", "wait=30")
        .header("if-none-match", previous.header("etag"));
    let answer = client.send(request, "".into()).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    answer
}

/// Waits until the operation is running.
pub async fn wait_until_running(client: &Client, location: &str) {
    let mut answer = client.get(location).await;
    while answer.json()["state"] == "pending" {
        answer = wait_for_change(client, location, &answer).await;
    }
    assert_eq!(answer.json()["state"], "running");
}

/// Returns each progress that was observed until the operation ended.
pub async fn progress_of(client: &Client, location: &str) -> Vec<Value> {
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

/// Returns the ids of the operations on a page.
#[track_caller]
pub fn ids(page: &Answer) -> Vec<String> {
    assert_eq!(page.status(), StatusCode::OK, "{page:?}");
    let page = page.json();
    let operations = page["operations"].as_array().unwrap().iter();
    operations
        .map(|operation| operation["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns the id in the path of an operation.
pub fn id_in(location: &str) -> &str {
    location.strip_prefix("/operations/").unwrap()
}

/// Returns the data of the events of an ended stream.
pub fn data_of(events: &Answer) -> Vec<Value> {
    let text = std::str::from_utf8(events.body()).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}
