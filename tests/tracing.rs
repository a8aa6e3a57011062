//! Spans and log events of operations, as a subscriber gets them.

use test_support::{hooked, ready_later::ReadyLater};
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

/// Records which span follows from which, and the spans of each event.
#[derive(Clone, Default)]
struct SpanLog(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLog {
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
async fn the_span_of_an_operation_follows_from_the_span_of_its_request() {
    let log = SpanLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
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
        *log.0.lock().unwrap(),
        [
            "operation follows request, inside None",
            "the handler is in [\"operation\"]"
        ]
    );
}

/// Records events, and fields recorded on spans later: `LEVEL message {fields}`.
#[derive(Clone, Default)]
struct EventLog(Arc<Mutex<Vec<String>>>);

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // The value depends on the clock.
            "duration" => self.others.push("duration".into()),
            name => self.others.push(format!("{name}={value:?}")),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for EventLog {
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

impl EventLog {
    /// Takes the events at `INFO` or above, with the id of the operation as `ID`.
    fn events_of(&self, id: &OperationId) -> Vec<String> {
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

/// Sends a request that is accepted. Returns the id from the extensions of its 202.
async fn accept<F>(
    layer: &AsyncAcceptLayer<MemoryStore>,
    inner: impl Fn() -> F + Clone + Send + 'static,
) -> OperationId
where
    F: Future<Output = Inner> + Send,
{
    accept_with(layer, move |_| inner()).await
}

/// Like `accept`, for a service that gets its request, and for any store.
async fn accept_with<R, F>(
    layer: &AsyncAcceptLayer<R>,
    inner: impl Fn(Request<RequestBody<BufferedBody>>) -> F + Clone + Send + 'static,
) -> OperationId
where
    R: Lease<Output = RecordedResponse>,
    F: Future<Output = Inner> + Send,
{
    let service = layer.layer(ReadyLater::new(service_fn(inner)));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 202);
    let id = response.extensions().get::<OperationId>().unwrap().clone();
    let location = response.headers()["location"].to_str().unwrap();
    assert_eq!(location, format!("/operations/{id}"));
    id
}

#[tokio::test(start_paused = true)]
async fn an_end_is_logged_once_and_as_a_warning_unless_the_service_answered() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    let layer = layer
        .operation_name("report")
        .running_timeout(Duration::from_secs(5));
    let events_after_end = async |id: &OperationId| {
        tokio::time::sleep(Duration::from_secs(10)).await;
        log.events_of(id)
    };

    let id = accept(&layer, async || Ok(Response::default())).await;
    assert_eq!(
        events_after_end(&id).await,
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
    assert_eq!(events_after_end(&id).await, [failed]);

    let id = accept(&layer, async || panic!("page {} is missing", 3)).await;
    let panicked = format!("WARN operation failed {fields}\"urn:tower-operations:panicked\"");
    let panic = "ERROR handler panicked id=ID panic=\"page 3 is missing\"";
    assert_eq!(events_after_end(&id).await, [panic, &panicked]);
    let id = accept(&layer, async || Err("no paper")).await;
    let error = format!("WARN operation failed {fields}\"urn:tower-operations:inner-error\"");
    let returned = "ERROR the inner service returned an error id=ID error=no paper";
    assert_eq!(events_after_end(&id).await, [returned, &error]);
    let id = accept(&layer, std::future::pending).await;
    let late = format!("WARN operation failed {fields}\"urn:tower-operations:timed-out\"");
    assert_eq!(events_after_end(&id).await, [late]);

    // In after mode the same call continues.
    let after = layer.clone().after(Duration::from_secs(1));
    let id = accept(&after, async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        panic!("no page is there")
    })
    .await;
    let panic = "ERROR handler panicked id=ID panic=\"no page is there\"";
    assert_eq!(events_after_end(&id).await, [panic, &panicked]);

    let id = accept(&layer, std::future::pending).await;
    tokio::task::yield_now().await;
    let delete = Request::delete(format!("/{id}")).body(()).unwrap();
    let canceled = PollService::new(store).oneshot(delete).await.unwrap();
    assert_eq!(canceled.status(), 200);
    assert_eq!(
        events_after_end(&id).await,
        [
            "INFO operation canceled id=ID name=\"report\" state=canceled attempt=1 duration",
            "INFO lease lost, run dropped id=ID"
        ]
    );
    let id = accept(&layer, std::future::pending).await;
    drain.drain(Duration::ZERO).await;
    let interrupted = format!("WARN operation failed {fields}\"urn:tower-operations:interrupted\"");
    assert_eq!(log.events_of(&id), [interrupted]);
}

#[tokio::test]
async fn the_span_of_an_accepted_request_records_the_operation_id() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let operations = Operations::new(MemoryStore::new());
    let (layer, drain) = (operations.layer(), operations.drain_handle());
    for mode in [layer.clone(), layer.after(Duration::ZERO)] {
        let span = info_span!("request", operation.id = tracing::field::Empty);
        let id = accept(&mode, std::future::pending).instrument(span).await;
        let lines = log.events_of(&id);
        assert!(
            lines.contains(&"request records operation.id=ID".into()),
            "{lines:?}"
        );
        // A span without the field records nothing.
        accept(&mode, std::future::pending)
            .instrument(info_span!("request"))
            .await;
    }
    drain.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn refusals_and_poll_errors_have_an_api_error_extension() {
    let store = MemoryStore::new();
    let layer = Operations::new(store.clone()).max_in_flight(0).layer();
    let service = layer.layer(service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    }));
    let request = Request::post("/").body(BufferedBody::default()).unwrap();
    let refused = service.oneshot(request).await.unwrap();
    let error = refused.extensions().get::<ApiError>().unwrap();
    assert_eq!(error.code(), "overloaded");

    let unknown = Request::get("/nothing").body(()).unwrap();
    let polls = PollService::new(store);
    let unknown = polls.oneshot(unknown).await.unwrap();
    let error = unknown.extensions().get::<ApiError>().unwrap();
    assert_eq!(error.code(), "not-found");
}
