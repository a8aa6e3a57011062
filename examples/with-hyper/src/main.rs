//! No framework: a hyper server for HTTP/1.1 and HTTP/2, the layer around a `service_fn`,
//! and the poll service beside it.
//!
//! Run with
//!
//! ```not_rust
//! cargo run -p with-hyper -- 127.0.0.1:3000
//! ```
//!
//! (the address may be left out) and try
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/words -d 'one half of a second for each of the words'
//! curl -i 127.0.0.1:3000/operations/ID
//! curl -i '127.0.0.1:3000/operations/ID?wait=30'
//! curl -i 127.0.0.1:3000/operations/ID/result
//! curl -i 127.0.0.1:3000/operations/ID -X DELETE
//! curl -i 127.0.0.1:3000/words -d 'over HTTP/2' --http2-prior-knowledge
//! ```
//!
//! Ctrl-C lets running operations finish, for at most ten seconds, and refuses requests
//! that have no answer by then.

use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header::ALLOW};
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, MemoryStore, OperationHandle, Operations, Problem, Progress, RequestBody,
    poll::PollBody,
};

/// The time for running operations once the shutdown begins.
const DRAIN: Duration = Duration::from_secs(10);
/// The shortest time for the last answers after that.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Counts words slowly, in half a second each. The progress reports through the handle are
/// optional.
async fn count_words(
    request: Request<RequestBody<Incoming>>,
) -> Result<Response<BufferedBody>, hyper::Error> {
    let operation = OperationHandle::from_extensions(request.extensions());
    let text = request.into_body().collect().await?.to_bytes();
    let words = text.split(u8::is_ascii_whitespace);
    let words = words.filter(|word| !word.is_empty()).count() as u64;
    for word in 1..=words {
        tokio::time::sleep(Duration::from_millis(500)).await;
        operation.progress(Progress::from_count(word, words).with_unit("words"));
    }
    Ok(Response::new(BufferedBody::from(format!("{words}\n"))))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = std::env::args().nth(1);
    let operations = Operations::new(MemoryStore::new()); // operations are lost when the process ends
    let words = operations.layer().layer(service_fn(count_words));
    let polls = operations.poll_service().mounted_at("/operations");

    let app = service_fn(move |request: Request<Incoming>| {
        let (words, polls) = (words.clone(), polls.clone());
        async move {
            let response = match (request.method(), request.uri().path()) {
                (&Method::POST, "/words") => {
                    let response = words.oneshot(request).await?;
                    return Ok(response.map(Either::Left));
                }
                (_, path) if path == "/operations" || path.starts_with("/operations/") => {
                    let Ok(response) = polls.oneshot(request).await;
                    return Ok(response.map(Either::Right));
                }
                (_, "/words") => {
                    let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED).into_response();
                    let allow = HeaderValue::from_static("POST");
                    response.headers_mut().insert(ALLOW, allow);
                    response
                }
                _ => Problem::new(StatusCode::NOT_FOUND).into_response(),
            };
            Ok::<_, hyper::Error>(response.map(PollBody::from).map(Either::Right))
        }
    });

    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);

    // Requests are answered until all accepted operations have ended.
    let mut drained = std::pin::pin!(async {
        tokio::signal::ctrl_c().await?;
        Ok::<_, std::io::Error>(operations.drain(DRAIN).await)
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    // Without a timer a connection may take for ever to send the head of a request.
    server.http1().timer(TokioTimer::new());
    server.http2().timer(TokioTimer::new());
    let connections = GracefulShutdown::new();
    let report = loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that is already gone is no reason to stop.
                let Ok((stream, _)) = accepted else {
                    // Out of file descriptors, for example: an immediate retry would not
                    // help.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let app = TowerToHyperService::new(app.clone());
                let connection = server.serve_connection(TokioIo::new(stream), app).into_owned();
                tokio::spawn(connections.watch(connection));
            }
            report = &mut drained => break report?,
        }
    };
    let left = DRAIN.saturating_sub(report.took).max(LAST_ANSWERS);
    let _ = tokio::time::timeout(left, connections.shutdown()).await;
    let (finished, interrupted) = (report.finished, report.interrupted.len());
    println!("{finished} finished, {interrupted} interrupted");
    Ok(())
}
