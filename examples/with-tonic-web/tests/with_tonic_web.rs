//! The example among services of tonic, run as a process.

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use test_support::{
    client::{Client, open},
    operations::{id_in, ids},
    process::Example,
    server::soon,
};
use tonic::{Code, Streaming, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

async fn tonic_web() -> (Example, Client) {
    let example = Example::start("with-tonic-web", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());
    (example, client)
}

const PRINTER: &str = "printer";

#[tokio::test]
async fn grpc_calls_stream_through_the_layer() {
    let (example, client) = tonic_web().await;
    let mut health = health(&example).await;
    assert_eq!(
        check(&mut health, PRINTER).await,
        Ok(ServingStatus::Serving)
    );
    assert_eq!(check(&mut health, "").await, Ok(ServingStatus::Serving));
    assert_eq!(check(&mut health, "nobody").await, Err(Code::NotFound));
    let mut watched = watch(&mut health).await;
    assert_eq!(next(&mut watched).await, ServingStatus::Serving);

    let location = client.post_accepted("/prints", "word ".repeat(100)).await;
    assert_eq!(next(&mut watched).await, ServingStatus::NotServing);
    assert_eq!(
        check(&mut health, PRINTER).await,
        Ok(ServingStatus::NotServing)
    );
    // A canceled print frees the printer.
    assert_eq!(client.delete(&location).await.json()["state"], "canceled");
    assert_eq!(next(&mut watched).await, ServingStatus::Serving);

    let location = client.post_accepted("/prints", "one two").await;
    assert_eq!(next(&mut watched).await, ServingStatus::NotServing);
    assert_eq!(next(&mut watched).await, ServingStatus::Serving);
    assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.body(), "printed 2\n");

    // Two prints were accepted, and none of the calls.
    assert_eq!(list_ids(&client).await.len(), 2);
}

#[tokio::test]
async fn a_grpc_web_call_passes_through_over_http1() {
    let (example, client) = tonic_web().await;
    for content_type in ["application/grpc-web", "application/grpc-web+proto"] {
        let answer = grpc_web(&example, "Check", content_type, &frame(PRINTER)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(
            answer.headers()["content-type"],
            "application/grpc-web+proto"
        );
        let body = soon(answer.collect()).await.unwrap().to_bytes();
        // One message (field 1 is 1: serving), then the trailers as a frame.
        let trailers = body.strip_prefix(b"\0\0\0\0\x02\x08\x01\x80").unwrap();
        let trailers = String::from_utf8_lossy(&trailers[4..]).into_owned();
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
    }
    let unknown = grpc_web(&example, "Check", "application/grpc-web", &frame("nobody")).await;
    assert_eq!(unknown.status(), StatusCode::OK);
    let not_found = (Code::NotFound as i32).to_string();
    assert_eq!(unknown.headers()["grpc-status"], *not_found);
    assert_eq!(list_ids(&client).await, [""; 0]);
}

#[tokio::test]
async fn a_grpc_web_call_streams_over_http1() {
    let (example, client) = tonic_web().await;
    let content_type = "application/grpc-web+proto";
    let mut watched = grpc_web(&example, "Watch", content_type, &frame(PRINTER)).await;
    assert_eq!(watched.status(), StatusCode::OK);
    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
    const NOT_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x02";
    assert_eq!(bytes_of(&mut watched, SERVING.len()).await, SERVING);
    let location = client.post_accepted("/prints", "one two").await;
    assert_eq!(bytes_of(&mut watched, NOT_SERVING.len()).await, NOT_SERVING);
    assert_eq!(bytes_of(&mut watched, SERVING.len()).await, SERVING);
    assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
    assert_eq!(list_ids(&client).await, [id_in(&location)]);
}

#[tokio::test]
async fn http_works_on_the_same_port() {
    let (example, _) = tonic_web().await;
    for client in [Client::new(example.url()), Client::http2(example.url())] {
        let location = client.post_accepted("/prints", "word").await;
        assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
        let result = client.get(&format!("{location}/result")).await;
        assert_eq!(result.body(), "printed 1\n");
        let operations = list_ids(&client).await.len();
        for path in ["/nowhere", "/grpc.health.v1.Nobody/Check"] {
            let nowhere = client.post(path, "").await;
            assert_eq!(nowhere.status(), StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(list_ids(&client).await.len(), operations);
    }
}

type Health = HealthClient<tonic::transport::Channel>;

async fn health(example: &Example) -> Health {
    let endpoint = Endpoint::from_shared(example.url().to_owned()).unwrap();
    HealthClient::new(soon(endpoint.connect()).await.unwrap())
}

async fn check(health: &mut Health, service: &str) -> Result<ServingStatus, Code> {
    let service = service.to_owned();
    let check = soon(health.check(HealthCheckRequest { service })).await;
    check
        .map(|response| response.into_inner().status())
        .map_err(|status| status.code())
}

async fn watch(health: &mut Health) -> Streaming<HealthCheckResponse> {
    let service = PRINTER.to_owned();
    let watched = soon(health.watch(HealthCheckRequest { service })).await;
    watched.unwrap().into_inner()
}

async fn next(watched: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    soon(watched.message()).await.unwrap().unwrap().status()
}

/// The message `HealthCheckRequest { service }` in a frame.
fn frame(service: &str) -> Vec<u8> {
    let length = u8::try_from(service.len()).unwrap();
    let head = [0, 0, 0, 0, length + 2, 0x0a, length];
    [&head, service.as_bytes()].concat()
}

async fn grpc_web(
    example: &Example,
    method: &str,
    content_type: &str,
    frame: &[u8],
) -> Response<Incoming> {
    let path = format!("/grpc.health.v1.Health/{method}");
    let headers = [("content-type", content_type), ("x-grpc-web", "1")];
    let body = Bytes::copy_from_slice(frame);
    open(example.url(), Method::POST, &path, &headers, body).await
}

/// Reads `length` bytes of a body, which has no more for now.
async fn bytes_of(response: &mut Response<Incoming>, length: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    while bytes.len() < length {
        let frame = soon(response.frame()).await.unwrap().unwrap();
        bytes.extend_from_slice(frame.data_ref().unwrap());
    }
    bytes.freeze()
}

/// Returns the ids of all operations.
async fn list_ids(client: &Client) -> Vec<String> {
    ids(&client.get("/operations/").await)
}
