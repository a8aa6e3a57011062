//! A process that renders the accepted reports.

use std::{path::PathBuf, process, time::Duration};

use axum::{Router, body::Body, error_handling::HandleErrorLayer};
use http::Request;
use server::{
    cli::{positive_seconds, seconds},
    dialects::DialectKind,
    queue::QueueUrl,
    reports::{self, Renderer},
    results::LongResults,
    runs::Runs,
    serve::{Signals, print_line, print_report},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, OperationHandle, RunService,
    store::{LeaseConfig, NodeId},
};
use tower_operations_apalis::ApalisWorker;

use crate::engine::Engine;

/// The time for the last acknowledgements to reach the engine.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where reports come from, and where the store is: `postgres://…` or `redis://…`.
    #[arg(long, value_name = "URL")]
    queue: QueueUrl,
    /// The name of this worker, among those on this queue.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The maximum number of reports rendered at a time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// The time after which other workers reclaim the operations of a silent worker.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds)]
    lease: Duration,
    /// How long a report may take.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = positive_seconds)]
    timeout: Duration,
    /// How long an operation is kept after it ended.
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = seconds)]
    ttl: Duration,
    #[command(flatten)]
    long_results: LongResults,
    /// How long a drain waits for running operations.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    drain: Duration,
    /// The dialect of the fronts: it says where reports are ordered.
    #[arg(long, value_name = "DIALECT", default_value = "plain")]
    dialect: DialectKind,
    /// A file to which a line is added whenever a report is begun, ended or dropped.
    /// Without it, each begun report is printed.
    #[arg(long, value_name = "PATH")]
    runs: Option<PathBuf>,
}

/// Prints the reports that the worker of this name runs.
#[derive(Clone)]
struct RunPrinter(String);

impl RunPrinter {
    fn print(&self, request: &Request<Body>) {
        if let Some(id) = OperationHandle::from_extensions(request.extensions()).id() {
            let (name, process) = (&self.0, process::id());
            print_line(format_args!("worker {name} runs {id} in process {process}"));
        }
    }
}

/// Runs reports until the drain is over.
pub(crate) async fn work(args: &Args) -> Result<(), BoxError> {
    let queue = args.queue.connect().await?;
    let store = args.queue.store().open(args.ttl).await?;
    let runs = match &args.runs {
        Some(path) => Runs::open(path, &args.name)?,
        None => Runs::default(),
    };
    let renderer = Renderer {
        orders: args.dialect.orders(""),
        // The front has checked the limit.
        body_limit: usize::MAX,
        signals: false,
        runs,
    };
    let printer = args.runs.is_none().then(|| RunPrinter(args.name.clone()));
    // The same routes as at the front, without the layer.
    let reports = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(reports::out_of_order))
        .service(service_fn(move |request: Request<Body>| {
            if let Some(printer) = &printer {
                printer.print(&request);
            }
            renderer.clone().render(request)
        }));
    let app = args.dialect.mount(Router::new(), reports);
    let app = app.map_request(|request: Request<BufferedBody>| request.map(Body::new));

    // Every start of the process is another node.
    let name = format!("{}-{}", args.name, process::id());
    let mut service = RunService::new(store, app);
    if let Some(limit) = args.long_results.result_limit {
        service = service.result_limit(limit);
    }
    let results = args.long_results.open().await;
    let results =
        results.map_err(|error| format!("the store of results cannot be opened: {error}"))?;
    if let Some(results) = results {
        service = service.result_store(results);
    }
    let drain = service.drain_handle();
    let service = service
        .lease(LeaseConfig::new(NodeId::named(name.clone()), args.lease))
        .running_timeout(args.timeout);
    let worker = ApalisWorker::new(service).concurrency(args.concurrency as usize);
    let engine = Engine { queue, name };
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let working = tokio::spawn(engine.run(worker, stop.clone()));
    print_line(format_args!("working as {}", args.name));

    signals.next().await;
    stop.cancel();
    let report = tokio::select! {
        report = drain.drain(args.drain) => report,
        () = signals.next() => return Err("stopped before the drain was over".into()),
    };
    let _ = timeout(LAST_ACKNOWLEDGEMENTS, working).await;
    print_report(&report);
    Ok(())
}
