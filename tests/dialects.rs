//! Wire formats of the dialects, as snapshots of every response.
//!
//! `INSTA_UPDATE=always cargo test --test dialects` updates the snapshots.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Method, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, Failure, FailureKind, MemoryStore, Metadata, Operation, OperationId, Operations,
    Outcome, PollService, Problem, Progress, RecordedResponse, RequestBody, Snapshot, Status,
    dialect::{
        Arm, Azure, Context, Dialect, DurableFunctions, Fhir, Google, Ipa, OData, Ogc, Plain,
        Replay, Urls,
    },
    store::{
        Created, FencingToken, List, ListQuery, NewOperation, Page, Record, Repository, Stamp,
        Store, StoreError, Version, Watch, Written,
    },
};

const BASE: &str = "https://api.example.com";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second)
}

/// A store with fixed operations. A cancel returns a changed record and stores nothing.
#[derive(Debug, Clone, Default)]
struct FixedStore(BTreeMap<String, Record<RecordedResponse>>);

type Answer<T> = Result<T, StoreError>;

impl Store for FixedStore {
    type Output = RecordedResponse;

    async fn get(&self, id: &OperationId) -> Answer<Option<Record<RecordedResponse>>> {
        Ok(self.0.get(&id.to_string()).cloned())
    }
}

impl Watch for FixedStore {
    async fn changed(
        &self,
        id: &OperationId,
        _: Version,
        _: Duration,
    ) -> Answer<Option<Record<RecordedResponse>>> {
        self.get(id).await
    }
}

impl List for FixedStore {
    async fn list(&self, query: &ListQuery) -> Answer<Page<RecordedResponse>> {
        let all = self.0.values();
        let selected = all.filter(|record| {
            let state = record.operation().state();
            query.states.contains(state)
        });
        let records = selected.take(query.limit).cloned().collect();
        let next = tower_operations::store::Cursor("a b".into());
        Ok(Page::new(records, Some(next)))
    }
}

impl Repository for FixedStore {
    async fn create(&self, _: NewOperation) -> Answer<Created<RecordedResponse>> {
        Err(StoreError::Full)
    }

    async fn start(&self, _: &OperationId, _: FencingToken) -> Answer<Written<RecordedResponse>> {
        Ok(Written::Gone)
    }

    async fn report(
        &self,
        _: &OperationId,
        _: FencingToken,
        _: Progress,
    ) -> Answer<Written<RecordedResponse>> {
        Ok(Written::Gone)
    }

    async fn finish(
        &self,
        _: &OperationId,
        _: FencingToken,
        _: Outcome<RecordedResponse>,
        _: Option<Progress>,
    ) -> Answer<Written<RecordedResponse>> {
        Ok(Written::Gone)
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<RecordedResponse>,
    ) -> Answer<Written<RecordedResponse>> {
        use tower_operations::store::Step;
        let record = &self.0[&id.to_string()];
        match record.force_finished(expected, outcome, at(9), DAY) {
            Step::Next(next) => Ok(Written::Done(next)),
            Step::Done | Step::Lost => Ok(Written::Lost(record.clone())),
        }
    }

    async fn delete(&self, id: &OperationId, _: Stamp) -> Answer<Written<RecordedResponse>> {
        Ok(Written::Done(self.0[&id.to_string()].clone()))
    }
}

fn response(status: u16, media_type: &str, body: &'static [u8]) -> RecordedResponse {
    let response = Response::builder()
        .status(status)
        .header("content-type", media_type)
        .header("x-checksum", "1")
        .header("set-cookie", "session=1");
    RecordedResponse::new(response.body(BufferedBody::from(body)).unwrap())
}

fn operation(id: &str, status: impl Into<Status<RecordedResponse>>) -> Operation<RecordedResponse> {
    let status = status.into();
    let mut metadata = Metadata::default()
        .with_created_at(at(0))
        .with_updated_at(at(0))
        .with_method(Method::POST)
        .with_name("report");
    if !matches!(status, Status::Pending) {
        metadata = metadata
            .with_started_at(at(1))
            .with_updated_at(at(2))
            .with_progress(
                Progress::from_count(2, 5)
                    .with_unit("pages")
                    .with_message("page 2"),
            );
    }
    if matches!(status, Status::Ended(_)) {
        metadata = metadata
            .with_finished_at(at(3))
            .with_updated_at(at(3))
            .with_expires_at(at(3) + DAY);
    }
    Operation::from_parts(id.parse().unwrap(), Snapshot::new(status, metadata))
}

/// A store with one operation for each state and each kind of outcome.
fn operations() -> FixedStore {
    let json = response(200, "application/json", br#"{"title":"Q3","pages":5}"#);
    let pdf = response(200, "application/pdf", b"%PDF-1.7\n\xff");
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
        .with_title("Report failed")
        .with_detail("page 3 has no data")
        .with("code", "InvalidInput");
    let refusal =
        br#"{"title":"Report failed","detail":"page 3 has no data","code":"InvalidInput"}"#;
    let refusal = response(422, "application/problem+json", refusal);
    let failure = Failure::from(problem).with_response(refusal);
    let all = [
        operation("1-pending", Status::Pending),
        operation("2-running", Status::Running),
        operation("3-json", Outcome::Succeeded(Some(json))),
        operation("4-binary", Outcome::Succeeded(Some(pdf))),
        operation("5-nothing", Outcome::Succeeded(None)),
        operation("6-problem", Outcome::Failed(failure)),
        operation("7-panic", Outcome::failed(FailureKind::Panicked)),
        operation("8-canceled", Outcome::Canceled),
    ];
    let records = all.map(|operation| {
        let id = operation.id().to_string();
        let record = Record::restore(operation, Version::FIRST.next());
        (id, record)
    });
    FixedStore(records.into())
}

fn write(
    out: &mut String,
    title: &str,
    status: StatusCode,
    headers: &http::HeaderMap,
    body: &[u8],
) {
    writeln!(out, "--- {title}\n{status}").unwrap();
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    fields.sort();
    fields
        .iter()
        .for_each(|field| writeln!(out, "{field}").unwrap());
    if !body.is_empty() {
        writeln!(
            out,
            "{}",
            body.escape_ascii().to_string().replace("\\\"", "\"")
        )
        .unwrap();
    }
    out.push('\n');
}

/// The paths of a dialect.
struct Paths {
    at: &'static str,
    /// The suffix of a result, after the id.
    result: Option<&'static str>,
    cancel: (Method, &'static str),
    forget: bool,
    /// The query of a list.
    list: Option<&'static str>,
    more: &'static [(&'static str, &'static str)],
}

async fn everything(dialect: impl Dialect + Clone, paths: Paths) -> String {
    let mut out = String::new();
    let store = operations();
    let urls = Urls::new(format!("{BASE}{}/1-pending", paths.at));
    let replay = Replay::default();
    let mut context = Context::new(&urls, &replay);
    context.retry_after = Some(1);
    let pending = store.0["1-pending"].operation();
    let accepted = dialect.accepted(&pending.view(), &context);
    let body = accepted.body().data();
    write(
        &mut out,
        "accepted",
        accepted.status(),
        accepted.headers(),
        body,
    );

    let polls = Operations::new(store.clone())
        .dialect(dialect)
        .retry_after(|_: Duration| Duration::from_secs(2))
        .public_path(paths.at)
        .public_url(BASE)
        .unwrap()
        .poll_service()
        .listing();
    let mut requests: Vec<(Method, String)> = Vec::new();
    for id in store.0.keys() {
        requests.push((Method::GET, format!("/{id}")));
    }
    for id in ["2-running", "3-json", "6-problem", "7-panic", "8-canceled"] {
        requests.extend(
            paths
                .result
                .map(|part| (Method::GET, format!("/{id}{part}"))),
        );
    }
    let (method, part) = paths.cancel;
    for id in ["2-running", "3-json", "8-canceled"] {
        requests.push((method.clone(), format!("/{id}{part}")));
    }
    if paths.forget {
        requests.push((Method::DELETE, "/2-running".into()));
        requests.push((Method::DELETE, "/3-json".into()));
    }
    requests.push((Method::GET, "/unknown".into()));
    requests.push((Method::GET, "/no%20id".into()));
    requests.push((Method::PUT, "/3-json".into()));
    requests.push((Method::OPTIONS, "/3-json".into()));
    requests.extend(paths.list.map(|query| (Method::GET, format!("/?{query}"))));
    for (method, path) in paths.more {
        requests.push((method.parse().unwrap(), (*path).into()));
    }
    for (method, path) in requests {
        let title = format!("{method} {path}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(())
            .unwrap();
        let answer = polls.clone().oneshot(request).await.unwrap();
        let body = answer.body().as_whole().unwrap().data();
        write(&mut out, &title, answer.status(), answer.headers(), body);
    }
    out
}

macro_rules! dialects {
    ($($name:ident: $dialect:expr, $paths:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                insta::assert_snapshot!(everything($dialect, $paths).await);
            }
        )*
    };
}

dialects! {
    plain: Plain::default(), Paths {
        at: "/operations",
        result: Some("/result"),
        cancel: (Method::DELETE, ""),
        forget: false,
        list: Some("limit=2&state=failed"),
        more: &[],
    };
    azure: Azure::default(), Paths {
        at: "/operations",
        result: Some("/result"),
        cancel: (Method::POST, ":cancel"),
        forget: false,
        list: None,
        more: &[("GET", "/"), ("DELETE", "/2-running"), ("GET", "/2-running:cancel")],
    };
    arm: Arm::default(), Paths {
        at: "/operations",
        result: Some("/result"),
        cancel: (Method::POST, ":cancel"),
        forget: false,
        list: None,
        more: &[],
    };
    google: Google::default(), Paths {
        at: "/v1/operations",
        result: Some("/result"),
        cancel: (Method::POST, ":cancel"),
        forget: true,
        list: Some("pageSize=3"),
        more: &[
            ("POST", "/3-json:wait?timeout=0.1s"),
            ("POST", "/2-running:wait?timeout=soon"),
            ("GET", "/?filter=done"),
            ("GET", "/?pageSize=x"),
            ("GET", "/2-running:cancel"),
        ],
    };
    google_below_a_parent: Google::default().parent("/projects/p/"), Paths {
        at: "/v1/projects/p/operations",
        result: None,
        cancel: (Method::POST, ":cancel"),
        forget: false,
        list: None,
        more: &[],
    };
    odata: OData::default(), Paths {
        at: "/operations",
        result: None,
        cancel: (Method::DELETE, ""),
        forget: false,
        list: None,
        more: &[],
    };
    fhir: Fhir::default(), Paths {
        at: "/operations",
        result: None,
        cancel: (Method::DELETE, ""),
        forget: false,
        list: None,
        more: &[],
    };
    ogc: Ogc::default(), Paths {
        at: "/jobs",
        result: Some("/results"),
        cancel: (Method::DELETE, ""),
        forget: false,
        list: Some("limit=2&status=failed"),
        more: &[("GET", "/?processID=report"), ("GET", "/?status=done"), ("GET", "/?limit=0")],
    };
    durable: DurableFunctions::default(), Paths {
        at: "/instances",
        result: Some("/result"),
        cancel: (Method::POST, "/terminate?reason=late"),
        forget: true,
        list: Some("top=2&runtimeStatus=Completed"),
        more: &[
            ("GET", "/6-problem?returnInternalServerErrorOnFailure=true"),
            ("POST", "/2-running/raiseEvent/done"),
            ("POST", "/2-running/rewind?reason=x"),
            ("GET", "/?runtimeStatus=completed"),
            ("GET", "/?createdTimeFrom=2026-01-01"),
        ],
    };
    ipa: Ipa::default(), Paths {
        at: "/operations",
        result: Some("/result"),
        cancel: (Method::POST, ":cancel"),
        forget: false,
        list: Some("limit=3"),
        more: &[],
    };
    ipa_of_a_custom_method: Ipa::default().custom_method("render"), Paths {
        at: "/operations",
        result: None,
        cancel: (Method::POST, ":cancel"),
        forget: false,
        list: None,
        more: &[],
    };
}

/// Two dialects serve the same operations at the same time.
#[tokio::test]
async fn two_dialects_share_one_store() {
    let store = MemoryStore::new();
    let inner = service_fn(async |_: Request<RequestBody<BufferedBody>>| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from("Q3")))
    });
    let operations = Operations::new(store.clone());
    let azure = operations.clone().dialect(Azure::default());
    let azure = azure.public_url(BASE).unwrap().layer();
    let ogc = operations.dialect(Ogc::default()).public_path("/jobs");
    let ogc = ogc.layer();
    let post = || Request::post("/").body(BufferedBody::from("Q3")).unwrap();
    let by_azure = azure.layer(inner).oneshot(post()).await.unwrap();
    assert_eq!(by_azure.status(), StatusCode::ACCEPTED);
    let url = by_azure.headers()["operation-location"].to_str().unwrap();
    let first = url.rsplit('/').next().unwrap().to_owned();
    let by_ogc = ogc.layer(inner).oneshot(post()).await.unwrap();
    assert_eq!(by_ogc.status(), StatusCode::CREATED);
    let url = by_ogc.headers()["location"].to_str().unwrap();
    let second = url.strip_prefix("/jobs/").unwrap().to_owned();

    let azure = Operations::new(store.clone())
        .dialect(Azure::default())
        .poll_service();
    let jobs = Operations::new(store.clone())
        .dialect(Ogc::default())
        .poll_service();
    let google = Operations::new(store)
        .dialect(Google::default())
        .poll_service()
        .listing();
    for id in [first, second] {
        let get = async |polls: &PollService<MemoryStore>| {
            let request = Request::get(format!("/{id}")).header("prefer", "wait=9");
            let answer = polls
                .clone()
                .oneshot(request.body(()).unwrap())
                .await
                .unwrap();
            let body = answer.body().as_whole().unwrap().data().clone();
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()
        };
        assert_eq!(get(&azure).await["status"], "Succeeded");
        assert_eq!(get(&jobs).await["status"], "successful");
        assert_eq!(get(&google).await["done"], true);
    }
}

/// Only `Plain` deletes an ended operation when a cancel names its version.
#[tokio::test]
async fn a_cancel_with_the_version_deletes_only_in_plain() {
    let send = async |dialect: Arc<dyn Dialect>, method: Method, path: &str| {
        let polls = Operations::new(operations())
            .dialect(dialect)
            .poll_service();
        let get = Request::get("/3-json").body(()).unwrap();
        let plain = PollService::new(operations()).oneshot(get).await.unwrap();
        let etag = &plain.headers()["etag"];
        let request = Request::builder().method(method).uri(path);
        let request = request.header("if-match", etag).body(()).unwrap();
        polls.oneshot(request).await.unwrap()
    };
    let plain = send(Arc::new(Plain::default()), Method::DELETE, "/3-json").await;
    assert_eq!(plain.status(), StatusCode::NO_CONTENT);
    for (dialect, method, path, status) in [
        (
            Arc::new(Azure::default()) as Arc<dyn Dialect>,
            Method::POST,
            "/3-json:cancel",
            409,
        ),
        (
            Arc::new(Ipa::default()),
            Method::POST,
            "/3-json:cancel",
            409,
        ),
        (
            Arc::new(DurableFunctions::default()),
            Method::POST,
            "/3-json/terminate",
            410,
        ),
        (Arc::new(OData::default()), Method::DELETE, "/3-json", 410),
        (
            Arc::new(Google::default()),
            Method::POST,
            "/3-json%3Acancel",
            200,
        ),
    ] {
        let answer = send(dialect, method, path).await;
        assert_eq!(answer.status(), status, "{path}");
        let body = answer.body().as_whole().unwrap().data();
        assert!(!body.windows(7).any(|at| at == b"Deleted"), "{path}");
    }
}

/// A 304 has the `Retry-After` of the 200 it replaces.
#[tokio::test]
async fn a_304_has_the_retry_after_of_the_dialect() {
    let polls = Operations::new(operations())
        .dialect(Arm::default())
        .poll_service();
    let get = Request::get("/2-running").header("if-none-match", "*");
    let answer = polls.oneshot(get.body(()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(answer.headers()["retry-after"], "10");
}

/// An `OperationOutcome` of the service is passed on. A status that would describe
/// the poll becomes 422.
#[tokio::test]
async fn fhir_passes_on_an_operation_outcome_and_maps_statuses_about_polls() {
    let outcome = br#"{"resourceType":"OperationOutcome","issue":[{"severity":"error"}]}"#;
    for (status, media_type, expected) in [
        (404, "application/fhir+json", 404),
        (429, "application/fhir+json", 422),
        (503, "application/fhir+json; charset=utf-8", 422),
        (408, "text/plain", 422),
    ] {
        let recorded = response(status, media_type, outcome);
        let mut store = FixedStore::default();
        let record = Record::restore(operation("q3", recorded.into_outcome()), Version::FIRST);
        store.0.insert("q3".into(), record);
        let polls = Operations::new(store)
            .dialect(Fhir::default())
            .poll_service();
        let get = Request::get("/q3").body(()).unwrap();
        let answer = polls.oneshot(get).await.unwrap();
        assert_eq!(answer.status(), expected, "{status} {media_type}");
        let body = answer.body().as_whole().unwrap().data();
        assert_eq!(
            body == &outcome[..],
            media_type.contains("fhir"),
            "{status}"
        );
    }
}

/// OData, section 11.6: no 202 without `respond-async`.
#[tokio::test]
async fn odata_never_answers_202_without_the_preference() {
    let store = MemoryStore::new();
    let inner = service_fn(async |_: Request<RequestBody<BufferedBody>>| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from("Q3")))
    });
    let odata_layer = Operations::new(store.clone())
        .dialect(OData::default())
        .layer();
    for layer in [
        odata_layer.clone(),
        odata_layer.clone().when_preferred(),
        odata_layer.clone().after(Duration::ZERO),
        odata_layer.clone().when_signaled(),
    ] {
        let post = Request::post("/").header("prefer", "wait=5");
        let post = post.body(BufferedBody::default()).unwrap();
        let answer = layer.layer(inner).oneshot(post).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["vary"], "Prefer");
        assert!(!answer.headers().contains_key("preference-applied"));
        assert_eq!(store.len(), 0);
    }
    let post = Request::post("/").header("prefer", "respond-async");
    let post = post.body(BufferedBody::default()).unwrap();
    let answer = odata_layer.layer(inner).oneshot(post).await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()["preference-applied"], "respond-async");
    assert_eq!(store.len(), 1);
}

/// Forwarded fields count only where the application trusts the proxy.
#[tokio::test]
async fn a_trusted_proxy_determines_the_public_url() {
    let store = MemoryStore::new();
    let inner = service_fn(async |_: Request<RequestBody<BufferedBody>>| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from("Q3")))
    });
    let is_proxy = |parts: &http::request::Parts| parts.headers.contains_key("x-proxy-secret");
    let layer = Operations::new(store.clone())
        .dialect(Azure::default())
        .public_url("https://fallback.example")
        .unwrap()
        .trust_forwarded(is_proxy)
        .layer();
    let polls = Operations::new(store.clone())
        .dialect(OData::default())
        .public_url("https://fallback.example/v1/")
        .unwrap()
        .trust_x_forwarded(is_proxy)
        .poll_service();
    let forwarded = "host=evil.example, host=\"a.example:8443\";proto=https";
    for (is_trusted, expected) in [
        (true, "https://a.example:8443/operations/"),
        (false, "https://fallback.example/operations/"),
    ] {
        let mut post = Request::post("/").header("forwarded", forwarded);
        if is_trusted {
            post = post.header("x-proxy-secret", "1");
        }
        let post = post.body(BufferedBody::default()).unwrap();
        let answer = layer.layer(inner).oneshot(post).await.unwrap();
        let url = answer.headers()["operation-location"].to_str().unwrap();
        assert!(url.starts_with(expected), "{url}");
    }
    let new = NewOperation::new("q3".parse().unwrap());
    store.create(new).await.unwrap();
    let get = Request::get("/q3")
        .header("forwarded", "host=evil.example")
        .header("x-forwarded-host", "b.example")
        .header("x-proxy-secret", "1");
    let answer = polls.oneshot(get.body(()).unwrap()).await.unwrap();
    assert_eq!(
        answer.headers()["location"],
        "https://b.example/v1/operations/q3"
    );
    // A missing scheme is that of the base URL. Without a valid host the field is ignored.
    for (forwarded, expected) in [
        ("host=a.example", "https://a.example/operations/"),
        ("host=\"[::1]:8443\"", "https://[::1]:8443/operations/"),
        ("proto=http;host=a.example", "http://a.example/operations/"),
        ("proto=http", "https://fallback.example/operations/"),
        (
            "host=\"a.example:99999\"",
            "https://fallback.example/operations/",
        ),
        (
            "host=\"user@a.example\"",
            "https://fallback.example/operations/",
        ),
        (
            "host=\"a.example/x\"",
            "https://fallback.example/operations/",
        ),
        (
            "host=evil.example;for=\", host=a.example",
            "https://fallback.example/operations/",
        ),
    ] {
        let post = Request::post("/")
            .header("forwarded", forwarded)
            .header("x-proxy-secret", "1");
        let post = post.body(BufferedBody::default()).unwrap();
        let answer = layer.layer(inner).oneshot(post).await.unwrap();
        let url = answer.headers()["operation-location"].to_str().unwrap();
        assert!(url.starts_with(expected), "{forwarded}: {url}");
    }
}
