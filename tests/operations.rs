//! `Operations` creates the layer, the poll service and the recovery from one
//! configuration.

use test_support::hooked;
use test_support::said;

use std::{
    convert::Infallible,
    future::{pending, ready},
    time::Duration,
};

use hooked::{Call, Hooked, When};
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt;
use said::Said;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, HmacOwner, LeaseConfig, MemoryStore, Operations, Owner,
    PollService, RequestBody,
    dialect::{Azure, Ogc},
    store::StoreError,
};
use tracing::Level;

fn header_owner(parts: &Parts) -> Option<Owner> {
    let user = parts.headers.get("x-user")?;
    Some(Owner::new(user.to_str().unwrap()))
}

async fn respond(
    _: Request<RequestBody<BufferedBody>>,
) -> Result<Response<BufferedBody>, Infallible> {
    Ok(Response::new(BufferedBody::from("done")))
}

async fn hang(_: Request<RequestBody<BufferedBody>>) -> Result<Response<BufferedBody>, Infallible> {
    pending().await
}

fn post(user: &str) -> Request<BufferedBody> {
    let request = Request::post("/reports").header("x-user", user);
    request.body(BufferedBody::from("Q3")).unwrap()
}

async fn location(layer: &AsyncAcceptLayer<MemoryStore>) -> String {
    let answer = layer.layer(service_fn(respond)).oneshot(post("ada")).await;
    let answer = answer.unwrap();
    answer.headers()["location"].to_str().unwrap().to_owned()
}

async fn ask(polls: &PollService<MemoryStore>, user: &str, uri: &str) -> (StatusCode, String) {
    let request = Request::get(uri).header("x-user", user).body(()).unwrap();
    let Ok(answer) = polls.clone().oneshot(request).await;
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_layer_and_a_poll_service_share_owner_dialect_and_urls() {
    let operations = Operations::new(MemoryStore::new())
        .owner(HmacOwner::new("a key", header_owner))
        .dialect(Azure::default())
        .public_path("/api/v1/operations")
        .public_url("https://api.example.com")
        .unwrap();
    let polls = operations.poll_service();
    let answer = operations
        .layer()
        .layer(service_fn(respond))
        .oneshot(post("ada"))
        .await
        .unwrap();
    let url = answer.headers()["operation-location"].to_str().unwrap();
    let id = url.strip_prefix("https://api.example.com/api/v1/operations/");
    let id = id.unwrap().to_owned();
    let (status, body) = ask(&polls, "ada", &format!("/{id}")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\"createdDateTime\""), "{body}");
    let (status, body) = ask(&polls, "bob", &format!("/{id}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("\"error\""), "{body}");
}

#[tokio::test]
async fn a_closure_extracts_the_owner() {
    let operations =
        Operations::new(Hooked::new(MemoryStore::new(), |_, _| ready(Ok(())))).owner(header_owner);
    let answer = operations
        .layer()
        .layer(service_fn(respond))
        .oneshot(post("ada"));
    let answer = answer.await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap();
    let polls = operations.poll_service();
    for (user, status) in [("ada", 200), ("bob", 404)] {
        let request = Request::get(location).header("x-user", user);
        let Ok(answer) = polls.clone().oneshot(request.body(()).unwrap()).await;
        assert_eq!(answer.status(), status, "{user}");
    }
}

#[tokio::test]
async fn a_setter_on_a_clone_leaves_the_original_unchanged() {
    let operations = Operations::new(MemoryStore::new());
    let other = operations
        .clone()
        .public_path("/jobs")
        .dialect(Ogc::default());
    assert!(
        location(&operations.layer())
            .await
            .starts_with("/operations/")
    );
    assert!(location(&other.layer()).await.starts_with("/jobs/"));
    // Both have the same store.
    let location = location(&other.layer()).await;
    let id = location.rsplit('/').next().unwrap();
    let (status, body) = ask(&operations.poll_service(), "ada", &format!("/{id}")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\"state\":"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_bound_set_on_a_clone_of_a_poll_service_applies_to_that_clone() {
    let operations = Operations::new(MemoryStore::new());
    let layer = operations.layer();
    let answer = layer.layer(service_fn(hang)).oneshot(post("ada")).await;
    let location = answer.unwrap().headers()["location"]
        .to_str()
        .unwrap()
        .to_owned();
    let polls = operations.poll_service();
    let without_held_polls = polls.clone().max_held(0);
    let uri = format!("{location}?wait=5");
    for (polls, seconds) in [(&without_held_polls, 0), (&polls, 5)] {
        let start = Instant::now();
        ask(polls, "ada", &uri).await;
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
}

#[tokio::test]
async fn clones_layers_and_handles_share_the_bound_on_operations_in_flight() {
    let operations = Operations::new(MemoryStore::new()).max_in_flight(2);
    let clone = operations.clone();
    let (first, second) = (operations.layer(), clone.layer());
    for layer in [&first, &second] {
        let answer = layer.layer(service_fn(hang)).oneshot(post("ada")).await;
        assert_eq!(answer.unwrap().status(), StatusCode::ACCEPTED);
    }
    let refused = first.layer(service_fn(hang)).oneshot(post("ada")).await;
    assert_eq!(refused.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (
            operations.in_flight().operations,
            clone.drain_handle().in_flight().operations
        ),
        (2, 2)
    );
    let report = clone.drain(Duration::ZERO).await;
    assert_eq!(report.interrupted.len(), 2);
    assert_eq!(operations.in_flight().operations, 0);
}

#[tokio::test]
async fn a_setting_of_the_node_panics_after_a_layer_is_created() {
    for set in [
        |operations: Operations<MemoryStore>| operations.lease(LeaseConfig::default()),
        |operations: Operations<MemoryStore>| operations.max_in_flight(1),
        |operations: Operations<MemoryStore>| operations.max_in_flight_per_owner(1),
        |operations: Operations<MemoryStore>| operations.owner(header_owner),
    ] {
        let operations = set(Operations::new(MemoryStore::new()));
        let _layer = operations.layer();
        let late = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| set(operations)));
        assert!(late.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn drain_on_completes_after_its_signal_and_the_drain() {
    let operations = Operations::new(MemoryStore::new());
    let (signal, signal_receiver) = oneshot::channel::<()>();
    let stop = operations.drain_on(
        async { drop(signal_receiver.await) },
        Duration::from_secs(25),
    );
    let stop = tokio::spawn(stop);
    let slow = service_fn(|request| async {
        sleep(Duration::from_secs(10)).await;
        respond(request).await
    });
    let answer = operations.layer().layer(slow).oneshot(post("ada")).await;
    let location = answer.unwrap().headers()["location"]
        .to_str()
        .unwrap()
        .to_owned();
    sleep(Duration::from_secs(1)).await;
    assert!(!stop.is_finished());
    signal.send(()).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(!stop.is_finished(), "an operation is running");
    let (status, _) = ask(&operations.poll_service(), "ada", &location).await;
    assert_eq!(status, StatusCode::OK, "polls are answered meanwhile");
    stop.await.unwrap();
    let (_, body) = ask(&operations.poll_service(), "ada", &location).await;
    assert!(body.contains("\"state\":\"succeeded\""), "{body}");
}

#[tokio::test]
async fn a_ping_reads_the_store() {
    let operations = Operations::new(MemoryStore::new());
    assert!(operations.ping().await.unwrap().is_good());
    let unavailable_store = Hooked::new(MemoryStore::new(), |call, when| {
        ready(match (call, when) {
            (Call::Get, When::Before) => Err(StoreError::unavailable("it is away")),
            _ => Ok(()),
        })
    });
    assert!(
        Operations::new(unavailable_store)
            .ping()
            .await
            .unwrap_err()
            .is_transient()
    );
}

#[cfg(feature = "axum")]
mod nested {
    use axum::{Router, body::Body, routing::post};

    use super::*;

    /// Returns the ERROR events of requests to this path and of a poll of the last
    /// operation, and the status of the poll.
    async fn logged_errors(
        operations: Operations<MemoryStore>,
        prefix: &str,
    ) -> (Vec<String>, StatusCode) {
        let inner = Router::new()
            .route(
                "/reports",
                post(async || "done").route_layer(operations.layer()),
            )
            .nest_service("/operations", operations.poll_service());
        let mut app = match prefix {
            "" => inner,
            prefix => Router::new().nest(prefix, inner),
        };
        let (logged_errors, _guard) = Said::from(Level::ERROR);
        let mut ask = async |method: &str, uri: &str| {
            let request = Request::builder().method(method).uri(uri);
            app.call(request.body(Body::empty()).unwrap())
                .await
                .unwrap()
        };
        for _ in 0..2 {
            let answer = ask("POST", &format!("{prefix}/reports")).await;
            assert_eq!(answer.status(), StatusCode::ACCEPTED);
        }
        let answer = ask("POST", &format!("{prefix}/reports")).await;
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let answer = ask("GET", &location).await;
        (logged_errors.take(), answer.status())
    }

    #[tokio::test]
    async fn the_first_request_below_a_nested_router_logs_the_wrong_location() {
        let (logged_errors, status) =
            logged_errors(Operations::new(MemoryStore::new()), "/api/v1").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "the location is wrong");
        assert_eq!(logged_errors.len(), 1, "{logged_errors:?}");
        assert!(
            logged_errors[0].contains("/api/v1") && logged_errors[0].contains("public_path"),
            "{logged_errors:?}"
        );
    }

    #[tokio::test]
    async fn the_location_below_a_nested_router_is_right_with_the_public_path() {
        let operations = Operations::new(MemoryStore::new()).public_path("/api/v1/operations");
        let (logged_errors, status) = logged_errors(operations, "/api/v1").await;
        assert_eq!((logged_errors, status), (vec![], StatusCode::OK));
        let (logged_errors, status) =
            super::nested::logged_errors(Operations::new(MemoryStore::new()), "").await;
        assert_eq!((logged_errors, status), (vec![], StatusCode::OK));
    }

    #[tokio::test]
    async fn the_first_poll_at_an_unexpected_mount_point_is_logged() {
        let operations = Operations::new(MemoryStore::new());
        let app = Router::<()>::new().nest_service("/jobs", operations.poll_service());
        let (logged_errors, _guard) = Said::from(Level::ERROR);
        for _ in 0..2 {
            let request = Request::get("/jobs/q3").body(Body::empty()).unwrap();
            let answer = app.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        }
        let logged_errors = logged_errors.take();
        assert_eq!(logged_errors.len(), 1, "{logged_errors:?}");
        assert!(
            logged_errors[0].contains("/jobs") && logged_errors[0].contains("public_path"),
            "{logged_errors:?}"
        );
    }

    #[tokio::test]
    async fn polls_pass_through_a_layer_around_a_nested_application() {
        let operations = Operations::new(MemoryStore::new()).public_path("/api/v1/operations");
        let inner = Router::new()
            .route("/reports", post(async || "done"))
            .nest_service("/operations", operations.poll_service());
        let app = Router::<()>::new().nest_service("/api/v1", operations.layer().layer(inner));
        let ask = async |method: &str, uri: &str| {
            let request = Request::builder().method(method).uri(uri);
            app.clone()
                .oneshot(request.body(Body::empty()).unwrap())
                .await
                .unwrap()
        };
        let answer = ask("POST", "/api/v1/reports").await;
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        // A cancel passes through, without an operation of its own.
        let answer = ask("DELETE", &location).await;
        assert_ne!(answer.status(), StatusCode::ACCEPTED);
    }
}
