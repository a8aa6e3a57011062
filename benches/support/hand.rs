//! An implementation by hand, for comparison: axum, a map, a task and two handlers.

// Each benchmark uses a part of this module.
#![allow(dead_code)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use dashmap::DashMap;
use http::Request;
use serde::{Serialize, Serializer};
use serde_json::{Value, value::RawValue};
use tower::ServiceExt;
use uuid::Uuid;

use crate::report::work;

/// A representation of a result in the map.
pub(crate) trait StoredResult: Sized + Serialize + Send + Sync + 'static {
    fn parse(body: &Bytes) -> serde_json::Result<Self>;
}

impl StoredResult for Value {
    fn parse(body: &Bytes) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }
}

impl StoredResult for Box<RawValue> {
    fn parse(body: &Bytes) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }
}

#[derive(Serialize)]
pub(crate) struct Operation<R> {
    pub(crate) id: Uuid,
    state: &'static str,
    result: Option<R>,
    #[serde(serialize_with = "rfc3339")]
    created_at: SystemTime,
    #[serde(serialize_with = "rfc3339")]
    updated_at: SystemTime,
}

fn rfc3339<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(*time))
}

impl<R> Operation<R> {
    pub(crate) fn new(id: Uuid) -> Self {
        let now = SystemTime::now();
        Self {
            id,
            state: "running",
            result: None,
            created_at: now,
            updated_at: now,
        }
    }

    pub(crate) fn finish(&mut self, result: serde_json::Result<R>) {
        self.state = if result.is_ok() {
            "succeeded"
        } else {
            "failed"
        };
        self.result = result.ok();
        self.updated_at = SystemTime::now();
    }
}

pub(crate) type Operations<R> = Arc<DashMap<Uuid, Operation<R>>>;

/// The body of a 202.
#[derive(Serialize)]
struct Accepted<'a> {
    id: Uuid,
    state: &'a str,
    location: &'a str,
}

/// Builds the application with existing operations.
pub(crate) fn app<R: StoredResult>(operations: Operations<R>, takes: Duration) -> Router {
    let work = work::<Bytes>(takes);
    let accept = async move |State(operations): State<Operations<R>>, body: Bytes| {
        let id = Uuid::new_v4();
        operations.insert(id, Operation::new(id));
        tokio::spawn(async move {
            let Ok(response) = work.oneshot(Request::new(body)).await;
            let result = R::parse(response.body().data());
            if let Some(mut operation) = operations.get_mut(&id) {
                operation.finish(result);
            }
        });
        let location = format!("/operations/{id}");
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&location).expect("a path");
        headers.insert(header::LOCATION, value);
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        let accepted = Accepted {
            id,
            state: "pending",
            location: &location,
        };
        (StatusCode::ACCEPTED, headers, Json(accepted)).into_response()
    };
    Router::new()
        .route("/reports", post(accept))
        .route("/operations/{id}", get(poll::<R>))
        .with_state(operations)
}

async fn poll<R: StoredResult>(
    State(operations): State<Operations<R>>,
    Path(id): Path<Uuid>,
) -> Response {
    match operations.get(&id) {
        // The operation is serialized under the lock of the map, which saves a copy.
        Some(operation) => Json(operation.value()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
