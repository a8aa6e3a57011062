//! The span of an operation, as a subscriber sees it.

use test_support::hooked;
#[path = "tracing/ids.rs"]
mod ids;
#[path = "tracing/stores.rs"]
mod stores;

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tower::{Layer as _, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, MemoryStore, OperationId, Operations, PollService,
    RecordedResponse, RequestBody, dialect::ApiError, store::Lease,
};
use tracing::{
    Instrument, Subscriber,
    field::{Field, Visit},
    info_span, span,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

/// Keeps who follows from whom, and which span each event is in.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Seen {
    fn on_follows_from(&self, span: &span::Id, follows: &span::Id, context: Context<'_, S>) {
        let name = |id| context.span(id).map(|span| span.name()).unwrap_or("none");
        let parent = context
            .span(span)
            .and_then(|span| span.parent().map(|parent| parent.name()));
        let line = format!(
            "{} follows {}, inside {parent:?}",
            name(span),
            name(follows)
        );
        self.0.lock().unwrap().push(line);
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == "handler" {
            let spans = context.event_scope(event).into_iter().flatten();
            let names: Vec<_> = spans.map(|span| span.name()).collect();
            self.0
                .lock()
                .unwrap()
                .push(format!("the handler is in {names:?}"));
        }
    }
}

#[tokio::test]
async fn the_operation_has_a_span_that_follows_from_its_request_s() {
    let seen = Seen::default();
    let subscriber = tracing_subscriber::registry().with(seen.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let operations = Operations::new(MemoryStore::new());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let service = layer.layer(service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        tracing::info!(target: "handler", "at work");
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    }));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    service
        .oneshot(request)
        .instrument(info_span!("request"))
        .await
        .unwrap();
    assert!(drain.drain(Duration::from_secs(5)).await.is_clean());
    assert_eq!(
        *seen.0.lock().unwrap(),
        [
            "operation follows request, inside None",
            "the handler is in [\"operation\"]"
        ]
    );
}

/// Keeps what events say, and what is recorded on spans later: `LEVEL message {fields}`.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // It depends on the clock.
            "duration" => self.others.push("duration".into()),
            name => self.others.push(format!("{name}={value:?}")),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Said {
    fn on_record(&self, span: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        let name = context.span(span).map(|span| span.name()).unwrap_or("none");
        let line = format!("{name} records {}", fields.others.join(" "));
        self.0.lock().unwrap().push(line);
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, message) = (event.metadata().level(), fields.message);
        let line = format!("{level} {message} {}", fields.others.join(" "));
        if event.metadata().target().starts_with("tower_operations") {
            self.0.lock().unwrap().push(line);
        }
    }
}

impl Said {
    /// What was said of an operation since this was asked last, at `INFO` or above.
    fn of(&self, id: &OperationId) -> Vec<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        let lines = lines
            .into_iter()
            .map(|line| line.replace(&id.to_string(), "ID"));
        let mut lines: Vec<_> = lines.collect();
        lines.retain(|line| !line.starts_with("DEBUG") && !line.starts_with("TRACE"));
        lines
    }
}

type Inner = Result<Response<BufferedBody>, &'static str>;

/// Has a request accepted, and gives the id that its 202 has among its extensions.
async fn accept<F>(
    layer: &AsyncAcceptLayer<MemoryStore>,
    inner: impl Fn() -> F + Clone + Send + 'static,
) -> OperationId
where
    F: Future<Output = Inner> + Send,
{
    accept_by(layer, move |_| inner()).await
}

/// The same, where the service has its request and the store is any.
async fn accept_by<R, F>(
    layer: &AsyncAcceptLayer<R>,
    inner: impl Fn(Request<RequestBody<BufferedBody>>) -> F + Clone + Send + 'static,
) -> OperationId
where
    R: Lease<Output = RecordedResponse>,
    F: Future<Output = Inner> + Send,
{
    let service = layer.layer(service_fn(inner));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 202);
    let id = response.extensions().get::<OperationId>().unwrap().clone();
    let location = response.headers()["location"].to_str().unwrap();
    assert_eq!(location, format!("/operations/{id}"));
    id
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_once_and_louder_if_it_is_no_answer_of_the_service() {
    let said = Said::default();
    let subscriber = tracing_subscriber::registry().with(said.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let layer = layer
        .operation_name("report")
        .running_timeout(Duration::from_secs(5));
    let ended = async |id: &OperationId| {
        tokio::time::sleep(Duration::from_secs(10)).await;
        said.of(id)
    };

    let id = accept(&layer, async || Ok(Response::default())).await;
    assert_eq!(
        ended(&id).await,
        ["INFO operation succeeded id=ID name=\"report\" state=succeeded attempt=1 duration"]
    );
    let id = accept(&layer, async || {
        let mut response = Response::new(BufferedBody::default());
        *response.status_mut() = http::StatusCode::UNPROCESSABLE_ENTITY;
        Ok(response)
    })
    .await;
    let fields = "id=ID name=\"report\" state=failed attempt=1 duration problem=";
    let failed = format!("INFO operation failed {fields}\"about:blank\"");
    assert_eq!(ended(&id).await, [failed]);

    let id = accept(&layer, async || panic!("page {} is missing", 3)).await;
    let panicked = format!("WARN operation failed {fields}\"urn:tower-operations:panicked\"");
    let panic = "ERROR the inner service panicked id=ID panic=\"page 3 is missing\"";
    assert_eq!(ended(&id).await, [panic, &panicked]);
    let id = accept(&layer, async || Err("no paper")).await;
    let error = format!("WARN operation failed {fields}\"urn:tower-operations:inner-error\"");
    let returned = "ERROR the inner service returned an error id=ID error=no paper";
    assert_eq!(ended(&id).await, [returned, &error]);
    let id = accept(&layer, std::future::pending).await;
    let late = format!("WARN operation failed {fields}\"urn:tower-operations:timed-out\"");
    assert_eq!(ended(&id).await, [late]);

    // After a time, the same call goes on.
    let after = layer.clone().after(Duration::from_secs(1));
    let id = accept(&after, async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        panic!("no page is there")
    })
    .await;
    let panic = "ERROR the inner service panicked id=ID panic=\"no page is there\"";
    assert_eq!(ended(&id).await, [panic, &panicked]);

    let id = accept(&layer, std::future::pending).await;
    tokio::task::yield_now().await;
    let delete = Request::delete(format!("/{id}")).body(()).unwrap();
    let canceled = PollService::new(store).oneshot(delete).await.unwrap();
    assert_eq!(canceled.status(), 200);
    assert_eq!(
        ended(&id).await,
        [
            "INFO operation canceled id=ID name=\"report\" state=canceled attempt=1 duration",
            "INFO run dropped: its operation was ended or taken over id=ID"
        ]
    );
    let id = accept(&layer, std::future::pending).await;
    drain.drain(Duration::ZERO).await;
    let interrupted = format!("WARN operation failed {fields}\"urn:tower-operations:interrupted\"");
    assert_eq!(said.of(&id), [interrupted]);
}

#[tokio::test]
async fn the_span_of_a_request_that_is_accepted_learns_the_id_of_its_operation() {
    let said = Said::default();
    let subscriber = tracing_subscriber::registry().with(said.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let operations = Operations::new(MemoryStore::new());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    for mode in [layer.clone(), layer.after(Duration::ZERO)] {
        let span = info_span!("request", operation.id = tracing::field::Empty);
        let id = accept(&mode, std::future::pending).instrument(span).await;
        let lines = said.of(&id);
        assert!(
            lines.contains(&"request records operation.id=ID".into()),
            "{lines:?}"
        );
        // One that does not ask is left alone.
        accept(&mode, std::future::pending)
            .instrument(info_span!("request"))
            .await;
    }
    drain.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_refusal_and_an_error_of_a_poll_have_their_fault_among_their_extensions() {
    let store = MemoryStore::new();
    let layer = Operations::new(store.clone()).max_in_flight(0).layer();
    let service = layer.layer(service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    }));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let refused = service.oneshot(request).await.unwrap();
    let fault = refused.extensions().get::<ApiError>().unwrap();
    assert_eq!(fault.code(), "overloaded");

    let unknown = Request::get("/nothing").body(()).unwrap();
    let polls = PollService::new(store);
    let unknown = polls.oneshot(unknown).await.unwrap();
    let fault = unknown.extensions().get::<ApiError>().unwrap();
    assert_eq!(fault.code(), "not-found");
}
