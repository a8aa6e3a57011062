//! Events about one operation have its id, wherever they come from.

use std::{
    pin::Pin,
    task::{Context as Polled, Poll},
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

/// A body of unknown length, which ends or breaks off.
struct Unannounced(Option<Result<usize, &'static str>>);

impl Body for Unannounced {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Polled<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let data = |bytes| Frame::data(Bytes::from(vec![b'x'; bytes]));
        Poll::Ready(self.0.take().map(|frame| frame.map(data)))
    }
}

/// The events at `WARN` or above, all of which have an id.
fn all_with_id(said: &Said) -> Vec<String> {
    let lines = std::mem::take(&mut *said.0.lock().unwrap());
    let lines = lines.into_iter();
    let lines = lines.filter(|line| line.starts_with("ERROR") || line.starts_with("WARN"));
    let lines: Vec<_> = lines.collect();
    for line in &lines {
        assert!(line.contains(" id="), "{line}");
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_recorded_is_logged_with_the_id_of_its_operation() {
    let said = Said::default();
    let subscriber = tracing_subscriber::registry().with(said.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let layer = AsyncAcceptLayer::new(MemoryStore::new()).result_limit(100);
    let layer = layer.idempotency(Idempotency::optional());
    for (kind, message) in [
        ("large", "ERROR the response is too large to be kept"),
        ("broken", "ERROR the inner service returned an error"),
        (
            "switching",
            "ERROR the inner service gave no final response",
        ),
    ] {
        for mode in ["always", "after", "answered first"] {
            let layer = match mode {
                "always" => layer.clone(),
                "after" => layer.clone().after(Duration::from_secs(1)),
                _ => layer.clone().after(Duration::from_secs(60)),
            };
            let inner = service_fn(move |_: Request<RequestBody<BufferedBody>>| async move {
                sleep(Duration::from_secs(2)).await;
                let mut response = Response::new(Unannounced(match kind {
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
            let lines = all_with_id(&said);
            let is_logged = lines.iter().any(|line| line.starts_with(message));
            assert!(is_logged, "{kind} {mode}: {lines:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_asked_again_is_logged_with_the_id_of_the_operation() {
    let said = Said::default();
    let subscriber = tracing_subscriber::registry().with(said.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    for call in [Call::Create, Call::Start, Call::Finish] {
        let tries = Arc::new(Mutex::new(0));
        let store = Hooked::new(MemoryStore::new(), move |asked, when| {
            let fails = (asked, when) == (call, When::Before) && {
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
        let id = accept_by(&layer, async |_| Ok(Response::default())).await;
        sleep(Duration::from_secs(60)).await;
        let lines = all_with_id(&said);
        let again = format!("WARN the store did not answer; trying again id={id} ");
        let again = lines.iter().filter(|line| line.starts_with(&again));
        assert_eq!(again.count(), 2, "{call:?}: {lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_store_is_a_warning_once_a_minute() {
    let said = Said::default();
    let subscriber = tracing_subscriber::registry().with(said.clone());
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
    let used_up = Hooked::new(MemoryStore::new(), |call, _| {
        std::future::ready(match call {
            Call::Create => Err(StoreError::FullForOwner),
            _ => Ok(()),
        })
    });
    for (store, expected) in [(full, 2), (used_up, 0)] {
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
        let lines = std::mem::take(&mut *said.0.lock().unwrap());
        let is_loud = |line: &&String| line.starts_with("ERROR") || line.starts_with("WARN");
        let loud: Vec<_> = lines.iter().filter(is_loud).collect();
        assert_eq!(loud.len(), expected, "{loud:?}");
        let is_warning = |line: &&String| line.starts_with("WARN the store is full");
        assert!(loud.iter().all(is_warning), "{loud:?}");
    }
}
