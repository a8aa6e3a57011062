//! Dialects, and operations that have ended.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, Outcome, PollService, RecordedResponse,
    dialect::{Arm, Azure, Dialect, DurableFunctions, Fhir, Google, Ipa, OData, Ogc, Plain},
    store::{NewOperation, Repository, Store},
};

/// A dialect, its name, and the path of a result below an operation.
pub(crate) struct TestDialect {
    pub(crate) name: &'static str,
    pub(crate) dialect: Arc<dyn Dialect>,
    pub(crate) result: &'static str,
}

pub(crate) fn every_dialect() -> Vec<TestDialect> {
    let test_dialect = |name, dialect, result| TestDialect {
        name,
        dialect,
        result,
    };
    vec![
        test_dialect("plain", Arc::new(Plain::default()), "/result"),
        test_dialect("azure", Arc::new(Azure::default()), "/result"),
        test_dialect("arm", Arc::new(Arm::default()), "/result"),
        test_dialect("google", Arc::new(Google::default()), "/result"),
        test_dialect("odata", Arc::new(OData::default()), ""),
        test_dialect("fhir", Arc::new(Fhir::default()), ""),
        test_dialect("ogc", Arc::new(Ogc::default()), "/results"),
        test_dialect("durable", Arc::new(DurableFunctions::default()), "/result"),
        test_dialect("ipa", Arc::new(Ipa::default()), "/result"),
    ]
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn from_response<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) async fn get<S: Store>(polls: PollService<S>, uri: &str) -> Answer {
    let request = Request::get(uri).body(()).unwrap();
    Answer::from_response(polls.oneshot(request).await.unwrap()).await
}

pub(crate) fn response(
    status: u16,
    media_type: &str,
    body: impl Into<Bytes>,
) -> Response<BufferedBody> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, media_type)
        .body(BufferedBody::from(body.into()))
        .unwrap()
}

pub(crate) fn problem_json(status: u16, body: &'static str) -> Response<BufferedBody> {
    response(status, "application/problem+json", body)
}

/// Creates an operation that has ended with `outcome`.
pub(crate) async fn end(store: &MemoryStore, id: &str, outcome: Outcome<RecordedResponse>) {
    let id: OperationId = id.parse().unwrap();
    store.create(NewOperation::new(id.clone())).await.unwrap();
    let token = store.get(&id).await.unwrap().unwrap().token();
    store.start(&id, token).await.unwrap();
    store.finish(&id, token, outcome, None).await.unwrap();
}

/// Polls an operation that has ended with `outcome`, and its result.
pub(crate) async fn status_and_result(
    dialect: &TestDialect,
    outcome: Outcome<RecordedResponse>,
) -> [Answer; 2] {
    let store = MemoryStore::new();
    end(&store, "q3", outcome).await;
    let polls = Operations::new(store)
        .dialect(Arc::clone(&dialect.dialect))
        .poll_service();
    let status = get(polls.clone(), "/operations/q3").await;
    let result = get(polls, &format!("/operations/q3{}", dialect.result)).await;
    [status, result]
}
