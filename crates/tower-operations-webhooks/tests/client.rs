//! The client: which addresses it connects to, and TLS.

#![cfg(feature = "client")]

mod receiver;

use std::{
    future::{pending, ready},
    io,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tower_operations_webhooks::{
    ClientBuildError, ClientError, FailureReason, Resolve, TargetPolicy, WebhookClient,
};

use receiver::{PATIENCE, Receiver, answer};

/// An address that the policy takes for public. No test connects to it.
const PUBLIC: &str = "2000::1";

const SHORT: Duration = Duration::from_secs(2);

/// A resolver that gives one answer after the other, and the last one again and again.
#[derive(Clone, Default)]
struct Answers(Arc<AnswersState>);

#[derive(Default)]
struct AnswersState {
    answers: Vec<Vec<IpAddr>>,
    lookups: AtomicUsize,
    names: Mutex<Vec<String>>,
}

impl Answers {
    fn new(answers: &[&[&str]]) -> Self {
        let parse = |address: &&str| address.parse().unwrap();
        let answers = answers.iter().map(|one| one.iter().map(parse).collect());
        Self(Arc::new(AnswersState {
            answers: answers.collect(),
            ..AnswersState::default()
        }))
    }

    fn lookups(&self) -> usize {
        self.0.lookups.load(SeqCst)
    }
}

impl Resolve for Answers {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let state = &self.0;
        state.names.lock().unwrap().push(name.to_owned());
        let lookup = state.lookups.fetch_add(1, SeqCst);
        let last = state.answers.len().checked_sub(1);
        let last = last.ok_or(io::ErrorKind::NotFound)?;
        Ok(state.answers[lookup.min(last)].clone())
    }
}

fn client(policy: TargetPolicy, resolver: impl Resolve) -> WebhookClient {
    let builder = WebhookClient::builder().policy(policy.allow_http());
    let builder = builder.resolver(resolver).connect_timeout(SHORT);
    builder.build().unwrap()
}

async fn post(client: &WebhookClient, url: &str) -> Result<StatusCode, ClientError> {
    let request = Request::post(url).body(Full::<Bytes>::default()).unwrap();
    let response = timeout(PATIENCE, client.clone().oneshot(request)).await;
    Ok(response.expect("the client has a time-out")?.status())
}

async fn refusal(client: &WebhookClient, url: &str) -> FailureReason {
    post(client, url).await.unwrap_err().reason()
}

fn url(receiver: &Receiver) -> String {
    format!("http://receiver.example:{}/hooks", receiver.port())
}

#[tokio::test]
async fn a_resolver_that_changes_its_mind_is_asked_once() {
    // Nobody listens at the first answer. The second one would lead to this receiver.
    let mut receiver = Receiver::answering(200).await;
    let policy = TargetPolicy::new().any_port().allow_private_addresses();
    let resolver = Answers::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let patient = client(policy.clone(), resolver.clone());
    let reason = refusal(&patient, &url(&receiver)).await;
    assert_eq!(reason, FailureReason::Connect);
    assert_eq!(resolver.lookups(), 1);
    assert!(receiver.is_quiet());
    assert_eq!(receiver.connections(), 0);

    // The next request is another connection, whose address is checked again.
    let resolver = Answers::new(&[&["127.0.0.2"], &["169.254.169.254"]]);
    let patient = client(policy, resolver.clone());
    for (expected, lookups) in [(FailureReason::Connect, 1), (FailureReason::Refused, 2)] {
        assert_eq!(refusal(&patient, &url(&receiver)).await, expected);
        assert_eq!(resolver.lookups(), lookups);
    }
}

#[tokio::test]
async fn the_connection_is_made_to_the_address_that_was_checked() {
    let mut checked = Receiver::answering(200).await;
    let other = ([127, 0, 0, 2], checked.port()).into();
    let other = Receiver::start_at(other, None, || ready(answer(200))).await;
    let resolver = Answers::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let policy = TargetPolicy::new().any_port().allow_private_addresses();
    let client = client(policy, resolver.clone());
    assert_eq!(post(&client, &url(&checked)).await.unwrap(), StatusCode::OK);
    assert_eq!(resolver.lookups(), 1);
    assert_eq!(other.connections(), 0);
    let host = format!("receiver.example:{}", checked.port());
    assert_eq!(checked.next().await.headers["host"], host);
    assert_eq!(*resolver.0.names.lock().unwrap(), ["receiver.example"]);
}

#[tokio::test]
async fn one_address_that_is_not_admitted_refuses_the_name() {
    let receiver = Receiver::answering(200).await;
    let strict = TargetPolicy::new().any_port();
    let internal = strict.clone().allow_private_addresses();
    for (policy, addresses) in [
        (&strict, &[PUBLIC, "127.0.0.1"][..]),
        (&strict, &["127.0.0.1", PUBLIC]),
        (&strict, &["127.0.0.1"]),
        (&strict, &["::ffff:127.0.0.1"]),
        (&strict, &["64:ff9b::7f00:1"]),
        (&strict, &["10.0.0.1"]),
        (&strict, &["0.0.0.0"]),
        (&strict, &["::"]),
        (&internal, &["127.0.0.1", "169.254.169.254"]),
        (&internal, &["127.0.0.1", "0.0.0.0"]),
        (&internal, &["127.0.0.1", "2002:7f00:1::"]),
    ] {
        let resolver = Answers::new(&[addresses]);
        let client = client(policy.clone(), resolver.clone());
        let reason = refusal(&client, &url(&receiver)).await;
        assert_eq!(reason, FailureReason::Refused, "{addresses:?}");
        assert_eq!(resolver.lookups(), 1);
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn urls_are_checked_before_anything_is_resolved() {
    let resolver = Answers::new(&[&["127.0.0.1"]]);
    let client = client(TargetPolicy::new(), resolver.clone());
    for url in [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest",
        "http://localhost/",
        "http://user@receiver.example/",
        "http://receiver.example:8080/",
        "http://receiver.example./",
        "http://0x7f.1/",
        "/hooks",
    ] {
        assert_eq!(refusal(&client, url).await, FailureReason::Refused, "{url}");
    }
    let strict = WebhookClient::builder().resolver(resolver.clone());
    let strict = strict.add_root_certificate(Authority::new().certificate.der().to_vec());
    let strict = strict.build().unwrap();
    let reason = refusal(&strict, "http://receiver.example/").await;
    assert_eq!(reason, FailureReason::Refused);
    // The rules hold for the whole URL, and not only for what a connection needs.
    let long = format!("http://receiver.example/{}", "a".repeat(2048));
    assert_eq!(refusal(&client, &long).await, FailureReason::Refused);
    assert_eq!(resolver.lookups(), 0);
}

#[tokio::test]
async fn an_address_is_not_resolved() {
    let receiver = Receiver::answering(204).await;
    let resolver = Answers::default();
    let policy = TargetPolicy::new().any_port().allow_private_addresses();
    let client = client(policy, resolver.clone());
    let status = post(&client, &receiver.url("/")).await.unwrap();
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(resolver.lookups(), 0);
}

/// Listens at an address, and lets nobody connect: the queue of connections is full.
async fn silent(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(SHORT / 4, TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 16, "the queue is never full");
    }
    (listener, waiting)
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let address = ([127, 0, 0, 2], 0).into();
    let receiver = Receiver::start_at(address, None, || ready(answer(200))).await;
    let policy = TargetPolicy::new().any_port().allow_private_addresses();
    let _silent = silent(([127, 0, 0, 3], receiver.port()).into()).await;
    // Nobody listens at the first address, and the second one does not answer.
    for addresses in [["127.0.0.1", "127.0.0.2"], ["127.0.0.3", "127.0.0.2"]] {
        let client = client(policy.clone(), Answers::new(&[&addresses]));
        assert_eq!(
            post(&client, &url(&receiver)).await.unwrap(),
            StatusCode::OK
        );
    }
}

#[tokio::test]
async fn the_first_eight_addresses_are_tried() {
    let receiver = Receiver::answering(200).await;
    let policy = TargetPolicy::new().any_port().allow_private_addresses();
    for (closed, expected) in [(7, Ok(StatusCode::OK)), (8, Err(FailureReason::Connect))] {
        let mut addresses = vec!["127.0.0.2"; closed];
        addresses.push("127.0.0.1");
        let client = client(policy.clone(), Answers::new(&[&addresses]));
        let answer = post(&client, &url(&receiver)).await;
        assert_eq!(answer.map_err(|error| error.reason()), expected);
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn names_that_are_not_resolved_fail() {
    let policy = TargetPolicy::new();
    let none = client(policy.clone(), Answers::new(&[&[]]));
    let reason = refusal(&none, "http://receiver.example/").await;
    assert_eq!(reason, FailureReason::Resolve);
    let broken = client(policy.clone(), Answers::default());
    let reason = refusal(&broken, "http://receiver.example/").await;
    assert_eq!(reason, FailureReason::Resolve);

    struct Hanging;
    impl Resolve for Hanging {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            pending().await
        }
    }
    let hanging = client(policy, Hanging);
    let reason = refusal(&hanging, "http://receiver.example/").await;
    assert_eq!(reason, FailureReason::Timeout);
}

#[tokio::test]
async fn the_system_resolves_names() {
    let receiver = Receiver::answering(200).await;
    let policy = TargetPolicy::new().any_port().allow_private_addresses();
    let client = WebhookClient::builder().policy(policy.allow_http()).build();
    let url = format!("http://localhost:{}/", receiver.port());
    assert_eq!(post(&client.unwrap(), &url).await.unwrap(), StatusCode::OK);

    let strict = TargetPolicy::new().any_port().allow_http();
    let strict = WebhookClient::builder().policy(strict).build().unwrap();
    assert_eq!(refusal(&strict, &url).await, FailureReason::Refused);
}

/// A certificate authority.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// Returns the TLS of a receiver with a certificate for these names.
    fn tls(&self, names: &[&str], until: i32) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn client(&self) -> WebhookClient {
        let certificate = self.certificate.der().to_vec();
        let policy = TargetPolicy::new().any_port().allow_private_addresses();
        let builder = WebhookClient::builder().policy(policy);
        let builder = builder.resolver(Answers::new(&[&["127.0.0.1"]]));
        builder.add_root_certificate(certificate).build().unwrap()
    }
}

async fn receiver_with(tls: TlsAcceptor) -> Receiver {
    Receiver::start_at(([127, 0, 0, 1], 0).into(), Some(tls), || ready(answer(200))).await
}

#[tokio::test]
async fn certificates_are_verified_against_the_name() {
    let authority = Authority::new();
    let client = authority.client();
    let names = ["receiver.example", "127.0.0.1"];
    let mut receiver = receiver_with(authority.tls(&names, 4000)).await;
    let at = |host: &str, receiver: &Receiver| format!("https://{host}:{}/", receiver.port());

    let ok = post(&client, &at("receiver.example", &receiver)).await;
    assert_eq!(ok.unwrap(), StatusCode::OK);
    let name = receiver.next().await.server_name;
    assert_eq!(name.as_deref(), Some("receiver.example"));
    let ok = post(&client, &at("127.0.0.1", &receiver)).await;
    assert_eq!(ok.unwrap(), StatusCode::OK);
    assert_eq!(receiver.next().await.server_name, None);

    // Another name, an authority that is not trusted, and a certificate that has expired.
    let reason = refusal(&client, &at("other.example", &receiver)).await;
    assert_eq!(reason, FailureReason::Tls);
    let stranger = Authority::new().client();
    let reason = refusal(&stranger, &at("receiver.example", &receiver)).await;
    assert_eq!(reason, FailureReason::Tls);
    assert!(receiver.is_quiet());
    let mut expired = receiver_with(authority.tls(&names, 2020)).await;
    let reason = refusal(&client, &at("receiver.example", &expired)).await;
    assert_eq!(reason, FailureReason::Tls);
    assert!(expired.is_quiet());
}

#[tokio::test]
async fn a_receiver_without_tls_is_a_failed_handshake() {
    let mut receiver = Receiver::answering(200).await;
    let url = format!("https://receiver.example:{}/", receiver.port());
    let reason = refusal(&Authority::new().client(), &url).await;
    assert_eq!(reason, FailureReason::Tls);
    assert!(receiver.is_quiet());
}

#[tokio::test]
async fn the_settings_of_tls_can_be_replaced() {
    let authority = Authority::new();
    let mut receiver = receiver_with(authority.tls(&["receiver.example"], 4000)).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let policy = TargetPolicy::new().any_port().allow_private_addresses();
    let client = WebhookClient::builder()
        .policy(policy)
        .resolver(Answers::new(&[&["127.0.0.1"]]))
        .tls_config(tls)
        .build()
        .unwrap();
    let url = format!("https://receiver.example:{}/", receiver.port());
    assert_eq!(post(&client, &url).await.unwrap(), StatusCode::OK);
    receiver.next().await;
}

#[test]
fn an_invalid_root_certificate_is_an_error() {
    let built = WebhookClient::builder()
        .add_root_certificate("certificate")
        .build();
    assert_eq!(built.unwrap_err(), ClientBuildError::InvalidRootCertificate);
}

/// The test runs again in a process of its own, whose environment names a proxy. That process delivers
/// to the receiver that a variable names.
#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_is_used() {
    const RECEIVER: &str = "TEST_RECEIVER";
    if let Ok(url) = std::env::var(RECEIVER) {
        let policy = TargetPolicy::new().any_port().allow_private_addresses();
        let client = client(policy, Answers::new(&[&["127.0.0.1"]]));
        assert_eq!(post(&client, &url).await.unwrap(), StatusCode::OK);
        return;
    }
    let mut receiver = Receiver::answering(200).await;
    let proxy = Receiver::answering(502).await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "no_proxy_is_used"]);
    child.env(RECEIVER, url(&receiver));
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        child.env(name, proxy.url(""));
        child.env(name.to_uppercase(), proxy.url(""));
    }
    let output = tokio::task::spawn_blocking(move || child.output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    receiver.next().await;
    assert_eq!(proxy.connections(), 0);
}
