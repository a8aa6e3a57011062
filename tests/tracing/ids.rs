//! Log events about one operation have its id.

use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use http::{StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower_operations::{
    Idempotency, Operations,
    store::{Owner, StoreError},
};

use super::{
    hooked::{Call, Hooked, When},
    *,
};

/// A body of unknown length that ends or fails.
struct UnsizedBody(Option<Result<usize, &'static str>>);

impl Body for UnsizedBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let data = |bytes| Frame::data(Bytes::from(vec![b'x'; bytes]));
        Poll::Ready(self.0.take().map(|frame| frame.map(data)))
    }
}

/// Takes the events at `WARN` or above, each of which must have an id.
fn warnings_with_id(log: &EventLog) -> Vec<String> {
    let lines = std::mem::take(&mut *log.0.lock().unwrap());
    let lines = lines.into_iter();
    let lines = lines.filter(|line| line.starts_with("ERROR") || line.starts_with("WARN"));
    let lines: Vec<_> = lines.collect();
    for line in &lines {
        assert!(line.contains(" id="), "{line}");
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn an_unrecordable_response_is_logged_with_the_id_of_its_operation() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let layer = AsyncAcceptLayer::new(MemoryStore::new()).result_limit(100);
    let layer = layer.idempotency(Idempotency::optional());
    for (kind, message) in [
        ("large", "ERROR response above the limit, not recorded"),
        ("broken", "ERROR the inner service returned an error"),
        ("switching", "ERROR response is not final, request failed"),
    ] {
        for mode in ["always", "after", "answered first"] {
            let layer = match mode {
                "always" => layer.clone(),
                "after" => layer.clone().after(Duration::from_secs(1)),
                _ => layer.clone().after(Duration::from_secs(60)),
            };
            let inner = service_fn(move |_: Request<RequestBody<BufferedBody>>| async move {
                sleep(Duration::from_secs(2)).await;
                let mut response = Response::new(UnsizedBody(match kind {
                    "large" => Some(Ok(101)),
                    "broken" => Some(Err("the printer is out of paper")),
                    _ => None,
                }));
                if kind == "switching" {
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    *response.version_mut() = Version::HTTP_11;
                }
                Ok::<_, Infallible>(response)
            });
            let service = layer.layer(inner);
            let key = format!("\"{}\"", OperationId::new());
            let request = Request::post("/").header("idempotency-key", key);
            let request = request.body(BufferedBody::default()).unwrap();
            let answer = service.oneshot(request).await.unwrap();
            let _ = answer.into_body().collect().await;
            sleep(Duration::from_secs(10)).await;
            let lines = warnings_with_id(&log);
            let is_logged = lines.iter().any(|line| line.starts_with(message));
            assert!(is_logged, "{kind} {mode}: {lines:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_the_store_is_logged_with_the_id_of_the_operation() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    for call in [Call::Create, Call::Start, Call::Finish] {
        let tries = Arc::new(Mutex::new(0));
        let store = Hooked::new(MemoryStore::new(), move |actual, when| {
            let fails = (actual, when) == (call, When::Before) && {
                let mut tries = tries.lock().unwrap();
                *tries += 1;
                *tries <= 2
            };
            std::future::ready(match fails {
                true => Err(StoreError::unavailable("no connection")),
                false => Ok(()),
            })
        });
        let layer = AsyncAcceptLayer::new(store);
        let id = accept_with(&layer, async |_| Ok(Response::default())).await;
        sleep(Duration::from_secs(60)).await;
        let lines = warnings_with_id(&log);
        let prefix = format!("WARN store unavailable, retrying id={id} ");
        let retries = lines.iter().filter(|line| line.starts_with(&prefix));
        assert_eq!(retries.count(), 2, "{call:?}: {lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_store_is_a_warning_once_per_minute() {
    let log = EventLog::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let owner = |parts: &http::request::Parts| {
        let user = parts.headers.get("x-user")?.to_str().ok()?;
        Some(Owner::new(user))
    };
    let full = Hooked::new(MemoryStore::new(), |call, _| {
        std::future::ready(match call {
            Call::Create => Err(StoreError::Full),
            _ => Ok(()),
        })
    });
    let full_for_owner = Hooked::new(MemoryStore::new(), |call, _| {
        std::future::ready(match call {
            Call::Create => Err(StoreError::FullForOwner),
            _ => Ok(()),
        })
    });
    for (store, expected) in [(full, 2), (full_for_owner, 0)] {
        let layer = Operations::new(store).owner(owner).layer();
        let service = layer.layer(service_fn(async |_: Request<RequestBody<BufferedBody>>| {
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        }));
        for second in 0..90 {
            let request = Request::post("/").header("x-user", ["ada", "bob"][second % 2]);
            let request = request.body(BufferedBody::default()).unwrap();
            assert_eq!(
                service.clone().oneshot(request).await.unwrap().status(),
                503
            );
            sleep(Duration::from_secs(1)).await;
        }
        let lines = std::mem::take(&mut *log.0.lock().unwrap());
        let is_loud = |line: &&String| line.starts_with("ERROR") || line.starts_with("WARN");
        let loud: Vec<_> = lines.iter().filter(is_loud).collect();
        assert_eq!(loud.len(), expected, "{loud:?}");
        let is_warning = |line: &&String| line.starts_with("WARN store full");
        assert!(loud.iter().all(is_warning), "{loud:?}");
    }
}
