//! Results that clients download from the storage of the result store, by signed URLs.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt;
use test_support::results::MemoryResults;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, RequestBody,
    dialect::{Fhir, OData},
    store::Owner,
};

const LENGTH: usize = 300_000;

/// The operations of owners that the field `x-tenant` names.
fn operations(results: &MemoryResults) -> Operations<MemoryStore> {
    let tenant = |parts: &Parts| {
        let name = parts.headers.get("x-tenant")?.to_str().ok()?;
        Some(Owner::new(name))
    };
    let operations = Operations::new(MemoryStore::new()).owner(tenant);
    operations.result_store(results.clone())
}

/// Accepts a request of Ada whose response has a long body, and waits for its end.
async fn accept(operations: &Operations<MemoryStore>, status: u16) -> OperationId {
    let service = service_fn(move |_: Request<RequestBody<BufferedBody>>| async move {
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/pdf")
            .header("content-disposition", "attachment; filename=q3.pdf")
            .header("content-language", "de")
            .header("content-encoding", "gzip")
            .header("x-name", "q3");
        let body = BufferedBody::from(vec![7; LENGTH]);
        Ok::<_, Infallible>(response.body(body).unwrap())
    });
    accept_by(operations, service).await
}

/// Accepts a request of Ada, and waits for its end.
async fn accept_by<S>(operations: &Operations<MemoryStore>, service: S) -> OperationId
where
    S: Service<
            Request<RequestBody<BufferedBody>>,
            Response = Response<BufferedBody>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let request = Request::post("/reports").header("x-tenant", "ada");
    let request = request.header("prefer", "respond-async");
    let request = request.body(BufferedBody::default()).unwrap();
    let accepted = operations.layer().layer(service).oneshot(request).await;
    let accepted = accepted.unwrap();
    let id = accepted.extensions().get::<OperationId>().unwrap().clone();
    while operations.in_flight().operations > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    id
}

async fn ask(
    operations: &Operations<MemoryStore>,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Bytes) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(()).unwrap();
    let response = operations.poll_service().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, body)
}

const ADA: (&str, &str) = ("x-tenant", "ada");

#[tokio::test]
async fn the_result_resource_refers_to_the_signed_url() {
    let results = MemoryResults::default();
    let operations = operations(&results);
    let id = accept(&operations, 200).await;
    let path = format!("/{id}/result");
    let (status, headers, body) = ask(&operations, Method::GET, &path, &[ADA]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, LENGTH), "by default");
    let etag = headers["etag"].to_str().unwrap().to_owned();

    results.sign();
    results.read();
    let url = format!(
        "https://storage.example/{}?signature=abc",
        results.keys()[0]
    );
    for range in [None, Some(("range", "bytes=0-9"))] {
        let fields: Vec<_> = [ADA].into_iter().chain(range).collect();
        let (status, headers, body) = ask(&operations, Method::GET, &path, &fields).await;
        assert_eq!((status, body.len()), (StatusCode::SEE_OTHER, 0));
        assert_eq!(headers["location"], url);
        assert!(headers["location"].is_sensitive());
        assert_eq!(headers["cache-control"], "private, no-store");
        assert!(!headers.contains_key("etag") && !headers.contains_key("x-name"));
    }
    // The record has everything for these answers.
    let (status, headers, _) = ask(&operations, Method::HEAD, &path, &[ADA]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-length"], LENGTH.to_string());
    let same = [ADA, ("if-none-match", &*etag)];
    let (status, ..) = ask(&operations, Method::GET, &path, &same).await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);
    let other = [ADA, ("if-match", "\"other\"")];
    let (status, ..) = ask(&operations, Method::GET, &path, &other).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let beyond = [ADA, ("range", "bytes=999999-")];
    let (status, ..) = ask(&operations, Method::GET, &path, &beyond).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(results.read(), 0);
}

#[tokio::test]
async fn nobody_but_the_owner_gets_a_signed_url() {
    let results = MemoryResults::default();
    results.sign();
    let operations = operations(&results);
    let id = accept(&operations, 200).await;
    for tenant in [&[][..], &[("x-tenant", "bob")]] {
        let path = format!("/{id}/result");
        let (status, headers, _) = ask(&operations, Method::GET, &path, tenant).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(!headers.contains_key("location"));
    }
}

/// A redirect would lose the status.
#[tokio::test]
async fn only_a_200_is_downloaded_from_the_storage() {
    let results = MemoryResults::default();
    results.sign();
    let operations = operations(&results);
    let id = accept(&operations, 201).await;
    let path = format!("/{id}/result");
    let (status, headers, body) = ask(&operations, Method::GET, &path, &[ADA]).await;
    assert_eq!((status, body.len()), (StatusCode::CREATED, LENGTH));
    assert_eq!(headers["x-name"], "q3");
}

/// The storage would not send what the application has chosen.
#[tokio::test]
async fn a_changed_replay_is_sent_by_the_node() {
    for which in 0..2 {
        let results = MemoryResults::default();
        results.sign();
        let operations = operations(&results);
        let operations = match which {
            0 => operations.map_replay(|_, header| {
                header.insert(
                    "content-security-policy",
                    HeaderValue::from_static("sandbox"),
                );
            }),
            _ => operations.replay_headers(|name| name == "content-type"),
        };
        let id = accept(&operations, 200).await;
        let path = format!("/{id}/result");
        let (status, headers, body) = ask(&operations, Method::GET, &path, &[ADA]).await;
        assert_eq!((status, body.len()), (StatusCode::OK, LENGTH));
        assert_eq!(headers.contains_key("content-security-policy"), which == 0);
    }
}

#[tokio::test]
async fn a_response_with_trailers_is_sent_by_the_node() {
    let results = MemoryResults::default();
    results.sign();
    let operations = operations(&results);
    let service = service_fn(|_: Request<RequestBody<BufferedBody>>| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let body = BufferedBody::new(vec![7; LENGTH].into(), Some(trailers));
        Ok::<_, Infallible>(Response::new(body))
    });
    let id = accept_by(&operations, service).await;
    let path = format!("/{id}/result");
    let (status, _, body) = ask(&operations, Method::GET, &path, &[ADA]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, LENGTH));
}

#[tokio::test]
async fn a_missing_result_is_reported_and_no_url_is_given() {
    let results = MemoryResults::default();
    results.sign();
    let operations = operations(&results);
    let id = accept(&operations, 200).await;
    results.clear();
    let path = format!("/{id}/result");
    let (status, headers, _) = ask(&operations, Method::GET, &path, &[ADA]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!headers.contains_key("location"));
}

#[tokio::test]
async fn a_url_that_cannot_be_signed_is_no_failure() {
    let results = MemoryResults::default();
    results.sign();
    let operations = operations(&results);
    let id = accept(&operations, 200).await;
    results.fail(1);
    let path = format!("/{id}/result");
    let (status, _, body) = ask(&operations, Method::GET, &path, &[ADA]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, LENGTH));
}

/// The pollers of these dialects are answered with the result, and expect no redirect.
#[tokio::test]
async fn a_poll_that_is_answered_with_the_result_is_not_redirected() {
    let results = MemoryResults::default();
    results.sign();
    let odata = operations(&results).dialect(OData::default());
    let fhir = operations(&results).dialect(Fhir::default());
    for operations in [odata, fhir] {
        let id = accept(&operations, 200).await;
        let fields = [ADA, ("prefer", "wait=20")];
        let (status, headers, body) =
            ask(&operations, Method::GET, &format!("/{id}"), &fields).await;
        assert_eq!((status, body.len()), (StatusCode::OK, LENGTH));
        assert!(!headers.contains_key("location"));
    }
}

#[tokio::test]
async fn uploads_have_the_header_of_their_response() {
    let results = MemoryResults::default();
    let operations = operations(&results);
    accept(&operations, 200).await;
    let header = results.header();
    assert_eq!(header["content-type"], "application/pdf");
    assert_eq!(header["x-name"], "q3");
}
