//! Responses that are not final (RFC 9110, section 15.2), or whose status does not
//! exist, are errors.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response, StatusCode};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    AsyncAcceptLayer, BufferedBody, Idempotency, MemoryStore, OperationHandle, Outcome,
    PollService, RecordedResponse, RequestBody, dialect::Replay,
};

use crate::{
    common::{Answer, end, every_dialect, get, status_and_result},
    server::Server,
};

const NOT_FINAL: [u16; 5] = [100, 101, 103, 600, 999];

fn plain_response(status: u16) -> Response<BufferedBody> {
    Response::builder()
        .status(status)
        .body(BufferedBody::from("not final"))
        .unwrap()
}

/// Sends a request to a service that answers with `status` after `pause`.
async fn post(
    layer: &AsyncAcceptLayer<MemoryStore>,
    status: u16,
    accepts: bool,
    pause: Duration,
) -> Answer {
    let service = service_fn(
        move |request: Request<RequestBody<BufferedBody>>| async move {
            if accepts {
                let operation = OperationHandle::from_extensions(request.extensions());
                operation.accept().await.unwrap();
            }
            sleep(pause).await;
            Ok::<_, Infallible>(plain_response(status))
        },
    );
    let request = Request::post("/reports")
        .header(
            "idempotency-key",
            "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
        )
        .body(BufferedBody::default())
        .unwrap();
    Answer::from_response(layer.layer(service).oneshot(request).await.unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn a_non_final_response_fails_the_run_as_inner_error() {
    let second = Duration::from_secs(1);
    for status in NOT_FINAL {
        let store = MemoryStore::new();
        let layer = AsyncAcceptLayer::new(store.clone());
        let after = layer.clone().after(Duration::from_millis(10));
        let signaled = layer.clone().when_signaled();
        for (layer, accepts) in [(layer, false), (after, false), (signaled, true)] {
            let accepted = post(&layer, status, accepts, second).await;
            assert_eq!(accepted.status, StatusCode::ACCEPTED);
            let location = accepted.headers["location"].to_str().unwrap();
            let polls = PollService::new(store.clone());
            let operation = get(polls.clone(), &format!("{location}?wait=30")).await;
            let problem = &operation.json()["problem"];
            assert_eq!(
                problem["type"], "urn:tower-operations:inner-error",
                "{status}"
            );
            let result = get(polls, &format!("{location}/result")).await;
            assert_eq!(result.status, StatusCode::BAD_GATEWAY);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_non_final_early_answer_releases_its_key() {
    for status in [100, 101, 103] {
        for is_signaled in [true, false] {
            let layer = AsyncAcceptLayer::new(MemoryStore::new());
            let layer = layer.idempotency(Idempotency::optional());
            let layer = match is_signaled {
                true => layer.when_signaled(),
                false => layer.after(Duration::from_secs(5)),
            };
            let first = post(&layer, status, false, Duration::ZERO).await;
            assert_eq!(first.status, StatusCode::BAD_GATEWAY);
            assert_eq!(first.json()["type"], "urn:tower-operations:inner-error");
            // The key is free again.
            let second = post(&layer, 200, false, Duration::ZERO).await;
            assert_eq!(second.status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_recorded_non_final_status_is_never_sent() {
    for status in NOT_FINAL {
        for dialect in every_dialect() {
            let recorded = RecordedResponse::new(plain_response(status));
            let [operation, result] =
                status_and_result(&dialect, Outcome::Succeeded(Some(recorded))).await;
            for answer in [operation, result] {
                let status = answer.status.as_u16();
                assert!((200..600).contains(&status), "{}: {answer:?}", dialect.name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_a_recorded_101() {
    let store = MemoryStore::new();
    let recorded = RecordedResponse::new(plain_response(101));
    end(&store, "q3", Outcome::Succeeded(Some(recorded))).await;
    let server = Server::hyper(PollService::new(store)).await;
    let mut client = server.http1().await;
    for _ in 0..2 {
        let answer = client.get("/q3/result").await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.json()["type"], "urn:tower-operations:unpresentable");
    }
}

#[test]
fn a_replay_of_a_non_final_response_is_an_error() {
    for status in [100, 101, 199, 600, 999] {
        let recorded = RecordedResponse::new(plain_response(status));
        let replayed = Replay::default().response(&recorded);
        assert_eq!(replayed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
