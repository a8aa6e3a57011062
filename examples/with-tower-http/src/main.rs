//! The usual layers of tower-http around an accepting application: the right order, and
//! the reasons for it beside each layer. The application is at the end of this file.
//!
//! Two facts decide. A layer sees the answers of the layers inside of it, so the
//! request's id and CORS are outside of all layers that may refuse. A layer outside of
//! the accepting layer sees only the 202: it cannot limit, catch or compress the run.
//!
//! Run with
//!
//! ```not_rust
//! cargo run -p with-tower-http -- 127.0.0.1:3000
//! ```
//!
//! (the address may be left out) and try
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","millis":5000}'
//! curl -i 127.0.0.1:3000/direct -d '{"title":"Q3","millis":5000}'       504
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","panics":true}'
//! curl -i 127.0.0.1:3000/direct -d '{"title":"Q3","panics":true}'       500
//! curl -i 127.0.0.1:3000/archives -d '{"title":"Q3"}' --compressed
//! curl -i 127.0.0.1:3000/operations/ID/result --compressed
//! curl -i 127.0.0.1:3000/reports -X OPTIONS -H 'origin: https://app.example.com' \
//!     -H 'access-control-request-method: POST' -H 'access-control-request-headers: prefer'
//! ```
//!
//! `/direct` is the same handler without the accepting layer, to compare.

use std::{io, time::Duration};

use axum::{
    Json, Router,
    response::{AppendHeaders, IntoResponse},
    routing::post,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{
        ACCEPT_RANGES, AUTHORIZATION, CONTENT_TYPE, COOKIE, ETAG, IF_MATCH, IF_NONE_MATCH, LINK,
        LOCATION, RETRY_AFTER, SET_COOKIE,
    },
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, time::sleep};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    cors::{AllowOrigin, CorsLayer},
    limit::RequestBodyLimitLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer},
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tower_operations::{Idempotency, MemoryStore, Operations};
use tracing::{Level, Span, field::Empty, info_span};

const TIMEOUT: Duration = Duration::from_secs(3);
/// Less than the time-out, for polls and for `Prefer: wait`: a held answer counts as
/// waiting, and a call that the time-out cuts before it is accepted is dropped.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The largest body of an accepted request, in bytes.
const ACCEPTED_BODY: u64 = 256 * 1024;
/// The largest body of any request, in bytes.
const ANY_BODY: usize = 1024 * 1024;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static PREFER: HeaderName = HeaderName::from_static("prefer");
static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
static OPERATION_RESULT: HeaderName = HeaderName::from_static("operation-result");

#[derive(Deserialize)]
struct Order {
    title: String,
    #[serde(default)]
    millis: u64,
    #[serde(default)]
    panics: bool,
}

#[derive(Serialize)]
struct Report {
    title: String,
    request_id: String,
}

/// A slow handler. An accepted request keeps its headers in the background, but not its
/// span, so the log still has the id of the request.
async fn render(
    headers: HeaderMap,
    body: String,
) -> Result<impl IntoResponse, (StatusCode, String)> {
    let order: Order = serde_json::from_str(&body)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let request_id = headers.get(&X_REQUEST_ID).map(HeaderValue::to_str);
    let request_id = request_id.and_then(Result::ok).unwrap_or_default();
    sleep(Duration::from_millis(order.millis)).await;
    assert!(!order.panics, "a panic was ordered");
    tracing::info!(request_id, "rendered");
    let cookie = AppendHeaders([(SET_COOKIE, format!("last={}", order.title))]);
    let report = Report {
        title: order.title,
        request_id: request_id.into(),
    };
    Ok((cookie, Json(report)))
}

/// Creates the span of a request, which ends with the 202. The run has a span of its own.
fn span_of<B>(request: &Request<B>) -> Span {
    let request_id = request.headers().get(&X_REQUEST_ID);
    info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        request_id = request_id.and_then(|id| id.to_str().ok()),
        headers = ?request.headers(),
        // The operation of the 202.
        operation.id = Empty,
    )
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list([HeaderValue::from_static(
            "https://app.example.com",
        )]))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // The fields that a script may send.
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            IF_MATCH,
            IF_NONE_MATCH,
            PREFER.clone(),
            IDEMPOTENCY_KEY.clone(),
            // Sent by an event stream that reconnects.
            LAST_EVENT_ID.clone(),
        ])
        // The fields that a script may read. A script needs `Location` to find its operation,
        // and `Link` to find the next page of a list.
        .expose_headers([
            LOCATION,
            LINK,
            RETRY_AFTER,
            ETAG,
            OPERATION_RESULT.clone(),
            PREFERENCE_APPLIED.clone(),
            X_REQUEST_ID.clone(),
        ])
}

fn app() -> Router {
    // Operations are lost when the process ends.
    // The time-out limits the run. An outer time-out limits only the time until the 202.
    let operations = Operations::new(MemoryStore::new())
        .running_timeout(Duration::from_secs(60))
        // Results are compressed on their way, so their tags, digests and ranges would not be
        // those of the bytes that clients get.
        .map_replay(|_, fields| {
            fields.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
        });
    let accept = operations
        .layer()
        // Below the limit of the outer layer by more than the 64 KiB that the accepting
        // layer reads in excess, so that the accepting layer answers, with a problem.
        .body_limit(ACCEPTED_BODY)
        .max_wait(LONGEST_WAIT)
        // Honors the field that scripts may send.
        .idempotency(Idempotency::optional().max_wait(LONGEST_WAIT));
    // Operations have no owners here, so every client may list, poll and cancel all of them.
    let polls = operations.poll_service().listing().max_wait(LONGEST_WAIT);

    // From the outermost to the innermost.
    let layers = ServiceBuilder::new()
        // Before anything is logged.
        .layer(SetSensitiveRequestHeadersLayer::new([
            AUTHORIZATION,
            COOKIE,
            // The key gives access to the answer that it names.
            IDEMPOTENCY_KEY.clone(),
        ]))
        // Before the span that names the id, and before the accepting layer, which keeps
        // the request for the run.
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        // Outside of every layer that answers, so that every answer is logged. The answer
        // to an accepted request is the 202.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span_of)
                .on_response(
                    DefaultOnResponse::new()
                        .level(Level::INFO)
                        .include_headers(true),
                ),
        )
        // Inside of the trace, since a response passes from the inside to the outside.
        .layer(SetSensitiveResponseHeadersLayer::new([SET_COOKIE]))
        // Outside of every layer that answers as well: the id is on a 504 as on a 202. A
        // result has the id of the request that fetches it.
        .layer(PropagateRequestIdLayer::x_request_id())
        // Outside of every layer that refuses, or a script could not tell a 413 from a
        // broken connection. Preflights are answered here and never accepted. The accepting
        // layer would pass `OPTIONS` through as well.
        .layer(cors())
        // Outside of the accepting layer: recorded results are not compressed, and each
        // client gets an encoding that it accepts. Event streams are left alone, and so are
        // answers with a `Content-Encoding`.
        .layer(CompressionLayer::new())
        // For handlers that are not accepted. A panic of an accepted handler ends its
        // operation, and is not seen here.
        .layer(CatchPanicLayer::new())
        // Limits the time until an answer begins. Runs are in tasks of their own, and event
        // streams have begun.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            TIMEOUT,
        ))
        // Also guards requests that are not accepted.
        .layer(RequestBodyLimitLayer::new(ANY_BODY));

    Router::new()
        .route("/reports", post(render).route_layer(accept.clone()))
        .route(
            "/archives",
            post(render)
                // Inside of the accepting layer: recorded results are compressed. They take
                // less room in the store, but every client receives this encoding, even one
                // that does not accept it.
                .route_layer(CompressionLayer::new())
                .route_layer(accept),
        )
        .route("/direct", post(render))
        .nest_service("/operations", polls)
        .layer(layers)
}

#[tokio::main]
async fn main() -> io::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app()).await
}
