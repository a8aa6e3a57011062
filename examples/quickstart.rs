//! A slow handler, unchanged, made asynchronous in two lines.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --example quickstart
//! ```
//!
//! and try the `curl` lines that it prints.

use std::time::Duration;

use axum::{Json, Router, routing::post};
use serde::{Deserialize, Serialize};
use tower_operations::{AsyncAcceptLayer, MemoryStore, PollService};

#[derive(Deserialize, Serialize)]
struct Report {
    title: String,
    pages: u32,
}

/// Slow, and knows nothing of operations.
async fn render_report(Json(report): Json<Report>) -> Json<Report> {
    tokio::time::sleep(Duration::from_secs(1) * report.pages).await;
    Json(report)
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let store = MemoryStore::new(); // gone with the process
    let app = Router::new()
        .route(
            "/reports",
            post(render_report).route_layer(AsyncAcceptLayer::new(store.clone())),
        )
        .nest_service("/operations", PollService::new(store));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!(
        r#"listening on http://127.0.0.1:3000

Start a report of five seconds. The answer is there at once:
  curl -i http://127.0.0.1:3000/reports -H 'content-type: application/json' -d '{{"title":"Q3","pages":5}}'

Then, with the Location it gave:
  curl -i http://127.0.0.1:3000/operations/ID               where it stands
  curl -i http://127.0.0.1:3000/operations/ID?wait=30       the same, once it is done
  curl -i http://127.0.0.1:3000/operations/ID/result        what the handler answered
  curl -i -X DELETE http://127.0.0.1:3000/operations/ID     cancel it
"#
    );
    axum::serve(listener, app).await
}
