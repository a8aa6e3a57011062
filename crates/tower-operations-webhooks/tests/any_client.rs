//! Attempts with clients of other kinds, and what is shown of them.

#![cfg(feature = "client")]

mod attempts;
mod receiver;

use std::{
    convert::Infallible,
    future::ready,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tower::{Service, service_fn};
use tower_operations::BoxError;
use tower_operations_webhooks::{
    Attempt, AttemptOutcome, EventBody, FailureReason, Secret, Secrets, Target, TargetError,
    TargetPolicy, WebhookClient,
};

use attempts::{failure, id};
use receiver::{AnswerBody, answer};

fn body() -> EventBody {
    EventBody::json("{}")
}

fn some_target() -> Target {
    TargetPolicy::new()
        .check("https://example.com/k3y?token=s3cret")
        .unwrap()
}

fn attempt() -> Attempt {
    Attempt::new(
        id(),
        some_target(),
        body(),
        Secrets::new(Secret::generate()),
    )
}

/// A client that never becomes ready.
#[derive(Clone)]
struct NeverReady;

impl Service<Request<Full<Bytes>>> for NeverReady {
    type Response = Response<Empty<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        unreachable!("called before it was ready")
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_never_ready_is_a_timeout() {
    let start = tokio::time::Instant::now();
    let outcome = attempt().send(NeverReady).await;
    assert_eq!(failure(outcome), (None, None, FailureReason::Timeout));
    assert_eq!(start.elapsed().as_secs(), 15);
}

#[tokio::test]
async fn errors_of_any_client_are_failures() {
    let refused = service_fn(|_: Request<Full<Bytes>>| {
        let error = std::io::Error::other(TargetError::Address);
        ready(Err::<Response<Empty<Bytes>>, BoxError>(error.into()))
    });
    let outcome = attempt().send(refused).await;
    assert_eq!(failure(outcome), (None, None, FailureReason::Refused));

    let broken = service_fn(|request: Request<Full<Bytes>>| {
        let error = format!("{} failed", request.uri());
        ready(Err::<Response<Empty<Bytes>>, BoxError>(error.into()))
    });
    let outcome = attempt().send(broken).await;
    assert!(!format!("{outcome:?}").contains("s3cret"));
    assert_eq!(failure(outcome), (None, None, FailureReason::Exchange));
}

#[tokio::test]
async fn nothing_public_shows_the_secret_or_the_path_of_the_url() {
    let [secret, old] = [Secret::generate(), Secret::generate()];
    let secrets = Secrets::new(secret.clone()).previous(old.clone());
    let attempt = Attempt::new(id(), some_target(), body(), secrets.clone());
    let refusing =
        WebhookClient::builder().policy(TargetPolicy::new().hosts(["other.example"]).allow_http());
    let builder = format!("{refusing:?}");
    let client = refusing.build().unwrap();
    let uri = some_target().expose_url();
    let request = Request::post(uri).body(Full::default()).unwrap();
    let future = client.clone().call(request);
    let shown = [
        builder,
        format!("{client:?}"),
        format!("{future:?}"),
        format!("{:?}", future.await.unwrap_err()),
        format!("{:?}", attempt.clone().send(client.clone()).await),
        format!("{attempt:?} {attempt:#?}"),
        format!("{secret:?} {secrets:?} {:?}", secret.key_id()),
        format!("{:?} {}", some_target(), some_target()),
        format!("{:?}", "whsec_!".parse::<Secret>()),
        format!("{:?}", secret.expose_secret().parse::<Secret>()),
    ];
    let texts = [&secret, &old].map(|secret| {
        let text = secret.expose_secret();
        text.strip_prefix("whsec_").unwrap().to_owned()
    });
    for shown in shown {
        for hidden in [&texts[0], &texts[1], "s3cret", "k3y"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_body_of_an_answer_changes_nothing() {
    let hanging = |status| {
        service_fn(move |_: Request<Full<Bytes>>| {
            let answer = answer(status).map(|_| AnswerBody::Hanging);
            ready(Ok::<_, Infallible>(answer))
        })
    };
    let start = tokio::time::Instant::now();
    let outcome = attempt().send(hanging(200)).await;
    let status = StatusCode::OK;
    assert_eq!(outcome, AttemptOutcome::Delivered { status });
    assert_eq!(start.elapsed().as_secs(), 15);

    let outcome = attempt().send(hanging(500)).await;
    assert_eq!(failure(outcome), (Some(500), None, FailureReason::Status));
    let outcome = attempt().send(hanging(410)).await;
    assert_eq!(outcome, AttemptOutcome::Gone);
}

#[tokio::test]
async fn an_endless_body_is_read_no_further_than_its_bound() {
    let frames = Arc::<AtomicUsize>::default();
    let read = Arc::clone(&frames);
    let endless = service_fn(move |_: Request<Full<Bytes>>| {
        let body = AnswerBody::Endless(Arc::clone(&read));
        ready(Ok::<_, Infallible>(Response::new(body)))
    });
    attempt().send(endless).await;
    assert_eq!(frames.load(SeqCst), 5);
}
