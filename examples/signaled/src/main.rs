//! Validation before acceptance, in two forms: an invalid request is answered with a 400,
//! and no operation is created for it.
//!
//! * Reports: the *handler* checks the order, then accepts it.
//! * Exports: a *layer outside* checks the request. Refused requests never reach the
//!   accepting layer, and the handler needs no change.
//!
//! Run with
//!
//! ```not_rust
//! cargo run -p signaled -- 127.0.0.1:3000
//! ```
//!
//! (the address may be left out) and try
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d 'this is no JSON'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","pages":0}'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","pages":10}'
//! curl -i 127.0.0.1:3000/exports?format=docx -d ''
//! curl -i 127.0.0.1:3000/exports?format=csv -d ''
//! curl -i 127.0.0.1:3000/operations/ID                its progress
//! curl -N 127.0.0.1:3000/operations/ID/events         the same, as it happens
//! curl -i 127.0.0.1:3000/operations/ID/result         what the handler answered
//! curl -i 127.0.0.1:3000/operations/                  all of them
//! ```
//!
//! SIGTERM or Ctrl-C drains: new requests get a 503, and the process ends once every accepted
//! request has ended.

use std::{fmt::Display, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, Request, rejection::QueryRejection},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{Extensions, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, time::sleep};
use tower_operations::{
    MemoryStore, OperationHandle, Operations, Problem, Progress, dialect::ApiError,
};

#[derive(Deserialize, Serialize)]
struct Report {
    title: String,
    pages: u32,
}

/// The longest report, in pages.
const MAX_PAGES: u32 = 100;
const PER_PAGE: Duration = Duration::from_millis(200);
/// The time that accepted requests have to end after SIGTERM or Ctrl-C. Polls are answered
/// until then.
const DRAIN: Duration = Duration::from_secs(25);

/// A slow handler. An answer before the call of `accept` goes to the client as it is; an
/// answer after the call is the result of the operation.
async fn render_report(extensions: Extensions, body: Bytes) -> Response {
    let report: Report = match serde_json::from_slice(&body) {
        Ok(report) => report,
        Err(error) => return bad_request("The report cannot be read", error),
    };
    if !(1..=MAX_PAGES).contains(&report.pages) {
        let detail = format!("a report has 1 to {MAX_PAGES} pages");
        return bad_request("Not a number of pages", detail);
    }

    // When `accept` returns, the operation exists, the client has its 202, and the handler
    // runs on even if the client disconnects.
    let operation = OperationHandle::from_extensions(&extensions);
    if operation.accept().await.is_err() {
        let retry_after = Duration::from_secs(1);
        let refused = ApiError::Unavailable { retry_after };
        return refused.into_response().map(Body::new);
    }

    for page in 1..=report.pages {
        sleep(PER_PAGE).await;
        operation
            .progress(Progress::from_count(page.into(), report.pages.into()).with_unit("pages"));
    }
    Json(report).into_response()
}

#[derive(Deserialize)]
struct ExportQuery {
    format: String,
}

/// A slow handler, unchanged.
async fn export(Query(query): Query<ExportQuery>) -> String {
    sleep(PER_PAGE).await;
    format!("everything as {}\n", query.format)
}

/// Checks the format outside of the handlers, so that many routes can share the check.
async fn only_known_formats(
    query: Result<Query<ExportQuery>, QueryRejection>,
    request: Request,
    next: Next,
) -> Response {
    match query {
        Ok(Query(ExportQuery { format })) if ["csv", "pdf"].contains(&&*format) => {
            next.run(request).await
        }
        _ => bad_request("Unknown format", "format is csv or pdf"),
    }
}

fn bad_request(title: &str, detail: impl Display) -> Response {
    let problem = Problem::new(StatusCode::BAD_REQUEST)
        .with_title(title)
        .with_detail(detail.to_string());
    problem.into_response().map(Body::new)
}

fn app(operations: &Operations<MemoryStore>) -> Router {
    Router::new()
        .route(
            "/reports",
            post(render_report).route_layer(operations.layer().when_signaled()),
        )
        .route(
            "/exports",
            post(export)
                .route_layer(operations.layer())
                // Added after the accepting layer, so it is outside of it.
                .route_layer(from_fn(only_known_formats)),
        )
        // Operations have no owners here, so every client may list, poll and cancel all of them.
        .nest_service("/operations", operations.poll_service().listing())
}

/// Returns a future that waits for SIGTERM or Ctrl-C.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
}

/// Returns a future that waits for Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // Operations are lost when the process ends.
    let operations = Operations::new(MemoryStore::new());
    let app = app(&operations);
    axum::serve(listener, app)
        .with_graceful_shutdown(operations.drain_on(stop_signal()?, DRAIN))
        .await
}
