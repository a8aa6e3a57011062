//! Long results, which go to a result store and come back from there.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Collected, StreamBody};
use test_support::results::MemoryResults;
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, Idempotency, LeaseConfig, MemoryStore, OperationId, Operations, QueuedRequest,
    RequestBody, RunService,
    dialect::{Azure, Fhir, Google},
    results::ResultKey,
    store::{
        Created, FencingToken, NewOperation, NodeId, Repository, Store, Version, Watch, Written,
    },
};
use tower_operations_redb::RedbStore;

/// The chunks of a service's body.
const CHUNK: usize = 50_000;

fn content(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 % 251) as u8).collect()
}

/// Accepts a request whose response has a body of this length, and returns its operation.
async fn accept<R>(operations: &Operations<R>, length: usize, status: u16) -> OperationId
where
    R: tower_operations::store::Lease<Output = tower_operations::RecordedResponse> + Clone,
{
    let service = service_fn(move |_: Request<RequestBody<String>>| async move {
        let body = content(length);
        let begins = (0..length).step_by(CHUNK);
        let frames: Vec<Result<_, Infallible>> = begins
            .map(|begin| Ok(Frame::data(body.slice(begin..length.min(begin + CHUNK)))))
            .collect();
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/pdf")
            .header("x-name", "q3");
        let body = StreamBody::new(stream::iter(frames));
        Ok::<_, Infallible>(response.body(body).unwrap())
    });
    let service = operations.layer().layer(service);
    let request = Request::post("/reports").body(String::new()).unwrap();
    let accepted = service.oneshot(request).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    accepted.extensions().get::<OperationId>().unwrap().clone()
}

async fn end<R: Watch>(store: &R, id: &OperationId) -> tower_operations::store::Record<R::Output> {
    let mut since = Version::FIRST;
    loop {
        let record = store.changed(id, since, Duration::from_secs(20)).await;
        let record = record.unwrap().unwrap();
        if record.operation().state().is_terminal() {
            return record;
        }
        since = record.version().unwrap();
    }
}

async fn get<R>(
    operations: &Operations<R>,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, http::HeaderMap, Result<Bytes, String>)
where
    R: Repository<Output = tower_operations::RecordedResponse> + Watch,
{
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).unwrap();
    let response = operations.poll_service().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(Collected::to_bytes);
    (
        parts.status,
        parts.headers,
        body.map_err(|error| error.to_string()),
    )
}

#[tokio::test]
async fn long_results_are_streamed_in_and_out() {
    let results = MemoryResults::default();
    let memory = Operations::new(MemoryStore::new()).result_store(results.clone());
    let redb = RedbStore::in_memory().unwrap();
    let durable = Operations::new(redb.clone()).result_store(results.clone());
    for length in [256 * 1024, 256 * 1024 + 1, 9_000_001] {
        let is_apart = length > 256 * 1024;
        let id = accept(&memory, length, 200).await;
        let path = format!("/{id}/result?wait=10");
        check(&memory, &results, &path, length).await;
        let id = accept(&durable, length, 200).await;
        let record = end(&redb, &id).await;
        let response = record.operation().result().unwrap();
        assert_eq!(
            (response.body().is_none(), response.body_len()),
            (is_apart, length)
        );
        let path = format!("/{id}/result");
        check(&durable, &results, &path, length).await;
        assert_eq!(results.keys().len(), if is_apart { 2 } else { 0 });
        results.clear();
    }
    assert!(
        results.longest_chunk() < 6 * CHUNK + 1,
        "{}",
        results.longest_chunk()
    );
    assert_eq!(results.uploads(), 0);
}

async fn check<R>(operations: &Operations<R>, results: &MemoryResults, path: &str, length: usize)
where
    R: Repository<Output = tower_operations::RecordedResponse> + Watch,
{
    let (status, headers, body) = get(operations, path, &[]).await;
    let body = body.unwrap();
    assert_eq!((status, body.len()), (StatusCode::OK, length));
    assert!(body == content(length));
    assert_eq!(headers["x-name"], "q3");
    assert_eq!(headers["content-type"], "application/pdf");
    let etag = headers["etag"].to_str().unwrap().to_owned();
    assert!(headers.contains_key("repr-digest"));

    let range = [("range", "bytes=100-250100"), ("if-range", &etag)];
    let (status, headers, part) = get(operations, path, &range).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(
        headers["content-range"],
        format!("bytes 100-250100/{length}")
    );
    assert!(part.unwrap() == content(length).slice(100..250_101));

    results.read();
    let unchanged = [("if-none-match", &*etag)];
    let (status, _, body) = get(operations, path, &unchanged).await;
    assert_eq!((status, body.unwrap().len()), (StatusCode::NOT_MODIFIED, 0));
    let (status, _, _) = get(operations, path, &[("range", "bytes=99999999-")]).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);

    let head = Request::head(path).body(()).unwrap();
    let head = operations.poll_service().oneshot(head).await.unwrap();
    assert_eq!(head.headers()[header::CONTENT_LENGTH], length.to_string());
    assert_eq!(head.headers()["etag"], etag);
    let body = head.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((body.len(), results.read()), (0, 0), "nothing was read");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_read() {
    let results = MemoryResults::default();
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone()).result_store(results.clone());
    let id = accept(&operations, 5_000_000, 200).await;
    end(&store, &id).await;
    let request = Request::get(format!("/{id}/result")).body(()).unwrap();
    let response = operations.poll_service().oneshot(request).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert!(results.read() < 100_000);
    let (status, _, body) = get(&operations, &format!("/{id}"), &[]).await;
    let operation: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
    assert_eq!(
        (status, &operation["state"]),
        (StatusCode::OK, &"succeeded".into())
    );
    assert_eq!((operation.get("result"), results.read()), (None, 0));
}

#[tokio::test]
async fn dialects_replay_and_list_long_results() {
    let results = MemoryResults::default();
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone()).result_store(results.clone());
    for status in [200, 201, 422] {
        let id = accept(&operations, 1_000_000, status).await;
        end(&store, &id).await;
        let (answered, _, body) = get(&operations, &format!("/{id}/result"), &[]).await;
        assert_eq!(answered.as_u16(), status);
        assert!(body.unwrap() == content(1_000_000));
    }
    let id = accept(&operations, 1_000_000, 200).await;
    end(&store, &id).await;
    let fhir = operations.clone().dialect(Fhir::default());
    let (status, _, body) = get(&fhir, &format!("/{id}"), &[]).await;
    assert!(status == StatusCode::OK && body.unwrap() == content(1_000_000));
    results.read();
    let google = operations.clone().dialect(Google::default());
    let azure = operations.dialect(Azure::default());
    for operations in [google, azure] {
        let (status, _, body) = get(&operations, &format!("/{id}"), &[]).await;
        assert!(status == StatusCode::OK && body.unwrap().len() < 2000);
    }
    assert_eq!(results.read(), 0);
}

/// The record alone has the digest of a body that is not in it, however short.
#[tokio::test]
async fn short_bodies_above_a_low_threshold_come_back_from_a_durable_store() {
    let results = MemoryResults::default();
    let store = RedbStore::in_memory().unwrap();
    let operations = Operations::new(store.clone())
        .result_store(results.clone())
        .result_threshold(0);
    for length in [0, 1, 1000, 20_000] {
        let id = accept(&operations, length, 200).await;
        end(&store, &id).await;
        let (status, _, body) = get(&operations, &format!("/{id}/result"), &[]).await;
        assert_eq!(status, StatusCode::OK, "{length}");
        assert!(body.unwrap() == content(length));
    }
    assert_eq!(results.keys().len(), 3, "an empty body is in its record");
}

#[tokio::test]
async fn a_worker_uploads_a_long_result() {
    let (results, store) = (MemoryResults::default(), MemoryStore::new());
    let new = NewOperation::new(OperationId::new()).with_lease(LeaseConfig::default());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let request = Request::post("/reports").body(BufferedBody::default());
    let message = QueuedRequest::new(&record, request.unwrap());
    let service = service_fn(async |_: Request<BufferedBody>| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from(content(300_000))))
    });
    let worker = RunService::new(store.clone(), service).result_store(results.clone());
    worker.oneshot(message).await.unwrap();
    assert_eq!(results.keys().len(), 1);
    let operations = Operations::new(store).result_store(results);
    let id = record.operation().id();
    let (_, _, body) = get(&operations, &format!("/{id}/result"), &[]).await;
    assert!(body.unwrap() == content(300_000));
}

/// Such an answer is no operation: it is recorded, or refused, as without a result store.
#[tokio::test]
async fn a_direct_answer_under_a_key_does_not_use_the_result_store() {
    let results = MemoryResults::default();
    let operations = Operations::new(MemoryStore::new())
        .result_store(results.clone())
        .result_limit(u64::MAX);
    for (length, status) in [(1_000_000, 200), (8 * 1024 * 1024 + 1, 500)] {
        // A body of unknown length.
        let service = service_fn(move |_: Request<RequestBody<String>>| async move {
            let frame: Result<_, Infallible> = Ok(Frame::data(content(length)));
            let body = StreamBody::new(stream::iter([frame]));
            Ok::<_, Infallible>(Response::new(body))
        });
        let layer = operations.layer().after(Duration::from_secs(9));
        let layer = layer.idempotency(Idempotency::optional());
        let request = Request::post("/reports")
            .header("idempotency-key", format!("\"a-key-for-{length}-bytes\""));
        let request = request.body(String::new()).unwrap();
        let answer = layer.layer(service).oneshot(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
    }
    assert!(results.keys().is_empty());
}

#[tokio::test]
async fn a_change_of_replays_is_made_to_every_result() {
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone())
        .result_store(MemoryResults::default())
        .result_threshold(1000)
        .map_replay(|_, fields| {
            let attachment = header::HeaderValue::from_static("attachment");
            fields.insert(header::CONTENT_DISPOSITION, attachment);
        });
    for length in [999, 1000, 1001] {
        let id = accept(&operations, length, 200).await;
        end(&store, &id).await;
        let (_, headers, body) = get(&operations, &format!("/{id}/result"), &[]).await;
        assert_eq!(headers["content-disposition"], "attachment");
        assert!(body.unwrap() == content(length));
    }
}

#[tokio::test]
async fn a_missing_or_damaged_result_is_never_sent_as_a_whole_one() {
    let results = MemoryResults::default();
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone()).result_store(results.clone());
    let id = accept(&operations, 1_000_000, 200).await;
    end(&store, &id).await;
    let path = format!("/{id}/result");
    for damage in [
        |body: Bytes| body.slice(..999_999),
        |_: Bytes| [&content(999_999)[..], b"!"].concat().into(),
    ] {
        results.change(damage);
        let (status, _, body) = get(&operations, &path, &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.is_err(), "the connection is broken off");
        results.change(|_| content(1_000_000));
    }
    let (_, _, body) = get(&operations, &path, &[]).await;
    assert!(body.is_ok());
    results.clear();
    let (status, headers, body) = get(&operations, &path, &[]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(headers["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
    assert_eq!(problem["type"], "urn:tower-operations:result-unreadable");
    let elsewhere = Operations::new(store);
    let (status, _, _) = get(&elsewhere, &path, &[]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test(start_paused = true)]
async fn uploads_are_repeated_and_fail_the_operation_at_its_limit() {
    let results = MemoryResults::default();
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone())
        .result_store(results.clone())
        .running_timeout(Duration::from_secs(60));
    results.fail(5);
    let id = accept(&operations, 1_000_000, 200).await;
    let record = end(&store, &id).await;
    assert_eq!(record.operation().result().unwrap().body_len(), 1_000_000);
    let (_, _, body) = get(&operations, &format!("/{id}/result"), &[]).await;
    assert!(body.unwrap() == content(1_000_000));

    let kept = results.keys();
    results.fail(usize::MAX);
    let id = accept(&operations, 1_000_000, 200).await;
    let record = end(&store, &id).await;
    let kind = record.operation().failure().unwrap().kind().unwrap();
    assert_eq!(kind.code(), "result-not-stored");
    results.fail(0);
    results.refuse();
    let id = accept(&operations, 1_000_000, 200).await;
    let record = end(&store, &id).await;
    let kind = record.operation().failure().unwrap().kind().unwrap();
    assert_eq!(kind.code(), "result-not-stored");
    assert_eq!((results.keys(), results.uploads()), (kept, 0));
}

#[tokio::test]
async fn a_limit_holds_for_long_results_too() {
    let results = MemoryResults::default();
    let store = MemoryStore::new();
    let operations = Operations::new(store.clone())
        .result_store(results.clone())
        .result_threshold(1000)
        .result_limit(500_000);
    let id = accept(&operations, 500_000, 200).await;
    let record = end(&store, &id).await;
    assert_eq!(record.operation().result().unwrap().body_len(), 500_000);
    let id = accept(&operations, 500_001, 200).await;
    let record = end(&store, &id).await;
    let kind = record.operation().failure().unwrap().kind().unwrap();
    assert_eq!(kind.code(), "result-too-large");
    assert_eq!((results.keys().len(), results.uploads()), (1, 0));
    assert_eq!(operations.in_flight().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn recovery_deletes_what_no_operation_names() {
    let results = MemoryResults::default();
    let store = MemoryStore::new();
    let lease = LeaseConfig::new(NodeId::new(), Duration::from_secs(30));
    let operations = Operations::new(store.clone())
        .result_store(results.clone())
        .lease(lease);
    let named = accept(&operations, 1_000_000, 200).await;
    let record = end(&store, &named).await;
    let deleted = accept(&operations, 1_000_000, 200).await;
    let gone = end(&store, &deleted).await;
    let written = store.delete(&deleted, gone.stamp().unwrap()).await.unwrap();
    assert!(matches!(written, Written::Done(_)));
    let old = SystemTime::now() - Duration::from_secs(3 * 60 * 60);
    let of = |id: &OperationId, token| ResultKey::new(id.clone(), token);
    let kept = of(&named, record.token());
    let late = of(&named, FencingToken::from_number(7));
    let young = of(&OperationId::new(), FencingToken::from_number(9));
    results.insert(&kept, content(1_000_000), old);
    results.insert(&of(&deleted, gone.token()), "deleted", old);
    results.insert(&late, "late", old);
    results.insert(&young, "young", SystemTime::now());
    let live = NewOperation::new(OperationId::new()).with_lease(LeaseConfig::default());
    let needed = ResultKey::of_request(live.id.clone(), FencingToken::from_number(7));
    store.create(live).await.unwrap();
    results.insert(&needed, "the request of a live operation", old);
    let used = ResultKey::of_request(named.clone(), record.token());
    results.insert(&used, "the request of an operation that has ended", old);
    let recovery = operations.recovery();
    let stats = recovery.stats();
    let recovering = tokio::spawn(recovery.run());
    while stats.swept() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    recovering.abort();
    let mut left = vec![kept.to_string(), young.to_string(), needed.to_string()];
    left.sort();
    assert_eq!((results.keys(), stats.swept()), (left, 3));
    let (_, _, body) = get(&operations, &format!("/{named}/result"), &[]).await;
    assert!(body.unwrap() == content(1_000_000));
    assert!(store.get(&deleted).await.unwrap().is_none());
}
