//! Attempts over loopback, judged by a receiver and by the published verifier.

#![cfg(feature = "client")]

mod attempts;
mod receiver;

use std::{
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use tokio::{net::TcpListener, sync::Notify, time::timeout};
use tower_operations::{Operation, Outcome};
use tower_operations_webhooks::{
    Attempt, AttemptOutcome, Event, EventBody, FailureReason, Secret, Secrets, Target,
    TargetPolicy, WebhookClient, verify,
};

use attempts::{failure, id};
use receiver::{Answer, AnswerBody, Receiver, answer};

/// A time-out for receivers that never answer.
const SHORT: Duration = Duration::from_secs(1);

const TOLERANCE: Duration = Duration::from_secs(300);

fn policy() -> TargetPolicy {
    let policy = TargetPolicy::new().allow_http();
    policy.allow_private_addresses().any_port()
}

fn client() -> WebhookClient {
    WebhookClient::builder().policy(policy()).build().unwrap()
}

fn target(receiver: &Receiver) -> Target {
    policy()
        .check(&receiver.url("/hooks?token=s3cret"))
        .unwrap()
}

fn body() -> EventBody {
    let operation = Operation::from_parts("q3".parse().unwrap(), Outcome::Succeeded(Some(1)));
    Event::from_operation(&operation).unwrap().to_json()
}

fn attempt_to(target: Target) -> Attempt {
    Attempt::new(id(), target, body(), Secrets::new(Secret::generate()))
}

async fn send_to(receiver: &Receiver) -> AttemptOutcome {
    attempt_to(target(receiver)).send(client()).await
}

#[tokio::test]
async fn the_published_verifier_accepts_what_is_sent() {
    let mut receiver = Receiver::answering(204).await;
    let [new, old] = [Secret::generate(), Secret::generate()];
    let secrets = Secrets::new(new.clone()).previous(old.clone());
    for body in [
        body(),
        EventBody::json(""),
        EventBody::json("\"ü\\u0000\" \r\n."),
    ] {
        let attempt = Attempt::new(id(), target(&receiver), body.clone(), secrets.clone());
        let outcome = attempt.send(client()).await;
        let status = StatusCode::NO_CONTENT;
        assert_eq!(outcome, AttemptOutcome::Delivered { status });

        let received = receiver.next().await;
        assert_eq!(received.body, body.bytes());
        let length = body.bytes().len().to_string();
        assert_eq!(received.headers["content-length"], length);
        for secret in [&new, &old] {
            let verifier = standardwebhooks::Webhook::new(&secret.expose_secret()).unwrap();
            verifier.verify(&received.body, &received.headers).unwrap();
            assert!(verifier.verify(b"{}", &received.headers).is_err());
        }
        let other = Secret::generate().expose_secret();
        let other = standardwebhooks::Webhook::new(&other).unwrap();
        assert!(other.verify(&received.body, &received.headers).is_err());
        verify(&received.headers, &received.body, &secrets, TOLERANCE).unwrap();
    }
}

#[test]
fn what_the_published_signer_signs_is_verified() {
    let secret = Secret::generate();
    let signer = standardwebhooks::Webhook::new(&secret.expose_secret()).unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let body = br#"{"type":"operation.failed"}"#;
    let signature = signer.sign("msg_1", now as i64, body).unwrap();
    let headers = http::HeaderMap::from_iter([
        (
            tower_operations_webhooks::WEBHOOK_ID,
            "msg_1".parse().unwrap(),
        ),
        (tower_operations_webhooks::WEBHOOK_TIMESTAMP, now.into()),
        (
            tower_operations_webhooks::WEBHOOK_SIGNATURE,
            signature.parse().unwrap(),
        ),
    ]);
    let webhook = verify(&headers, body, &secret.into(), TOLERANCE).unwrap();
    assert_eq!(webhook.id().as_str(), "msg_1");
    let other = Secrets::new(Secret::generate());
    assert!(verify(&headers, body, &other, TOLERANCE).is_err());
}

#[tokio::test]
async fn the_request_has_the_fields_of_the_standard() {
    let mut receiver = Receiver::answering(200).await;
    let clock = || UNIX_EPOCH + Duration::from_millis(1_614_265_330_999);
    attempt_to(target(&receiver))
        .clock(clock)
        .send(client())
        .await;
    let received = receiver.next().await;
    assert_eq!(received.uri, "/hooks?token=s3cret");
    let field = |name: &str| received.headers[name].to_str().unwrap();
    assert_eq!(field("webhook-id"), "op_1");
    assert_eq!(field("webhook-timestamp"), "1614265330");
    assert!(field("webhook-signature").starts_with("v1,"));
    assert_eq!(field("content-type"), "application/json");
    assert!(field("user-agent").starts_with("tower-operations-webhooks/"));
    assert_eq!(field("host"), receiver.address.to_string());
    assert_eq!(received.headers.len(), 7); // and the length

    let body = EventBody::cloud_event("{}");
    let secrets = Secrets::new(Secret::generate());
    let attempt = Attempt::new(id(), target(&receiver), body, secrets);
    let attempt = attempt.user_agent(HeaderValue::from_static("acme/1"));
    attempt.send(client()).await;
    let received = receiver.next().await;
    assert_eq!(
        received.headers["content-type"],
        "application/cloudevents+json"
    );
    assert_eq!(received.headers["user-agent"], "acme/1");
    // The id of a repetition is the same.
    assert_eq!(received.headers["webhook-id"], "op_1");
}

#[tokio::test]
async fn the_status_decides() {
    for status in [200, 201, 202, 204, 299] {
        let outcome = send_to(&Receiver::answering(status).await).await;
        assert_eq!(outcome.status().unwrap(), status);
        assert!(matches!(outcome, AttemptOutcome::Delivered { .. }));
    }
    for status in [400, 401, 404, 409, 429, 500, 502, 503, 599] {
        let outcome = send_to(&Receiver::answering(status).await).await;
        assert_eq!(
            failure(outcome),
            (Some(status), None, FailureReason::Status)
        );
    }
    let outcome = send_to(&Receiver::answering(410).await).await;
    assert_eq!(outcome, AttemptOutcome::Gone);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let mut elsewhere = Receiver::answering(200).await;
        let url: HeaderValue = elsewhere.url("/").parse().unwrap();
        let mut receiver = Receiver::start(move || {
            let mut answer = answer(status);
            answer.headers_mut().insert(header::LOCATION, url.clone());
            ready(answer)
        })
        .await;
        let outcome = send_to(&receiver).await;
        assert_eq!(
            failure(outcome),
            (Some(status), None, FailureReason::Redirect)
        );
        receiver.next().await;
        assert!(receiver.is_quiet() && elsewhere.is_quiet());
        assert_eq!(elsewhere.connections(), 0);
    }
}

#[tokio::test]
async fn a_busy_receiver_is_asked_later() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (status, value, expected) in [
        (429, "120", Some(120)),
        (503, "0", Some(0)),
        (503, "Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        (429, "Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
        (429, "later", None),
        (500, "120", None),
        (301, "120", None),
    ] {
        let receiver = Receiver::start(move || {
            let mut answer = answer(status);
            let value = HeaderValue::from_static(value);
            answer.headers_mut().insert(header::RETRY_AFTER, value);
            ready(answer)
        })
        .await;
        let attempt = attempt_to(target(&receiver)).clock(move || now);
        let (answered, retry_after, _) = failure(attempt.send(client()).await);
        assert_eq!(answered, Some(status));
        assert_eq!(retry_after, expected.map(Duration::from_secs), "{value}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_is_left() {
    let mut receiver = Receiver::start(pending::<Answer>).await;
    let attempt = attempt_to(target(&receiver)).timeout(SHORT);
    let outcome = attempt.send(client()).await;
    assert_eq!(failure(outcome), (None, None, FailureReason::Timeout));
    receiver.next().await;

    // A listener that accepts nothing, so that the request is not even read.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let attempt = attempt_to(policy().check(&url).unwrap()).timeout(SHORT);
    let outcome = attempt.send(client()).await;
    assert_eq!(failure(outcome), (None, None, FailureReason::Timeout));
}

#[tokio::test]
async fn an_answer_after_the_timeout_is_too_late() {
    let (gate, count) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let opened = Arc::clone(&gate);
    let mut receiver = Receiver::start(move || {
        let (gate, is_first) = (Arc::clone(&opened), count.fetch_add(1, SeqCst) == 0);
        async move {
            if is_first {
                gate.notified().await;
            }
            answer(200)
        }
    })
    .await;
    let client = client();
    let attempt = attempt_to(target(&receiver));
    let late = attempt.clone().timeout(SHORT).send(client.clone()).await;
    assert_eq!(failure(late), (None, None, FailureReason::Timeout));
    gate.notify_one();
    // The late answer is not taken for that of the next attempt.
    let status = StatusCode::OK;
    assert_eq!(
        attempt.send(client).await,
        AttemptOutcome::Delivered { status }
    );
    let (first, second) = (receiver.next().await, receiver.next().await);
    assert_eq!(first.headers["webhook-id"], second.headers["webhook-id"]);
    assert!(receiver.is_quiet());
}

#[tokio::test]
async fn an_endless_answer_is_read_no_further_than_its_bound() {
    let frames = Arc::<AtomicUsize>::default();
    let sent = Arc::clone(&frames);
    let receiver =
        Receiver::start(move || ready(answer(200).map(|_| AnswerBody::Endless(Arc::clone(&sent)))))
            .await;
    let status = StatusCode::OK;
    assert_eq!(
        send_to(&receiver).await,
        AttemptOutcome::Delivered { status }
    );
    // More than the bound are in the buffers of the sockets.
    assert!(frames.load(SeqCst) < 64 * 1024);
}

#[tokio::test]
async fn a_short_answer_leaves_the_connection_for_the_next_request() {
    let text = || AnswerBody::Text(Some(Bytes::from_static(b"thank you")));
    let receiver = Receiver::start(move || ready(answer(200).map(|_| text()))).await;
    let client = client();
    for _ in 0..3 {
        attempt_to(target(&receiver)).send(client.clone()).await;
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_receiver_that_is_away_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let outcome = attempt_to(policy().check(&url).unwrap())
        .send(client())
        .await;
    assert_eq!(failure(outcome), (None, None, FailureReason::Connect));
}

#[tokio::test]
async fn something_that_is_not_http_fails() {
    for text in [
        &b""[..],
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 999999 X\r\n\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024])
                .await
                .unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, text)
                .await
                .unwrap();
        });
        let outcome = attempt_to(policy().check(&url).unwrap())
            .send(client())
            .await;
        assert_eq!(failure(outcome), (None, None, FailureReason::Exchange));
    }
}

#[tokio::test]
async fn attempts_run_in_tasks() {
    let receiver = Receiver::answering(204).await;
    let attempt = attempt_to(target(&receiver));
    let task = tokio::spawn(async move { attempt.send(client()).await });
    let outcome = timeout(TOLERANCE, task).await.unwrap().unwrap();
    assert_eq!(outcome.status(), Some(StatusCode::NO_CONTENT));
}

#[tokio::test]
async fn timeouts_may_be_of_any_length() {
    let receiver = Receiver::answering(204).await;
    let client = WebhookClient::builder()
        .policy(policy())
        .connect_timeout(Duration::MAX)
        .build()
        .unwrap();
    let attempt = attempt_to(target(&receiver)).timeout(Duration::MAX);
    let status = StatusCode::NO_CONTENT;
    assert_eq!(
        attempt.send(client).await,
        AttemptOutcome::Delivered { status }
    );
}
