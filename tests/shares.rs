//! Shares of owners in common bounds: no owner uses up what others need.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Idempotency, MemoryStore, OperationHandle, OperationId,
    Operations,
    dialect::{
        ApiError, Arm, Azure, Bound, Dialect, DurableFunctions, Fhir, Google, Ipa, OData, Ogc,
        Plain,
    },
    store::{NewOperation, Owner, Repository},
};

fn header_owner(parts: &Parts) -> Option<Owner> {
    let user = parts.headers.get("x-user")?;
    Some(Owner::new(user.to_str().unwrap()))
}

/// A request body that never ends.
struct EndlessBody;

impl Body for EndlessBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn request<B>(user: Option<&str>, uri: &str, body: B) -> Request<B> {
    let mut request = Request::builder().method("POST").uri(uri);
    if let Some(user) = user {
        request = request.header("x-user", user);
    }
    request.body(body).unwrap()
}

fn get(user: Option<&str>, uri: &str) -> Request<()> {
    let mut request = request(user, uri, ());
    *request.method_mut() = http::Method::GET;
    request
}

/// Polls once. Returns the output if it is ready.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Asserts a 503 with this title and with `retry-after`.
async fn assert_refused<B>(response: Response<B>, title: &str)
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(body.contains(&format!("\"{title}\"")), "{body}");
}

#[tokio::test(start_paused = true)]
async fn incomplete_bodies_of_one_owner_block_no_other_owner() {
    let operations = Operations::new(MemoryStore::new())
        .max_in_flight(8)
        .owner(header_owner);
    let inner = service_fn(async |_| Ok::<_, Infallible>(Response::new(BufferedBody::default())));
    for (user, other) in [
        (Some("ada"), Some("bob")),
        (None, Some("ada")),
        (Some("ada"), None),
    ] {
        let service = operations.layer().layer(inner);
        let send = |user| service.clone().oneshot(request(user, "/", EndlessBody));
        let mut first = Box::pin(send(user));
        let mut second = Box::pin(send(user));
        assert!(poll_once(first.as_mut()).is_none() && poll_once(second.as_mut()).is_none());
        let title = "Too many operations are in flight for this owner";
        assert_refused(send(user).await.unwrap(), title).await;
        let mut other_request = Box::pin(send(other));
        assert!(
            poll_once(other_request.as_mut()).is_none(),
            "the request is refused"
        );
        drop(first);
        assert!(
            poll_once(pin!(send(user))).is_none(),
            "no permit was released"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn operations_in_flight_count_until_they_have_ended() {
    let hour = Duration::from_secs(3600);
    let inner = service_fn(move |_| async move {
        tokio::time::sleep(hour).await;
        Ok::<_, Infallible>(Response::new(BufferedBody::default()))
    });
    let layer = Operations::new(MemoryStore::new())
        .max_in_flight_per_owner(3)
        .owner(header_owner)
        .layer()
        .running_timeout(2 * hour);
    let service = layer.layer(inner);
    let send = |user| {
        let request = request(Some(user), "/", BufferedBody::default());
        service.clone().oneshot(request)
    };
    for _ in 0..3 {
        assert_eq!(send("ada").await.unwrap().status(), StatusCode::ACCEPTED);
    }
    let title = "Too many operations are in flight for this owner";
    assert_refused(send("ada").await.unwrap(), title).await;
    assert_eq!(send("bob").await.unwrap().status(), StatusCode::ACCEPTED);
    tokio::time::sleep(hour + Duration::from_secs(1)).await;
    assert_eq!(send("ada").await.unwrap().status(), StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn requests_without_owners_have_no_shares() {
    let layer = Operations::new(MemoryStore::new()).max_in_flight(4).layer();
    let inner = service_fn(async |_| Ok::<_, Infallible>(Response::new(BufferedBody::default())));
    let service = layer.layer(inner);
    let send = || Box::pin(service.clone().oneshot(request(None, "/", EndlessBody)));
    let mut futures: Vec<_> = (0..4).map(|_| send()).collect();
    for one in &mut futures {
        assert!(poll_once(one.as_mut()).is_none());
    }
    assert_refused(send().await.unwrap(), "Too many operations are in flight").await;
}

/// A service with this layer whose handler never ends.
macro_rules! endless {
    ($layer:expr) => {
        $layer.layer(service_fn(async |_| {
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(BufferedBody::default()))
        }))
    };
}

#[tokio::test(start_paused = true)]
async fn one_owner_cannot_fill_the_store_for_others() {
    let title = "The store has no more room for this owner";
    for (user, other) in [
        (Some("ada"), Some("bob")),
        (None, Some("ada")),
        (Some("ada"), None),
    ] {
        for has_key in [false, true] {
            let store = MemoryStore::new().max_operations(8);
            let layer = Operations::new(store.clone())
                .owner(header_owner)
                .layer()
                .idempotency(Idempotency::optional());
            let service = endless!(layer);
            let send = |user, key: usize| {
                let mut request = request(user, "/", BufferedBody::default());
                if has_key {
                    let key = format!("\"order {key}\"").parse().unwrap();
                    request.headers_mut().insert("idempotency-key", key);
                }
                service.clone().oneshot(request)
            };
            for key in 0..2 {
                assert_eq!(
                    send(user, key).await.unwrap().status(),
                    StatusCode::ACCEPTED
                );
            }
            assert_refused(send(user, 2).await.unwrap(), title).await;
            if has_key {
                let repetition = send(user, 1).await.unwrap();
                assert_eq!(
                    repetition.status(),
                    StatusCode::ACCEPTED,
                    "a repetition needs no room"
                );
            }
            assert_eq!(send(other, 0).await.unwrap().status(), StatusCode::ACCEPTED);
            assert_eq!(store.len(), 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_owner_cannot_use_up_the_bytes_of_others() {
    let respond = |bytes| {
        let body = BufferedBody::from("x".repeat(bytes));
        Ok::<_, Infallible>(Response::new(body))
    };
    let store = MemoryStore::new().max_bytes(400_000);
    let layer = Operations::new(store.clone()).owner(header_owner).layer();
    let service = layer.layer(service_fn(move |_| async move { respond(60_000) }));
    let send = |user| {
        let request = request(Some(user), "/", BufferedBody::default());
        service.clone().oneshot(request)
    };
    for _ in 0..2 {
        assert_eq!(send("ada").await.unwrap().status(), StatusCode::ACCEPTED);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let title = "The store has no more room for this owner";
    assert_refused(send("ada").await.unwrap(), title).await;
    assert_eq!(send("bob").await.unwrap().status(), StatusCode::ACCEPTED);
    tokio::time::sleep(Duration::from_secs(60)).await;
    // The oldest operation of the same owner is evicted.
    assert_eq!(send("ada").await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(store.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_share_of_the_store_is_configurable() {
    let store = MemoryStore::new()
        .max_operations(8)
        .max_operations_per_owner(3)
        .max_bytes_per_owner(usize::MAX);
    let service = endless!(Operations::new(store).owner(header_owner).layer());
    let send = || {
        let request = request(Some("ada"), "/", BufferedBody::default());
        service.clone().oneshot(request)
    };
    for _ in 0..3 {
        assert_eq!(send().await.unwrap().status(), StatusCode::ACCEPTED);
    }
    let title = "The store has no more room for this owner";
    assert_refused(send().await.unwrap(), title).await;
}

#[tokio::test(start_paused = true)]
async fn requests_without_owners_have_no_shares_of_the_store() {
    let store = MemoryStore::new().max_operations(4);
    let service = endless!(AsyncAcceptLayer::new(store));
    let send = || {
        let request = request(None, "/", BufferedBody::default());
        service.clone().oneshot(request)
    };
    for _ in 0..4 {
        assert_eq!(send().await.unwrap().status(), StatusCode::ACCEPTED);
    }
    assert_refused(send().await.unwrap(), "The store has no more room").await;
}

#[tokio::test(start_paused = true)]
async fn a_full_store_is_named_in_every_mode() {
    let full = || {
        let store = MemoryStore::new().max_operations(1);
        let inner = service_fn(async |request: Request<_>| {
            let operation = OperationHandle::from_extensions(request.extensions());
            let accepted = operation.accept().await;
            let mut response = Response::new(BufferedBody::default());
            if let Err(not_accepted) = accepted {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response.extensions_mut().insert(not_accepted);
                return Ok(response);
            }
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(response)
        });
        (AsyncAcceptLayer::new(store), inner)
    };
    let title = "The store has no more room";
    for has_key in [false, true] {
        let post = || {
            let mut request = request(None, "/", BufferedBody::default());
            if has_key {
                let key = format!("\"{}\"", OperationId::new()).parse().unwrap();
                request.headers_mut().insert("idempotency-key", key);
            }
            request
        };
        for mode in ["always", "signaled"] {
            let (layer, inner) = full();
            let layer = layer.idempotency(Idempotency::optional());
            let layer = match mode {
                "signaled" => layer.when_signaled(),
                _ => layer,
            };
            let service = layer.layer(inner);
            let first = service.clone().oneshot(post()).await.unwrap();
            assert_eq!(first.status(), StatusCode::ACCEPTED, "{mode}");
            let start = tokio::time::Instant::now();
            assert_refused(service.clone().oneshot(post()).await.unwrap(), title).await;
            assert_eq!(
                start.elapsed(),
                Duration::ZERO,
                "{mode}: the refusal is immediate"
            );
        }
    }
}

/// Creates a pending operation of `owner`.
async fn create_pending(store: &MemoryStore, owner: &str) -> OperationId {
    let new = NewOperation::new(OperationId::new()).with_owner(Some(Owner::new(owner)));
    let id = new.id.clone();
    store.create(new).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn event_streams_of_one_owner_block_no_other_owner() {
    let store = MemoryStore::new();
    let (adas, bobs) = (
        create_pending(&store, "ada").await,
        create_pending(&store, "bob").await,
    );
    let polls = Operations::new(store)
        .owner(header_owner)
        .poll_service()
        .max_streams(8);
    let open = |user, id: &OperationId| {
        polls
            .clone()
            .oneshot(get(Some(user), &format!("/{id}/events")))
    };
    let first = open("ada", &adas).await.unwrap();
    let second = open("ada", &adas).await.unwrap();
    assert_eq!([first.status(), second.status()], [StatusCode::OK; 2]);
    let title = "Too many event streams are open for this owner";
    assert_refused(open("ada", &adas).await.unwrap(), title).await;
    let other = open("bob", &bobs).await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    drop(first);
    assert_eq!(open("ada", &adas).await.unwrap().status(), StatusCode::OK);

    let polls = polls.clone().max_streams_per_owner(9).max_streams(1);
    let follow = || {
        polls
            .clone()
            .oneshot(get(Some("ada"), &format!("/{adas}/events")))
    };
    let only = follow().await.unwrap();
    assert_eq!(only.status(), StatusCode::OK);
    assert_refused(follow().await.unwrap(), "Too many event streams are open").await;
}

#[tokio::test(start_paused = true)]
async fn held_polls_of_one_owner_block_no_other_owner() {
    let store = MemoryStore::new();
    let (adas, bobs) = (
        create_pending(&store, "ada").await,
        create_pending(&store, "bob").await,
    );
    let polls = Operations::new(store)
        .owner(header_owner)
        .poll_service()
        .max_held(8);
    let wait = |user, id: &OperationId| {
        Box::pin(
            polls
                .clone()
                .oneshot(get(Some(user), &format!("/{id}?wait=30"))),
        )
    };
    let mut held_polls = [wait("ada", &adas), wait("ada", &adas)];
    for one in &mut held_polls {
        assert!(poll_once(one.as_mut()).is_none());
    }
    let answer = poll_once(wait("ada", &adas).as_mut()).expect("the poll is answered at once");
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    assert!(poll_once(wait("bob", &bobs).as_mut()).is_none());
    drop(held_polls);
    assert!(poll_once(wait("ada", &adas).as_mut()).is_none());
    let polls = polls.clone().max_held_per_owner(0);
    let mut wait = Box::pin(polls.oneshot(get(Some("bob"), &format!("/{bobs}?wait=30"))));
    assert!(poll_once(wait.as_mut()).is_some());
}

#[tokio::test]
async fn every_dialect_names_the_bound_that_was_reached() {
    let dialects: [Box<dyn Dialect>; 9] = [
        Box::new(Plain::default()),
        Box::new(Azure::default()),
        Box::new(Arm::default()),
        Box::new(Google::default()),
        Box::new(OData::default()),
        Box::new(Fhir::default()),
        Box::new(Ogc::default()),
        Box::new(DurableFunctions::default()),
        Box::new(Ipa::default()),
    ];
    let bounds = [
        (Bound::InFlight, "Too many operations are in flight"),
        (
            Bound::InFlightPerOwner,
            "Too many operations are in flight for this owner",
        ),
        (Bound::BytesInFlight, "Too many bytes are in flight"),
        (
            Bound::BytesInFlightPerOwner,
            "Too many bytes are in flight for this owner",
        ),
        (Bound::Store, "The store has no more room"),
        (
            Bound::StorePerOwner,
            "The store has no more room for this owner",
        ),
        (Bound::Streams, "Too many event streams are open"),
        (
            Bound::StreamsPerOwner,
            "Too many event streams are open for this owner",
        ),
    ];
    for dialect in dialects {
        for (bound, title) in bounds {
            let fault = ApiError::Overloaded {
                bound,
                retry_after: Duration::from_secs(7),
            };
            let response = dialect.error(&fault);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(body.contains(&format!("{title}\"")), "{dialect:?}: {body}");
        }
    }
}
