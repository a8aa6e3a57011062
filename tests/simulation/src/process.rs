//! A process of a node: the application, in its environment.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tower::{Layer as _, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_operations::{
    BoxError, BufferedBody, Drain, Idempotency, Operations, Owner, PollService, QueuedRequest,
    Recovery, RecoveryStats, RunService,
    store::{AnyStore, LeaseConfig, NodeId},
    testing::{Environment, TaskGroup},
};

use crate::{
    Mutant,
    node::Site,
    results::SimulatedResults,
    work::{Renderer, out_of_order},
};

/// A short lease, so that operations are reclaimed soon.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// The maximum number of attempts.
pub(crate) const ATTEMPTS: u32 = 3;
/// The time that a report may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest result, in bytes.
const RESULT_LIMIT: u64 = 1_000_000;
/// The length in bytes above which a result goes to the result store.
pub(crate) const RESULT_THRESHOLD: u64 = 1_000;

pub(crate) type App = BoxCloneService<Request<BufferedBody>, Response<AnswerBody>, Infallible>;

pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// The duty of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It accepts requests, and runs them.
    Server,
    /// It accepts requests, and puts them into the queue.
    Front,
    /// It runs requests from the queue.
    Worker,
}

/// A process of a node, from its start to its end.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) tasks: TaskGroup,
    pub(crate) environment: Environment,
    pub(crate) store: AnyStore,
    pub(crate) drain: Drain,
    /// The application, unless the node is a worker.
    pub(crate) app: Option<App>,
    /// The number of requests that are being answered.
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Process {
    /// Starts a process in `environment`, whose tasks are `tasks`. Returns the recovery that runs
    /// in it, if there is one.
    pub(crate) fn start(
        site: &Site,
        environment: &Environment,
        tasks: TaskGroup,
    ) -> (Self, Option<RecoveryStats>) {
        let _entered = environment.enter();
        let store = site.stores.open(site.number, &tasks);
        let renderer = Renderer {
            journal: Arc::clone(&site.journal),
            node: Arc::clone(&site.name),
            tasks: tasks.clone(),
        };
        let results = site.results.open(site.number, tasks.clone());
        let opened = (store.clone(), results);
        let (drain, app, recovery) = match site.role {
            Role::Server => serve(site, opened, renderer),
            Role::Front => accept(site, opened, renderer),
            Role::Worker => (work(site, opened, renderer, environment), None, None),
        };
        let recovery = recovery.filter(|_| site.mutant != Some(Mutant::NoRecovery));
        let stats = recovery.as_ref().map(Recovery::stats);
        if let Some(recovery) = recovery {
            drop(environment.spawn(recovery.run()));
        }
        let process = Self {
            tasks,
            environment: environment.clone(),
            store,
            drain,
            app,
            requests: Arc::default(),
        };
        (process, stats)
    }
}

/// The stores as a process reaches them.
type OpenStores = (AnyStore, SimulatedResults);

/// An application: its drain, its service and its recovery.
type Application = (Drain, Option<App>, Option<Recovery<AnyStore>>);

/// Returns an application that runs the requests that it accepts.
fn serve(site: &Site, (store, results): OpenStores, renderer: Renderer) -> Application {
    let operations = configured(site, Operations::new(store), results);
    let layer = operations.layer().idempotency(keys()).rerun_if(|_| true);
    let reports = layer.layer(service_fn(move |request| renderer.clone().render(request)));
    let app = app(site, reports, operations.poll_service());
    let recovery = operations.recovery().rerun_with(app.clone(), ATTEMPTS);
    (operations.drain_handle(), Some(app), Some(recovery))
}

/// Returns an application that puts accepted requests into the queue.
fn accept(site: &Site, (store, results): OpenStores, renderer: Renderer) -> Application {
    let operations = Operations::dispatching(store, site.queue.clone());
    let operations = configured(site, operations, results);
    let layer = operations.layer().idempotency(keys());
    let reports = layer.layer(service_fn(move |request| renderer.clone().render(request)));
    let app = app(site, reports, operations.poll_service());
    let recovery = operations.dispatching_recovery(ATTEMPTS);
    (operations.drain_handle(), Some(app), Some(recovery))
}

/// Runs requests from the queue.
fn work(
    site: &Site,
    (store, results): OpenStores,
    renderer: Renderer,
    environment: &Environment,
) -> Drain {
    let reports = service_fn(move |request| {
        let renderer = renderer.clone();
        async move {
            Ok::<_, Infallible>(match renderer.render(request).await {
                Ok(response) => response,
                Err(error) => out_of_order(&error),
            })
        }
    });
    let service = RunService::new(store, reports)
        .lease(LeaseConfig::new(NodeId::new(), LEASE))
        .running_timeout(TIMEOUT)
        .result_store(results)
        .result_threshold(RESULT_THRESHOLD)
        .result_limit(RESULT_LIMIT);
    let drain = service.drain_handle();
    let (queue, inner) = (site.queue.clone(), environment.clone());
    drop(environment.spawn(async move {
        loop {
            let message = queue.take().await;
            let (queue, service) = (queue.clone(), service.clone());
            drop(inner.spawn(async move {
                let request = QueuedRequest::from_bytes(&message).expect("a message of a front");
                if service.oneshot(request).await.is_err() {
                    queue.put_back(message);
                }
            }));
        }
    }));
    drain
}

/// Returns operations with the settings of every node.
fn configured<D>(
    site: &Site,
    operations: Operations<AnyStore, D>,
    results: SimulatedResults,
) -> Operations<AnyStore, D> {
    operations
        .owner(match site.mutant {
            Some(Mutant::OwnerIgnored) => everybody,
            _ => tenant,
        })
        .lease(LeaseConfig::new(NodeId::new(), LEASE))
        .running_timeout(TIMEOUT)
        .result_store(results)
        .result_threshold(RESULT_THRESHOLD)
        .result_limit(RESULT_LIMIT)
}

fn keys() -> Idempotency {
    Idempotency::optional().client_ids()
}

/// Returns the service of all routes.
fn app<S, B>(site: &Site, reports: S, polls: PollService<AnyStore>) -> App
where
    S: Service<Request<BufferedBody>, Response = Response<B>, Error = BoxError>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let polls = polls.mounted_at("/operations").listing();
    let ignores_last_event = site.mutant == Some(Mutant::LastEventIgnored);
    BoxCloneService::new(service_fn(move |request: Request<BufferedBody>| {
        let (reports, polls) = (reports.clone(), polls.clone());
        let request = match ignores_last_event {
            true => without_last_event(request),
            false => request,
        };
        async move {
            match request.uri().path() {
                "/reports" => match reports.oneshot(request).await {
                    Ok(response) => Ok(response.map(boxed)),
                    Err(error) => Ok(out_of_order(&error).map(boxed)),
                },
                _ => {
                    let Ok(response) = polls.oneshot(request).await;
                    Ok(response.map(boxed))
                }
            }
        }
    }))
}

/// Returns the owner of a request.
fn tenant(parts: &Parts) -> Option<Owner> {
    let tenant = parts.headers.get("x-tenant")?.to_str().ok()?;
    Some(Owner::new(tenant))
}

/// Returns the same owner for every request.
fn everybody(_: &Parts) -> Option<Owner> {
    Some(Owner::new("everybody"))
}

fn boxed<B>(body: B) -> AnswerBody
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    UnsyncBoxBody::new(body.map_err(Into::into))
}

/// Returns a request without its `Last-Event-ID`.
fn without_last_event(mut request: Request<BufferedBody>) -> Request<BufferedBody> {
    request.headers_mut().remove("last-event-id");
    request
}
