//! Result stores that panic in the first part of a call or in the middle of a body, that fall silent,
//! and lists that break off.

use std::{
    convert::Infallible,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use test_support::results::MemoryResults;
use tokio::time::timeout;
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, RequestBody,
    results::{ResultChunks, ResultEntries, ResultFuture, ResultKey, ResultStore, ResultUpload},
    store::{FencingToken, StoreError},
};

const LENGTH: usize = 300_000;

/// Panics in the first calls, before it returns a future. Lists break off after their entries.
#[derive(Clone, Default)]
struct Panicking {
    results: MemoryResults,
    panics: Arc<AtomicUsize>,
    /// What follows the first chunk of a body.
    rest: Rest,
}

/// What follows the first chunk of a body.
#[derive(Clone, Copy, Default)]
enum Rest {
    #[default]
    Body,
    Silence,
    Panic,
}

impl Panicking {
    fn call(&self) {
        let left = |panics: usize| panics.checked_sub(1);
        if self.panics.fetch_update(SeqCst, SeqCst, left).is_ok() {
            panic!("on purpose");
        }
    }
}

/// Panics when it is asked for what it has in memory.
struct PanickingUpload(Box<dyn ResultUpload>);

impl ResultUpload for PanickingUpload {
    fn write(&mut self, chunk: Bytes) -> ResultFuture<'_, ()> {
        self.0.write(chunk)
    }

    fn finish(&mut self) -> ResultFuture<'_, ()> {
        self.0.finish()
    }

    fn buffered(&self) -> usize {
        panic!("on purpose");
    }
}

impl ResultStore for Panicking {
    fn put<'a>(
        &'a self,
        key: &'a ResultKey,
        header: &'a HeaderMap,
    ) -> ResultFuture<'a, Box<dyn ResultUpload>> {
        self.call();
        let begun = self.results.put(key, header);
        Box::pin(async move {
            let upload = begun.await?;
            Ok(Box::new(PanickingUpload(upload)) as Box<dyn ResultUpload>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a ResultKey,
        range: Range<u64>,
    ) -> ResultFuture<'a, Option<ResultChunks>> {
        self.call();
        let rest = self.rest;
        let all = self.results.get(key, range);
        Box::pin(async move {
            let chunks = all.await?;
            Ok(chunks.map(|chunks| -> ResultChunks {
                match rest {
                    Rest::Body => chunks,
                    Rest::Silence => Box::pin(chunks.take(1).chain(stream::pending())),
                    Rest::Panic => Box::pin(
                        chunks
                            .take(1)
                            .chain(stream::poll_fn(|_| panic!("on purpose"))),
                    ),
                }
            }))
        })
    }

    fn delete<'a>(&'a self, keys: &'a [ResultKey]) -> ResultFuture<'a, ()> {
        self.call();
        self.results.delete(keys)
    }

    fn list(&self) -> ResultEntries<'_> {
        self.call();
        let broken = stream::iter([Err(StoreError::unavailable("the list broke off"))]);
        Box::pin(self.results.list().chain(broken))
    }
}

/// Accepts a request for a long response, and returns the request for its result.
async fn accepted(operations: &Operations<MemoryStore>) -> Request<()> {
    let service = service_fn(async |_: Request<RequestBody<BufferedBody>>| {
        Ok::<_, Infallible>(Response::new(BufferedBody::from(vec![7; LENGTH])))
    });
    let request = Request::post("/reports").body(BufferedBody::default());
    let accepted = operations.layer().layer(service).oneshot(request.unwrap());
    let accepted = accepted.await.unwrap();
    let id = accepted.extensions().get::<OperationId>().unwrap();
    let result = Request::get(format!("/{id}/result?wait=30"));
    result.body(()).unwrap()
}

/// A store that falls silent or panics in the middle of a body ends the response, and does not
/// leave the client waiting.
#[tokio::test(start_paused = true)]
async fn a_body_whose_store_fails_in_the_middle_breaks_off() {
    for rest in [Rest::Silence, Rest::Panic] {
        let results = Panicking {
            rest,
            ..Panicking::default()
        };
        let operations = Operations::new(MemoryStore::new()).result_store(results);
        let request = accepted(&operations).await;
        let response = operations.poll_service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let read = timeout(Duration::from_secs(6 * 60), response.into_body().collect());
        assert!(read.await.expect("the body ends").is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_there_is_a_future_counts_as_unavailable() {
    let results = Panicking::default();
    let operations = Operations::new(MemoryStore::new()).result_store(results.clone());
    results.panics.store(3, SeqCst);
    let request = accepted(&operations).await;
    let result = async || {
        let request = request.clone();
        let response = operations.poll_service().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, body.len())
    };
    assert_eq!(result().await, (StatusCode::OK, LENGTH));
    results.panics.store(1, SeqCst);
    assert_eq!(result().await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn the_sweep_survives_panics_and_deletes_what_it_found_before_an_error() {
    let results = Panicking::default();
    let old = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    let orphan = ResultKey::new(OperationId::new(), FencingToken::from_number(7));
    results.results.insert(&orphan, "orphan", old);
    for panics in [0, 1] {
        let operations = Operations::new(MemoryStore::new()).result_store(results.clone());
        results.panics.store(panics, SeqCst);
        let recovery = operations.recovery();
        let stats = recovery.stats();
        let recovering = tokio::spawn(recovery.run());
        while stats.swept() == 0 {
            assert!(!recovering.is_finished());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(results.results.keys().is_empty());
        results.results.insert(&orphan, "orphan", old);
        recovering.abort();
    }
}
