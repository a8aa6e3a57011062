//! The published verifiers and signers for Python and Node. `tests/verifiers/run.sh` installs them and
//! runs these tests.

#![cfg(feature = "client")]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower::ServiceExt;
use tower_operations_webhooks::{
    Attempt, AttemptOutcome, EventBody, Secret, Secrets, TargetPolicy, WebhookClient, verify,
};

/// A receiver in another language.
struct OtherReceiver {
    process: Child,
    url: String,
}

impl Drop for OtherReceiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl OtherReceiver {
    fn start(program: &str, script: &str, secret: &Secret) -> Self {
        let folder = std::env::var_os("WEBHOOK_VERIFIERS");
        let folder = PathBuf::from(folder.expect("tests/verifiers/run.sh sets this"));
        let program = match program.contains('/') {
            true => folder.join(program),
            false => program.into(),
        };
        let mut process = Command::new(program)
            .arg(folder.join(script))
            .arg(secret.expose_secret())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let url = format!("http://127.0.0.1:{}", line.trim());
        Self { process, url }
    }
}

async fn judge(program: &str, script: &str) {
    let [secret, previous, other] = [(); 3].map(|()| Secret::generate());
    let receiver = OtherReceiver::start(program, script, &secret);
    let policy = TargetPolicy::new().allow_http().any_port();
    let policy = policy.allow_private_addresses();
    let client = WebhookClient::builder().policy(policy.clone()).build();
    let client = client.unwrap();
    let target = policy.check(&receiver.url).unwrap();

    let accepted = [
        Secrets::new(secret.clone()),
        Secrets::new(secret.clone()).previous(previous.clone()),
        Secrets::new(previous.clone()).previous(secret.clone()),
    ];
    for secrets in &accepted {
        for body in [
            "{}",
            r#"{"type":"operation.succeeded","data":{"name":"ü \u0000 €"}}"#,
        ] {
            let id = "0190-op_1".parse().unwrap();
            let body = EventBody::json(body);
            let attempt = Attempt::new(id, target.clone(), body, secrets.clone());
            let outcome = attempt.send(client.clone()).await;
            let status = StatusCode::NO_CONTENT;
            assert_eq!(outcome, AttemptOutcome::Delivered { status });
        }
    }
    let refused = Secrets::new(other.clone()).previous(previous);
    let body = EventBody::json("{}");
    let attempt = Attempt::new("op".parse().unwrap(), target, body, refused);
    let outcome = attempt.send(client.clone()).await;
    assert_eq!(outcome.status(), Some(StatusCode::BAD_REQUEST));

    for body in ["", "{}", "ü €\r\n"] {
        let request = Request::post(format!("{}/sign", receiver.url));
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        let headers = response.headers();
        let tolerance = Duration::from_secs(300);
        let judge = |secret: &Secret, body: &str| {
            verify(headers, body.as_bytes(), &secret.clone().into(), tolerance)
        };
        assert!(
            judge(&secret, body)
                .unwrap()
                .id()
                .as_str()
                .starts_with("msg_")
        );
        assert!(judge(&secret, &format!("{body} ")).is_err());
        assert!(judge(&other, body).is_err());
    }
}

#[tokio::test]
async fn the_verifier_for_python() {
    judge("venv/bin/python", "receiver.py").await;
}

#[tokio::test]
async fn the_verifier_for_node() {
    judge("node", "receiver.js").await;
}
