//! Two nodes behind one address, one of which is killed in the middle.
//!
//! Run with a Redis or a PostgreSQL that you have:
//!
//! ```not_rust
//! cargo build -p server
//! cargo run -p cluster -- --store redis://127.0.0.1:6379
//! cargo run -p cluster -- --store postgres://user@127.0.0.1/db
//! ```
//!
//! The example starts two `server` processes on the store and a small proxy in front of
//! them, posts reports, kills a node that renders some of them, restarts the node, and
//! prints how each report ended and which nodes ran it. The example fails if a report was
//! lost. With `--stay` the example serves until Ctrl-C:
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","pages":5,"page_ms":500}'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3"}' -H 'idempotency-key: "8e03978e"'
//! curl -i '127.0.0.1:3000/operations/ID?wait=30'
//! curl -N 127.0.0.1:3000/operations/ID/events
//! ```

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::{self, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    response::IntoResponse,
};
use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    signal,
    time::{sleep, timeout},
};
use tower::BoxError;

/// The number of reports that are posted before the kill, and again after it.
const HALF: usize = 6;
/// The largest request that the proxy buffers to repeat it, in bytes.
const BODY_LIMIT: usize = 2 * 1024 * 1024;
type Http = Client<HttpConnector, Full<Bytes>>;

/// Two nodes behind one address, one of which is killed in the middle.
#[derive(Parser)]
#[command(name = "cluster")]
struct Args {
    /// The store of both nodes: `redis://…` or `postgres://…`.
    #[arg(long, value_name = "STORE", value_parser = parse_shared_store)]
    store: String,
    /// The address of both; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Goes on serving at the end, until Ctrl-C.
    #[arg(long)]
    stay: bool,
}

fn parse_shared_store(store: &str) -> Result<String, String> {
    let schemes = ["redis://", "postgres://", "postgresql://"];
    let is_shared = schemes.iter().any(|scheme| store.starts_with(scheme));
    let why = "two nodes can share `redis://…` or `postgres://…`";
    is_shared.then(|| store.into()).ok_or_else(|| why.into())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let args = Args::parse();
    let runs = Runs::new();
    let mut one = Node::start(&args.store, "one", "127.0.0.1:0", &runs).await?;
    let other = Node::start(&args.store, "other", "127.0.0.1:0", &runs).await?;
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let proxy = Proxy {
        nodes: Arc::new([one.address.clone(), other.address.clone()]),
        turn: Arc::default(),
        http: http.clone(),
    };
    let listener = TcpListener::bind(args.listen).await?;
    let front = format!("http://{}", listener.local_addr()?);
    println!("listening on {front}");
    let app = Router::new().fallback(forward).with_state(proxy);
    tokio::spawn(axum::serve(listener, app).into_future());

    let mut operations = Vec::new();
    for number in 1..=HALF {
        operations.push(post(&http, &front, number).await?);
    }
    let busy = async {
        while !runs.lines().any(|line| line["node"] == "one") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), busy).await?;
    one.child.kill().await?;
    println!("node one is killed");
    for number in HALF + 1..=2 * HALF {
        operations.push(post(&http, &front, number).await?);
    }
    one = Node::start(&args.store, "one", &one.address, &runs).await?;
    println!("node one is back");

    let mut lost = 0;
    for operation in &operations {
        let final_state = final_state(&http, &format!("{front}{operation}?wait=10")).await?;
        println!("{operation} {final_state}: {}", runs.attempts(operation));
        lost += usize::from(final_state != "succeeded");
    }
    if lost > 0 {
        return Err(format!("{lost} of {} were lost", operations.len()).into());
    }
    println!("all {} have succeeded", operations.len());
    if args.stay {
        signal::ctrl_c().await?;
    }
    drop((one, other));
    Ok(())
}

/// Posts a report with a key, so that the proxy may post it twice, and returns the URL of
/// its operation.
async fn post(http: &Http, front: &str, number: usize) -> Result<String, BoxError> {
    let key = format!("\"report {number} of cluster {}\"", process::id());
    let order = format!(r#"{{"title":"report {number}","pages":10,"page_ms":200}}"#);
    let request = Request::post(format!("{front}/reports")).header("idempotency-key", key);
    let response = http.request(request.body(Full::from(order))?).await?;
    let (status, location) = (response.status(), response.headers().get(header::LOCATION));
    let location = location.ok_or_else(|| format!("report {number} is answered with {status}"));
    Ok(location?.to_str()?.to_owned())
}

/// Returns the state in which an operation has ended. A missing operation is lost.
async fn final_state(http: &Http, url: &str) -> Result<String, BoxError> {
    for _ in 0..6 {
        let body = http.get(url.parse()?).await?.into_body().collect().await?;
        let operation: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        match operation["state"].as_str() {
            Some("pending" | "running") => {}
            state => return Ok(state.unwrap_or("lost").into()),
        }
    }
    Ok("never ends".into())
}

/// A `server` process, which is killed when dropped.
struct Node {
    child: Child,
    address: String,
}

impl Node {
    /// Starts a server. The operations of a killed server are rerun at most twice.
    async fn start(store: &str, name: &str, listen: &str, runs: &Runs) -> Result<Self, BoxError> {
        let server = format!("server{}", env::consts::EXE_SUFFIX);
        let server = env::current_exe()?.with_file_name(server);
        if !server.exists() {
            let build = "cargo build -p server";
            return Err(format!("the server is not built yet: {build}").into());
        }
        let mut child = Command::new(server)
            .args(["--listen", listen, "--store", store, "--node", name])
            .args(["--lease", "2", "--on-interrupted", "rerun:3"])
            .args(["--idempotency", "optional", "--ttl", "600", "--runs"])
            .arg(&runs.0)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("it has no output")?;
        let line = BufReader::new(output).lines().next_line().await?;
        let line = line.ok_or_else(|| format!("node {name} does not start"))?;
        let address = line.strip_prefix("listening on http://");
        let address = address.ok_or("it does not listen")?.to_owned();
        Ok(Self { child, address })
    }
}

/// The file in which the nodes record their runs.
struct Runs(PathBuf);

impl Runs {
    fn new() -> Self {
        Self(env::temp_dir().join(format!("cluster-{}.jsonl", process::id())))
    }

    /// Returns a line for each start and each end of a run.
    fn lines(&self) -> impl Iterator<Item = Value> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str);
        lines.filter_map(Result::ok).collect::<Vec<_>>().into_iter()
    }

    /// Returns the attempts of an operation with their nodes.
    fn attempts(&self, location: &str) -> String {
        let id = location.rsplit('/').next();
        let lines = self
            .lines()
            .filter(|line| line["operation"].as_str() == id && line["event"] == "begin");
        let run = |line: Value| {
            let node = line["node"].as_str().unwrap_or_default();
            format!("attempt {} at {node}", line["attempt"])
        };
        lines.map(run).collect::<Vec<_>>().join(", ")
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Clone)]
struct Proxy {
    nodes: Arc<[String; 2]>,
    turn: Arc<AtomicUsize>,
    http: Http,
}

/// Forwards requests to the nodes in turn. A request to an unreachable node is repeated at
/// the other node, unless the request may have arrived and must not arrive twice.
async fn forward(State(proxy): State<Proxy>, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let has_key = parts.headers.contains_key("idempotency-key");
    let may_repeat = parts.method.is_idempotent() || has_key;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    keep_end_to_end(&mut parts.headers);
    let turn = proxy.turn.fetch_add(1, Relaxed);
    for number in [turn, turn.wrapping_add(1)] {
        let url = format!("http://{}{path}", proxy.nodes[number % 2]);
        let repeated = Request::builder().method(parts.method.clone()).uri(url);
        let Ok(mut repeated) = repeated.body(Full::new(body.clone())) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        repeated.headers_mut().clone_from(&parts.headers);
        match proxy.http.request(repeated).await {
            Ok(mut response) => {
                keep_end_to_end(response.headers_mut());
                return response.map(Body::new);
            }
            Err(error) if may_repeat || error.is_connect() => {}
            Err(_) => break,
        }
    }
    StatusCode::BAD_GATEWAY.into_response()
}

/// Drops the fields of a single connection (RFC 9110, section 7.6.1).
fn keep_end_to_end(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter();
    let named = named.flat_map(|names| names.as_bytes().split(|byte| *byte == b','));
    let named = named.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let named: Vec<HeaderName> = named.collect();
    let hop_by_hop = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in hop_by_hop.into_iter().chain(named) {
        headers.remove(name);
    }
}
