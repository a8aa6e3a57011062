//! A slow handler, unchanged, made asynchronous in two lines.
//!
//! Run with
//!
//! ```not_rust
//! cargo run -p quickstart
//! ```
//!
//! and try the `curl` lines that it prints.

use std::time::Duration;

use axum::{Json, Router, routing::post};
use serde::{Deserialize, Serialize};
use tower_operations::{MemoryStore, Operations};

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
    // Operations are lost when the process ends.
    let operations = Operations::new(MemoryStore::new());
    let app = Router::new()
        .route(
            "/reports",
            post(render_report).route_layer(operations.layer()),
        )
        .nest_service("/operations", operations.poll_service());

    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:3000");
    let listener = tokio::net::TcpListener::bind(address).await?;
    print_what_to_try(&format!("http://{}", listener.local_addr()?));
    axum::serve(listener, app).await
}

fn print_what_to_try(url: &str) {
    println!(
        r#"listening on {url}

Start a report of five seconds. The answer is there at once:
  curl -i {url}/reports -H 'content-type: application/json' -d '{{"title":"Q3","pages":5}}'

Then, with the Location it gave:
  curl -i {url}/operations/ID               where it stands
  curl -i '{url}/operations/ID?wait=30'     the same, once it is done
  curl -N {url}/operations/ID/events        every change, as it comes
  curl -i {url}/operations/ID/result        what the handler answered
  curl -i -X DELETE {url}/operations/ID     cancel it
"#
    );
}
