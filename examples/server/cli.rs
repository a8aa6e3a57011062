//! The command line, and the application it makes.

use std::{io, net::SocketAddr, path::PathBuf, process, str::FromStr, time::Duration};

use axum::{Router, body::Body, error_handling::HandleErrorLayer, routing::get};
#[cfg(all(feature = "apalis", feature = "postgres", feature = "redis"))]
use clap::builder::ArgPredicate;
use clap::{Parser, ValueEnum};
use http::{Request, request::Parts};
use tower::{ServiceBuilder, limit::ConcurrencyLimitLayer, service_fn};
use tower_operations::{
    AnyStore, AsyncAcceptLayer, Drain, Idempotency, PollService, RequestBody,
    accept::PlainOwner,
    dialect::InvalidBaseUrl,
    store::{LeaseTerm, NodeId, Owner},
};

#[cfg(all(feature = "apalis", feature = "postgres", feature = "redis"))]
use crate::queue::QueueUrl;
use crate::{
    dialects::{DialectKind, local_url},
    reports::{self, Renderer},
    runs::Runs,
    stores::StoreKind,
};

/// A slow service whose requests are accepted at once.
#[derive(Parser)]
#[command(name = "server")]
pub(crate) struct Args {
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    pub(crate) listen: SocketAddr,
    /// Where operations are kept: `memory`, `redb:PATH`, `postgres://…` or
    /// `redis://…`. With `--queue` they are where the queue is.
    #[arg(long, value_name = "STORE", default_value = "memory")]
    #[cfg_attr(
        all(feature = "apalis", feature = "postgres", feature = "redis"),
        arg(conflicts_with("queue"))
    )]
    store: StoreKind,
    /// Hands accepted reports off to the workers of this queue: `postgres://…` or
    /// `redis://…`.
    #[cfg(all(feature = "apalis", feature = "postgres", feature = "redis"))]
    #[arg(long, value_name = "URL")]
    pub(crate) queue: Option<QueueUrl>,
    /// How long a report may be in the queue before it is handed off again.
    #[cfg(all(feature = "apalis", feature = "postgres", feature = "redis"))]
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    claimed_within: Duration,
    /// The name of this node, where several share a store.
    #[arg(long, value_name = "NAME", default_value = "server")]
    node: String,
    /// How long a node may be silent before others take over what it runs. With
    /// `--queue` it only says how soon what a worker has left behind is found, and is
    /// 10 unless said.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    #[cfg_attr(
        all(feature = "apalis", feature = "postgres", feature = "redis"),
        arg(default_value_if("queue", ArgPredicate::IsPresent, "10"))
    )]
    lease: Duration,
    /// What becomes of operations whose node has died: they `fail`, or they are
    /// run again, N times in all (`rerun:N`). With `--queue` they are run 3 times in
    /// all, unless said.
    #[arg(long, value_name = "POLICY", default_value = "fail")]
    #[cfg_attr(
        all(feature = "apalis", feature = "postgres", feature = "redis"),
        arg(default_value_if("queue", ArgPredicate::IsPresent, "rerun:3"))
    )]
    on_interrupted: OnInterrupted,
    /// A file to which a line is added whenever a report is begun, ended or dropped.
    #[arg(long, value_name = "PATH")]
    runs: Option<PathBuf>,
    /// How operations are spoken on the wire, and so by which paths reports are
    /// ordered and polled.
    #[arg(long, value_name = "DIALECT", default_value = "plain")]
    dialect: DialectKind,
    /// When a request is answered with a 202: `always`, `preferred` (only with
    /// `Prefer: respond-async`), `signaled` (once the order has been read), or
    /// `after:SECONDS` (if its answer takes longer than that).
    #[arg(long, value_name = "WHEN", default_value = "always")]
    accept: Acceptance,
    /// Whether an `Idempotency-Key` is honoured.
    #[arg(long, value_name = "KEYS", default_value = "off")]
    idempotency: Keys,
    /// Lets a tenant list its operations, with `GET /operations/`; the dialects that
    /// have a list of their own always do, those that have none never.
    #[arg(long)]
    list: bool,
    /// Makes every `Location` absolute; by default they are where the dialect's
    /// clients need it, with the address that is listened on.
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// The most operations pending or running; past it the answer is 503.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_in_flight: usize,
    /// The most reports rendered at a time; the others are pending.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// How long a report may take.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    timeout: Duration,
    /// How long an operation is kept after it ended.
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = seconds)]
    ttl: Duration,
    /// The largest request body.
    #[arg(long, value_name = "BYTES", default_value_t = 2 * 1024 * 1024)]
    body_limit: usize,
    /// The largest response body that is recorded.
    #[arg(long, value_name = "BYTES", default_value_t = 8 * 1024 * 1024)]
    result_limit: u64,
    /// How long a drain waits for what is running.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) drain: Duration,
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[derive(Clone, Copy)]
enum OnInterrupted {
    Fail,
    Rerun(u32),
}

impl FromStr for OnInterrupted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let attempts = text.strip_prefix("rerun:").map(str::parse);
        match (text, attempts) {
            ("fail", _) => Ok(Self::Fail),
            (_, Some(Ok(attempts @ 1..))) => Ok(Self::Rerun(attempts)),
            _ => Err("expected `fail` or `rerun:N`, N at least 1".into()),
        }
    }
}

#[derive(Clone, Copy)]
enum Acceptance {
    Always,
    Preferred,
    Signaled,
    After(Duration),
}

impl FromStr for Acceptance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("after:")) {
            ("always", _) => Ok(Self::Always),
            ("preferred", _) => Ok(Self::Preferred),
            ("signaled", _) => Ok(Self::Signaled),
            (_, Some(limit)) => seconds(limit).map(Self::After),
            _ => Err("expected `always`, `preferred`, `signaled` or `after:SECONDS`".into()),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Keys {
    Off,
    Optional,
    Required,
}

/// Whose a request is, as a gateway in front of this would say; without the
/// header, nobody's. Every byte counts, text or not.
fn tenant(parts: &Parts) -> Option<Owner> {
    let tenant = parts.headers.get("x-tenant")?;
    Some(Owner::new(tenant.as_bytes().escape_ascii().to_string()))
}

impl Args {
    /// The application, and what shuts it down. What dead nodes have left behind
    /// is looked after from now on.
    pub(crate) async fn app(&self, address: SocketAddr) -> Result<(Router, Drain), NoApp> {
        #[cfg(all(feature = "apalis", feature = "postgres", feature = "redis"))]
        if let Some(queue) = &self.queue {
            return self.front(queue, address).await;
        }
        let store = self.open(&self.store).await?;
        let (layer, drain) = AsyncAcceptLayer::with_drain(store.clone());
        let layer = self.configured(layer, address)?;
        let layer = layer.result_limit(self.result_limit);
        let mut layer = match self.accept {
            Acceptance::Always => layer,
            Acceptance::Preferred => layer.preferred(),
            Acceptance::Signaled => layer.signaled(),
            Acceptance::After(limit) => layer.after(limit),
        };
        let attempts = match self.on_interrupted {
            OnInterrupted::Rerun(attempts) => Some(attempts),
            OnInterrupted::Fail => None,
        };
        if attempts.is_some() {
            // A report is the same whenever it is rendered.
            layer = layer.may_run_again(|_| true);
        }
        let recovery = layer.recovery();
        let app = self.mounted(layer, store, &drain, address)?;
        let recovery = match attempts {
            Some(attempts) => recovery.run_again(app.clone(), attempts),
            None => recovery,
        };
        tokio::spawn(recovery.run());
        Ok((app, drain))
    }

    /// The same, where what is accepted is run by workers elsewhere.
    #[cfg(all(feature = "apalis", feature = "postgres", feature = "redis"))]
    async fn front(&self, queue: &QueueUrl, address: SocketAddr) -> Result<(Router, Drain), NoApp> {
        let attempts = match self.on_interrupted {
            OnInterrupted::Rerun(attempts) => attempts,
            OnInterrupted::Fail => 1,
        };
        let is_preferred = match self.accept {
            Acceptance::Always => false,
            Acceptance::Preferred => true,
            Acceptance::Signaled | Acceptance::After(_) => return Err(NoApp::NothingToWaitFor),
        };
        let store = self.open(&queue.store()).await?;
        let dispatch = queue.connect().await.map_err(NoApp::Queue)?;
        let dispatch = dispatch.dispatch(self.claimed_within);
        let (layer, drain) = AsyncAcceptLayer::hand_off_with_drain(store.clone(), dispatch);
        let mut layer = self.configured(layer, address)?;
        if is_preferred {
            layer = layer.preferred();
        }
        tokio::spawn(layer.dispatching_recovery(attempts).run());
        let app = self.mounted(layer, store, &drain, address)?;
        Ok((app, drain))
    }

    async fn open(&self, store: &StoreKind) -> Result<AnyStore, NoApp> {
        store.open(self.ttl).await.map_err(NoApp::Store)
    }

    fn base_url(&self, address: SocketAddr) -> String {
        let base_url = self.base_url.clone().unwrap_or_else(|| local_url(address));
        base_url.trim_end_matches('/').to_owned()
    }

    fn is_absolute(&self) -> bool {
        self.base_url.is_some() || self.dialect.is_absolute()
    }

    /// The layer, wherever it has its requests run.
    fn configured<D>(
        &self,
        layer: AsyncAcceptLayer<AnyStore, D>,
        address: SocketAddr,
    ) -> Result<AsyncAcceptLayer<AnyStore, D>, NoApp> {
        let dialect = self.dialect;
        let mut layer = layer
            .name("report")
            .lease(LeaseTerm {
                // Every start is another node.
                node: NodeId::named(format!("{} {}", self.node, process::id())),
                term: self.lease,
            })
            .owner_with(PlainOwner::new(tenant))
            .max_in_flight(self.max_in_flight)
            .running_timeout(self.timeout)
            .body_limit(self.body_limit as u64)
            .dialect(dialect.dialect())
            .operations_at(dialect.operations_at())
            .which(move |parts| dialect.accepts(parts));
        if self.is_absolute() {
            layer = layer.base_url(&self.base_url(address))?;
        }
        let rules = match self.idempotency {
            Keys::Off => None,
            Keys::Optional => Some(Idempotency::optional()),
            Keys::Required => Some(Idempotency::required()),
        };
        if let Some(rules) = dialect.idempotency(rules) {
            layer = layer.idempotency(rules);
        }
        Ok(layer)
    }

    /// The service behind the layer, and the window beside it.
    fn mounted<D>(
        &self,
        layer: AsyncAcceptLayer<AnyStore, D>,
        store: AnyStore,
        drain: &Drain,
        address: SocketAddr,
    ) -> Result<Router, NoApp>
    where
        D: Send + Sync + 'static,
    {
        let (dialect, base_url) = (self.dialect, self.base_url(address));
        let mut polls = PollService::new(store)
            .owner_with(PlainOwner::new(tenant))
            .dialect(dialect.dialect())
            .operations_at(dialect.operations_at())
            .draining(drain);
        if self.list || dialect.lists() {
            polls = polls.listing();
        }
        if self.is_absolute() {
            polls = polls.base_url(&base_url)?;
        }
        let runs = match &self.runs {
            Some(path) => Runs::open(path, &self.node).map_err(NoApp::Runs)?,
            None => Runs::default(),
        };
        let renderer = Renderer {
            orders: dialect.orders(&base_url),
            body_limit: self.body_limit,
            signals: matches!(self.accept, Acceptance::Signaled),
            runs,
        };
        let concurrency = self
            .concurrency
            .map(|most| ConcurrencyLimitLayer::new(most as usize));
        // The layer is around the service itself, so what is waiting for the
        // limit is seen as pending, and only what is posted can be accepted.
        let reports = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(reports::out_of_order))
            .layer(layer)
            .option_layer(concurrency)
            .service(service_fn(move |request: Request<RequestBody<Body>>| {
                renderer.clone().render(request)
            }));
        let app = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .nest_service(dialect.operations_at(), polls);
        Ok(dialect.mount(app, reports))
    }
}

/// Why there is no application.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoApp {
    #[error("invalid value for '--base-url <URL>': {0}")]
    BaseUrl(#[from] InvalidBaseUrl),
    #[error("the file for --runs cannot be opened: {0}")]
    Runs(io::Error),
    #[error("the store cannot be opened: {0}")]
    Store(tower::BoxError),
    #[cfg(all(feature = "apalis", feature = "postgres", feature = "redis"))]
    #[error(
        "--accept signaled and --accept after:SECONDS cannot go with --queue: what is handed \
         off is run elsewhere, so there is no call here whose signal or answer could be waited \
         for"
    )]
    NothingToWaitFor,
    #[cfg(all(feature = "apalis", feature = "postgres", feature = "redis"))]
    #[error("the queue cannot be opened: {0}")]
    Queue(tower::BoxError),
}
