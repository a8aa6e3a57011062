//! Two nodes behind one address, one of which is killed.
//!
//! Run with a Redis (or a PostgreSQL, and that feature) that you have:
//!
//! ```not_rust
//! cargo build --features redis --example server
//! cargo run --features redis --example cluster -- redis://127.0.0.1:6379
//! ```
//!
//! It starts two `server` processes on the store, puts a small proxy in front of them,
//! posts reports, kills one node while they are rendered, and says how each ended. Then
//! it goes on serving with the node that is left, until Ctrl-C:
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","pages":5,"page_ms":500}'
//! curl -i '127.0.0.1:3000/operations/ID?wait=30'
//! ```

use std::{
    env,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::State, response::IntoResponse};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::sleep,
};
use tower::BoxError;

const REPORTS: usize = 12;

type Http = Client<HttpConnector, Full<bytes::Bytes>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = env::args().skip(1);
    let store = arguments
        .next()
        .ok_or("which store? redis://… or postgres://…")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3000".into());

    let (mut first, one) = node(&store, "one").await?;
    let (_second, other) = node(&store, "other").await?;
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let proxy = Proxy {
        nodes: Arc::new([one, other]),
        turn: Arc::default(),
        http: http.clone(),
    };
    let listener = TcpListener::bind(address).await?;
    let front = format!("http://{}", listener.local_addr()?);
    println!("listening on {front}");
    let app = Router::new().fallback(forward).with_state(proxy);
    let serving = tokio::spawn(axum::serve(listener, app).into_future());

    let mut operations = Vec::new();
    for number in 1..=REPORTS {
        let order = format!(r#"{{"title":"report {number}","pages":10,"page_ms":200}}"#);
        let request = Request::post(format!("{front}/reports")).body(Full::from(order))?;
        let response = http.request(request).await?;
        let location = response.headers().get("location").ok_or("no 202")?;
        operations.push(location.to_str()?.to_owned());
    }
    println!("{REPORTS} reports are accepted; node \"one\" is killed");
    sleep(Duration::from_millis(500)).await;
    first.kill().await?;

    for operation in &operations {
        let state = loop {
            let uri: Uri = format!("{front}{operation}?wait=30").parse()?;
            let body = http.get(uri).await?.into_body().collect().await?.to_bytes();
            let operation: serde_json::Value = serde_json::from_slice(&body)?;
            match operation["state"].as_str() {
                Some("pending" | "running") => {}
                Some(state) => break state.to_owned(),
                None => return Err(format!("it is lost: {operation}").into()),
            }
        };
        println!("{operation} {state}");
        if state != "succeeded" {
            return Err("one did not succeed".into());
        }
    }
    println!("all {REPORTS} have succeeded");
    serving.await??;
    Ok(())
}

/// Starts a node, and says where it listens. What it leaves behind is run again.
async fn node(store: &str, name: &str) -> Result<(Child, String), BoxError> {
    let server = env::current_exe()?.with_file_name("server");
    if !server.exists() {
        return Err("build the server first: cargo build --features … --example server".into());
    }
    let mut child = Command::new(server)
        .args(["--listen", "127.0.0.1:0", "--store", store, "--node", name])
        .args(["--lease", "2", "--on-interrupted", "rerun:3"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines();
    let line = lines
        .next_line()
        .await?
        .ok_or("the server does not start")?;
    let url = line
        .strip_prefix("listening on ")
        .ok_or("it does not listen")?;
    Ok((child, url.to_owned()))
}

#[derive(Clone)]
struct Proxy {
    nodes: Arc<[String; 2]>,
    turn: Arc<AtomicUsize>,
    http: Http,
}

/// Asks the nodes in turn. If one does not answer the other is asked, unless the
/// request may have been heard and is not to be heard twice.
async fn forward(State(proxy): State<Proxy>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let body = body.to_bytes();
    let may_repeat = parts.method != Method::POST || parts.headers.contains_key("idempotency-key");
    let turn = proxy.turn.fetch_add(1, Relaxed);
    for number in [turn, turn + 1] {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut again = Request::builder()
            .method(parts.method.clone())
            .uri(format!("{}{path}", proxy.nodes[number % 2]));
        if let Some(headers) = again.headers_mut() {
            headers.clone_from(&parts.headers);
        }
        let Ok(request) = again.body(Full::new(body.clone())) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        match proxy.http.request(request).await {
            Ok(response) => return response.map(Body::new),
            Err(error) if may_repeat || error.is_connect() => {}
            Err(_) => break,
        }
    }
    StatusCode::BAD_GATEWAY.into_response()
}
