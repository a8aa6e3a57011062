//! The span of an operation, as a subscriber sees it.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tower::{Layer as _, ServiceExt, service_fn};
use tower_operations::{AsyncAcceptLayer, MemoryStore, RequestBody, WholeBody};
use tracing::{Instrument, Subscriber, info_span, span};
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
    let (layer, drain) = AsyncAcceptLayer::with_drain(MemoryStore::new());
    let service = layer.layer(service_fn(|_: Request<RequestBody<WholeBody>>| async {
        tracing::info!(target: "handler", "at work");
        Ok::<_, Infallible>(Response::new(WholeBody::default()))
    }));
    let request = Request::post("/").body(WholeBody::default()).unwrap();
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
