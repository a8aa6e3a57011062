//! The application for a command line.

use std::{io, net::SocketAddr, process};

use axum::{Router, body::Body, error_handling::HandleErrorLayer, routing::get};
use http::{Request, request::Parts};
use tower::{ServiceBuilder, limit::ConcurrencyLimitLayer, service_fn};
use tower_operations::{
    AnyStore, AsyncAcceptLayer, Drain, Idempotency, Operations, PollService, RequestBody,
    dialect::InvalidPublicUrl,
    store::{LeaseConfig, NodeId, Owner},
};

use crate::{
    cli::{Acceptance, Args, Keys, OnInterrupted},
    dialects::local_url,
    queue::QueueUrl,
    reports::{self, Renderer},
    runs::Runs,
    stores::StoreKind,
};

/// Returns the owner of a request from the header that a gateway in front of the server
/// sets; `None` without the header. The value may be any bytes.
fn tenant(parts: &Parts) -> Option<Owner> {
    let tenant = parts.headers.get("x-tenant")?;
    Some(Owner::new(tenant.as_bytes().escape_ascii().to_string()))
}

impl Args {
    /// Builds the application and the handle that shuts it down, and starts the recovery of
    /// the operations of dead nodes.
    pub async fn app(&self, address: SocketAddr) -> Result<(Router, Drain), AppError> {
        if let Some(queue) = &self.queue {
            return self.front(queue, address).await;
        }
        let store = self.open(&self.store).await?;
        let operations = Operations::new(store);
        let operations = self.operations(operations, address).await?;
        let layer = self.route(operations.layer());
        let mut layer = match self.accept {
            Acceptance::Always => layer,
            Acceptance::Preferred => layer.when_preferred(),
            Acceptance::Signaled => layer.when_signaled(),
            Acceptance::After(limit) => layer.after(limit),
        };
        let attempts = match self.on_interrupted {
            OnInterrupted::Rerun(attempts) => Some(attempts),
            OnInterrupted::Fail => None,
        };
        if attempts.is_some() {
            // A report is the same whenever it is rendered.
            layer = layer.rerun_if(|_| true);
        }
        let app = self.router(layer, operations.poll_service(), address)?;
        let recovery = match attempts {
            Some(attempts) => operations.recovery().rerun_with(app.clone(), attempts),
            None => operations.recovery(),
        };
        tokio::spawn(recovery.run());
        Ok((app, operations.drain_handle()))
    }

    /// Builds the same application, whose accepted requests run on the workers of a queue.
    async fn front(
        &self,
        queue: &QueueUrl,
        address: SocketAddr,
    ) -> Result<(Router, Drain), AppError> {
        let attempts = match self.on_interrupted {
            OnInterrupted::Rerun(attempts) => attempts,
            OnInterrupted::Fail => 1,
        };
        let is_preferred = match self.accept {
            Acceptance::Always => false,
            Acceptance::Preferred => true,
            Acceptance::Signaled | Acceptance::After(_) => {
                return Err(AppError::AcceptConflictsWithQueue);
            }
        };
        let store = self.open(&queue.store()).await?;
        let dispatch = queue.connect().await.map_err(AppError::Queue)?;
        let dispatch = dispatch.dispatch(self.claimed_within);
        let operations = Operations::dispatching(store, dispatch);
        let operations = self.operations(operations, address).await?;
        let mut layer = self.route(operations.layer());
        if is_preferred {
            layer = layer.when_preferred();
        }
        tokio::spawn(operations.dispatching_recovery(attempts).run());
        let app = self.router(layer, operations.poll_service(), address)?;
        Ok((app, operations.drain_handle()))
    }

    async fn open(&self, store: &StoreKind) -> Result<AnyStore, AppError> {
        store.open(self.ttl).await.map_err(AppError::Store)
    }

    fn base_url(&self, address: SocketAddr) -> String {
        let base_url = self.base_url.clone().unwrap_or_else(|| local_url(address));
        base_url.trim_end_matches('/').to_owned()
    }

    fn is_absolute(&self) -> bool {
        self.base_url.is_some() || self.dialect.is_absolute()
    }

    /// Applies the settings that the layer and the poll service share.
    async fn operations<D>(
        &self,
        mut operations: Operations<AnyStore, D>,
        address: SocketAddr,
    ) -> Result<Operations<AnyStore, D>, AppError> {
        if let Some(limit) = self.long_results.result_limit {
            operations = operations.result_limit(limit);
        }
        if let Some(results) = self.long_results.open().await.map_err(AppError::Results)? {
            operations = operations.result_store(results);
        }
        operations = operations
            .lease(LeaseConfig::new(
                // Every start of the process is another node.
                NodeId::named(format!("{} {}", self.node, process::id())),
                self.lease,
            ))
            .owner(tenant)
            .max_in_flight(self.max_in_flight as usize)
            .max_bytes_in_flight(self.max_bytes_in_flight)
            .running_timeout(self.timeout)
            .dialect(self.dialect.dialect())
            .public_path(self.dialect.operations_at());
        match self.is_absolute() {
            true => Ok(operations.public_url(&self.base_url(address))?),
            false => Ok(operations),
        }
    }

    /// Applies the settings of the route.
    fn route<D>(&self, layer: AsyncAcceptLayer<AnyStore, D>) -> AsyncAcceptLayer<AnyStore, D> {
        let dialect = self.dialect;
        let layer = layer
            .operation_name("report")
            .body_limit(self.body_limit as u64)
            .accept_if(move |parts| dialect.accepts(parts));
        let rules = match self.idempotency {
            Keys::Off => None,
            Keys::Optional => Some(Idempotency::optional()),
            Keys::Required => Some(Idempotency::required()),
        };
        let rules = match self.client_ids {
            true => Some(rules.unwrap_or_else(Idempotency::optional).client_ids()),
            false => rules,
        };
        match dialect.idempotency(rules) {
            Some(rules) => layer.idempotency(rules),
            None => layer,
        }
    }

    /// Builds the router of the service behind the layer and of the poll service.
    fn router<D>(
        &self,
        layer: AsyncAcceptLayer<AnyStore, D>,
        mut polls: PollService<AnyStore>,
        address: SocketAddr,
    ) -> Result<Router, AppError>
    where
        D: Send + Sync + 'static,
    {
        let (dialect, base_url) = (self.dialect, self.base_url(address));
        if self.list || dialect.lists() {
            polls = polls.listing();
        }
        let runs = match &self.runs {
            Some(path) => Runs::open(path, &self.node).map_err(AppError::Runs)?,
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
            .map(|limit| ConcurrencyLimitLayer::new(limit as usize));
        // The layer is around the service itself, so that requests which wait for the limit
        // are shown as pending, and only posted requests can be accepted.
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

/// An error of building the application.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("invalid value for '--base-url <URL>': {0}")]
    BaseUrl(#[from] InvalidPublicUrl),
    #[error("the file for --runs cannot be opened: {0}")]
    Runs(io::Error),
    #[error("the store cannot be opened: {0}")]
    Store(tower::BoxError),
    #[error("the store of results cannot be opened: {0}")]
    Results(tower::BoxError),
    #[error(
        "--accept signaled and --accept after:SECONDS cannot go with --queue: what is handed \
         off is run elsewhere, so there is no call here whose signal or answer could be waited \
         for"
    )]
    AcceptConflictsWithQueue,
    #[error("the queue cannot be opened: {0}")]
    Queue(tower::BoxError),
}
