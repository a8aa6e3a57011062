//! The example among the layers of tower-http, run as a process.

use std::{collections::HashSet, convert::Infallible};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use test_support::{
    client::{Answer, Client, open},
    operations::{id_in, ids},
    process::Example,
    server::soon,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::decompression::DecompressionLayer;

const ORIGIN: (&str, &str) = ("origin", "https://app.example.com");

async fn tower_http() -> (Example, Client) {
    let example = Example::start("with-tower-http", &["127.0.0.1:0"])
        .await
        .unwrap();
    let client = Client::new(example.url());
    (example, client)
}

#[tokio::test]
async fn a_preflight_is_answered_and_not_accepted() {
    let (_example, client) = tower_http().await;
    let accepted = client.post_accepted("/reports", r#"{"title":"Q3"}"#).await;
    let script_requests = [
        ("/reports", "POST", "content-type,idempotency-key,prefer"),
        (&*accepted, "GET", "authorization,if-none-match,prefer"),
        (&*accepted, "GET", "last-event-id"),
        (&*accepted, "DELETE", "if-match"),
    ];
    for (path, method, headers) in script_requests {
        let preflight = [
            ORIGIN,
            ("access-control-request-method", method),
            ("access-control-request-headers", headers),
        ];
        let answer = ask(&client, Method::OPTIONS, path, &preflight, "").await;
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN.1);
        let methods = list_of(&answer, "access-control-allow-methods");
        assert!(methods.contains(&method.to_lowercase()), "{methods:?}");
        let allowed = list_of(&answer, "access-control-allow-headers");
        for header in headers.split(',') {
            assert!(allowed.contains(header), "{header} in {allowed:?}");
        }
        assert!(answer.has("x-request-id"));
        assert!(!answer.has("location"));
    }
    assert_eq!(list_ids(&client).await, [id_in(&accepted)]);

    let foreign_origin = [
        ("origin", "https://evil.example.com"),
        ("access-control-request-method", "POST"),
    ];
    let answer = ask(&client, Method::OPTIONS, "/reports", &foreign_origin, "").await;
    assert!(!answer.has("access-control-allow-origin"), "{answer:?}");
}

#[tokio::test]
async fn scripts_may_read_the_headers_of_every_answer() {
    let (_example, client) = tower_http().await;
    let order = r#"{"title":"Q3"}"#;
    let accepted = ask(&client, Method::POST, "/reports", &[ORIGIN], order).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    let location = accepted.header("location").to_owned();
    client.wait_for_end(&location).await;
    let polled = ask(&client, Method::GET, &location, &[ORIGIN], "").await;
    assert!(polled.has("etag"));
    let result = format!("{location}/result");
    let result = ask(&client, Method::GET, &result, &[ORIGIN], "").await;
    assert_eq!(result.status(), StatusCode::OK);
    let unknown = "/operations/0198c0de-0000-7000-8000-000000000000";
    let unknown = ask(&client, Method::GET, unknown, &[ORIGIN], "").await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let panicked = r#"{"title":"Q3","panics":true}"#;
    let panicked = ask(&client, Method::POST, "/direct", &[ORIGIN], panicked).await;
    assert_eq!(panicked.status(), StatusCode::INTERNAL_SERVER_ERROR);

    for answer in [accepted, polled, result, unknown, panicked] {
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN.1);
        let exposed = list_of(&answer, "access-control-expose-headers");
        for header in [
            "location",
            "retry-after",
            "etag",
            "link",
            "operation-result",
            "preference-applied",
        ] {
            assert!(exposed.contains(header), "{header} in {exposed:?}");
        }
    }
}

#[tokio::test]
async fn vary_headers_are_merged() {
    let (_example, client) = tower_http().await;
    let order = r#"{"title":"Q3"}"#;
    let headers = [ORIGIN, ("prefer", "wait=2")];
    let waited = ask(&client, Method::POST, "/reports", &headers, order).await;
    assert_eq!(waited.status(), StatusCode::OK);
    assert_eq!(waited.header("preference-applied"), "wait=2");
    let vary = list_of(&waited, "vary");
    for header in ["prefer", "origin", "accept-encoding"] {
        assert!(vary.contains(header), "{header} in {vary:?}");
    }
}

#[tokio::test]
async fn a_202_and_its_run_have_the_request_id() {
    let (_example, client) = tower_http().await;
    let order = r#"{"title":"Q3"}"#;
    let sent = [("x-request-id", "mine")];
    let accepted = ask(&client, Method::POST, "/reports", &sent, order).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(accepted.header("x-request-id"), "mine");
    let location = accepted.header("location");
    let ended = client.wait_for_end(location).await;
    assert_eq!(
        ended["result"],
        json!({ "title": "Q3", "request_id": "mine" })
    );
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.json(), ended["result"]);
    // The result carries the id of the request that fetches it.
    assert_ne!(result.header("x-request-id"), "mine");

    let without_id = ask(&client, Method::POST, "/reports", &[], order).await;
    let ended = client.wait_for_end(without_id.header("location")).await;
    let request_id = without_id.header("x-request-id");
    assert_eq!(request_id.len(), 36);
    assert_eq!(ended["result"]["request_id"], request_id);
}

#[tokio::test]
async fn a_result_is_compressed_on_request() {
    let (_example, client) = tower_http().await;
    let accepted = client.post_accepted("/reports", order_of(1000)).await;
    client.wait_for_end(&accepted).await;
    let path = format!("{accepted}/result");
    let plain = client.get(&path).await;
    assert!(!plain.has("content-encoding"), "{plain:?}");
    assert_eq!(plain.json()["title"], "x".repeat(1000));
    assert!(list_of(&plain, "vary").contains("accept-encoding"));

    for encoding in ["gzip", "br"] {
        let accepts = [("accept-encoding", encoding)];
        for path in [&accepted, &path] {
            let answer = ask(&client, Method::GET, path, &accepts, "").await;
            assert_eq!(answer.header("content-encoding"), encoding);
            assert!(answer.body().len() < 500, "{}", answer.body().len());
        }
        let result = ask(&client, Method::GET, &path, &accepts, "").await;
        assert_eq!(decode(&result).await, *plain.body(), "{encoding}");
        // These would be of the bytes before the compression.
        assert!(
            !result.has("etag") && !result.has("repr-digest"),
            "{result:?}"
        );
        let begin = [accepts[0], ("range", "bytes=0-9")];
        let whole = ask(&client, Method::GET, &path, &begin, "").await;
        assert_eq!(whole.status(), StatusCode::OK, "{whole:?}");
    }
    let accepts = [("accept-encoding", "gzip")];
    let accepted = ask(&client, Method::POST, "/reports", &accepts, order_of(1)).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(accepted.header("content-encoding"), "gzip");
    let accepted: Value = serde_json::from_slice(&decode(&accepted).await).unwrap();
    assert_eq!(accepted["state"], "pending");
}

#[tokio::test]
async fn a_compressed_result_is_not_compressed_again() {
    let (_example, client) = tower_http().await;
    let accepts = [("accept-encoding", "gzip")];
    let archived = ask(&client, Method::POST, "/archives", &accepts, order_of(1000)).await;
    assert_eq!(archived.status(), StatusCode::ACCEPTED);
    let location = archived.header("location");
    let ended = client.wait_for_end(location).await;
    assert_eq!(ended["state"], "succeeded");
    // Bytes that are no text are not embedded.
    assert_eq!(ended.get("result"), None);
    let path = format!("{location}/result");
    // Clients that do not accept the encoding receive it as well.
    for headers in [&accepts[..], &[("accept-encoding", "br")], &[]] {
        let result = ask(&client, Method::GET, &path, headers, "").await;
        assert_eq!(result.header("content-encoding"), "gzip");
        let text = decode(&result).await;
        let report: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(report["title"], "x".repeat(1000));
    }
}

#[tokio::test]
async fn an_event_stream_is_not_compressed() {
    let (example, client) = tower_http().await;
    let order = r#"{"title":"Q3","millis":60000}"#;
    let location = client.post_accepted("/reports", order).await;
    let headers = [("accept", "text/event-stream"), ("accept-encoding", "gzip")];
    let mut events = open(example.url(), Method::GET, &location, &headers, "").await;
    assert_eq!(events.status(), StatusCode::OK);
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert!(!events.headers().contains_key("content-encoding"));
    let first = soon(events.frame()).await.unwrap().unwrap();
    assert!(first.data_ref().unwrap().starts_with(b"id: "));
    client.delete(&location).await;
    let rest = soon(events.collect()).await.unwrap().to_bytes();
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains("event: canceled"), "{rest}");
}

#[tokio::test]
async fn an_outer_timeout_limits_the_answer_and_not_the_run() {
    let (_example, client) = tower_http().await;
    let order = r#"{"title":"Q3","millis":3500}"#;
    let begun = Instant::now();
    let direct = {
        let client = client.clone();
        tokio::spawn(async move { ask(&client, Method::POST, "/direct", &[ORIGIN], order).await })
    };
    let location = client.post_accepted("/reports", order).await;
    // A stream of events outlives the time-out.
    let path = format!("{location}/events");
    let events = client.get(&path);
    let held = async {
        // A poll is held for less than the time-out, and then answered with the current state.
        let held = client.get(&format!("{location}?wait=30")).await;
        assert_eq!(held.status(), StatusCode::OK, "{held:?}");
        assert_eq!(held.json()["state"], "running");
    };
    let (events, ()) = tokio::join!(events, held);
    let text = String::from_utf8_lossy(events.body()).into_owned();
    assert!(text.contains("event: succeeded"), "{text}");
    assert!(begun.elapsed().as_millis() >= 3500);
    let ended = client.get(&location).await.json();
    assert_eq!(ended["state"], "succeeded", "{ended}");

    let direct = direct.await.unwrap();
    assert_eq!(direct.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(direct.header("access-control-allow-origin"), ORIGIN.1);
    assert!(direct.has("x-request-id"));
}

/// A wait is answered within the time-out, because the time-out would drop the request.
#[tokio::test]
async fn a_wait_longer_than_the_timeout_is_accepted() {
    let (_example, client) = tower_http().await;
    let order = r#"{"title":"Q3","millis":3500}"#;
    let prefers = [ORIGIN, ("prefer", "wait=20")];
    let accepted = ask(&client, Method::POST, "/reports", &prefers, order).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED, "{accepted:?}");
    let ended = client.wait_for_end(accepted.header("location")).await;
    assert_eq!(ended["state"], "succeeded");
}

#[tokio::test]
async fn an_idempotency_key_is_honored_and_not_logged() {
    let (example, client) = tower_http().await;
    let key = [("idempotency-key", r#""KEY-of-sixteen-or-more""#)];
    let order = r#"{"title":"Q3"}"#;
    let first = ask(&client, Method::POST, "/reports", &key, order).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let again = ask(&client, Method::POST, "/reports", &key, order).await;
    assert_eq!(again.header("location"), first.header("location"));
    let log = log_of(example).await;
    assert!(!log.contains("KEY-of-sixteen"), "{log}");
}

#[tokio::test]
async fn an_outer_catch_panic_does_not_see_panics_of_accepted_requests() {
    let (example, client) = tower_http().await;
    let order = r#"{"title":"Q3","panics":true}"#;
    let location = client.post_accepted("/reports", order).await;
    let ended = client.wait_for_end(&location).await;
    assert_eq!(ended["state"], "failed");
    let kind = "urn:tower-operations:panicked";
    assert_eq!(ended["problem"]["type"], kind);
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(result.json()["type"], kind);
    let log = log_of(example).await;
    assert!(!log.contains("Service panicked"), "{log}");

    let (example, client) = tower_http().await;
    let direct = client.post("/direct", order).await;
    assert_eq!(direct.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(direct.body(), "Service panicked");
    assert!(direct.has("x-request-id"));
    let log = log_of(example).await;
    assert!(log.contains("Service panicked"), "{log}");
}

#[tokio::test]
async fn a_body_above_either_limit_is_a_413() {
    let (example, client) = tower_http().await;
    // Above the limit of accepted bodies.
    let refused = ask(
        &client,
        Method::POST,
        "/reports",
        &[ORIGIN],
        order_of(300_000),
    )
    .await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(
        refused.json()["type"],
        "urn:tower-operations:body-too-large"
    );
    assert_eq!(refused.header("access-control-allow-origin"), ORIGIN.1);
    let direct = client.post("/direct", order_of(300_000)).await;
    assert_eq!(direct.status(), StatusCode::OK);

    // Above the limit of all bodies.
    for path in ["/reports", "/direct"] {
        for length in ["content-length: 2000000", "transfer-encoding: chunked"] {
            let head = raw(example.url(), path, length).await;
            assert!(head.starts_with("HTTP/1.1 413 "), "{path} {length}: {head}");
            assert!(head.contains("\r\nx-request-id: "), "{head}");
            let allowed = format!("access-control-allow-origin: {}", ORIGIN.1);
            assert!(head.contains(&allowed), "{head}");
            // The outer layer refuses an announced length at once. Without a length, the
            // accepting layer reaches its limit first.
            let is_problem = head.contains("content-type: application/problem+json");
            let by_inner = path == "/reports" && length.ends_with("chunked");
            assert_eq!(is_problem, by_inner, "{path} {length}: {head}");
        }
    }
    assert_eq!(list_ids(&client).await, [""; 0]);
}

#[tokio::test]
async fn sensitive_headers_are_not_logged() {
    let (example, client) = tower_http().await;
    let order = r#"{"title":"SETCOOKIE"}"#;
    let headers = [
        ("authorization", "Bearer SECRET"),
        ("cookie", "session=SECRET"),
        ("x-request-id", "of-the-log"),
        ("x-other", "VISIBLE"),
    ];
    let direct = ask(&client, Method::POST, "/direct", &headers, order).await;
    assert_eq!(direct.header("set-cookie"), "last=SETCOOKIE");
    let accepted = ask(&client, Method::POST, "/reports", &headers, order).await;
    let location = accepted.header("location");
    client.wait_for_end(location).await;
    // Cookies are not part of a recorded result.
    let result = client.get(&format!("{location}/result")).await;
    assert!(!result.has("set-cookie"), "{result:?}");

    let log = log_of(example).await;
    assert!(!log.contains("SECRET"), "{log}");
    assert!(!log.contains("last=SETCOOKIE"), "{log}");
    for expected in [
        r#""authorization": Sensitive"#,
        r#""cookie": Sensitive"#,
        r#""set-cookie": Sensitive"#,
        r#""x-other": "VISIBLE""#,
        r#"request_id="of-the-log""#,
        "status=202",
    ] {
        assert!(log.contains(expected), "{expected} in {log}");
    }
    // The run logs in a span of its own, with the id of its request.
    let run_line = log.lines().find(|line| {
        line.contains(" operation{") && line.contains("rendered request_id=\"of-the-log\"")
    });
    let run_line = run_line.unwrap_or_else(|| panic!("{log}"));
    assert!(!run_line.contains(" request{"), "{run_line}");
}

/// Stops an example, and returns its standard error.
async fn log_of(example: Example) -> String {
    example.signal("TERM").await;
    example.wait().await.errors
}

/// Sends a body of at most two million bytes, and returns the head of the answer once it
/// arrives.
async fn raw(url: &str, path: &str, length: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let (name, origin) = ORIGIN;
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{name}: {origin}\r\n{length}\r\n\r\n");
    let is_chunked = length.ends_with("chunked");
    let sending = async {
        writer.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("3E8\r\n{}\r\n", "x".repeat(1000));
        for _ in 0..if is_chunked { 2000 } else { 0 } {
            // The server may close as soon as it has answered.
            if writer.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
    };
    let mut answer = Vec::new();
    let reading = async {
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if reader.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    soon(async { tokio::join!(reading, sending) }).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = client.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request, body.into()).await
}

/// Returns an order whose title has `letters` letters.
fn order_of(letters: usize) -> String {
    json!({ "title": "x".repeat(letters) }).to_string()
}

/// Returns the decoded body of an answer.
async fn decode(answer: &Answer) -> Bytes {
    let (body, encoding) = (answer.body().clone(), answer.header("content-encoding"));
    let response = Response::builder().header("content-encoding", encoding);
    let response = response.body(Full::new(body)).unwrap();
    let service = ServiceBuilder::new()
        .layer(DecompressionLayer::new())
        .service(service_fn(move |_: Request<()>| {
            std::future::ready(Ok::<_, Infallible>(response.clone()))
        }));
    let Ok(response) = service.oneshot(Request::new(())).await;
    response.collect().await.unwrap().to_bytes()
}

/// Returns the ids of all operations.
async fn list_ids(client: &Client) -> Vec<String> {
    ids(&client.get("/operations/").await)
}

/// Returns the members of a list header in lower case.
fn list_of(answer: &Answer, name: &str) -> HashSet<String> {
    let values = answer.values(name).flat_map(|value| value.split(','));
    values.map(|member| member.trim().to_lowercase()).collect()
}
