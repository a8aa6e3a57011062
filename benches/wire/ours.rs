//! The crate, on hyper.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, Outcome, PollService, RecordedResponse,
    RequestBody, ResponseBody,
    store::{Created, LeaseConfig, NewOperation, Repository},
};

use super::{
    ids,
    report::{answer, report, work},
    serve::{in_axum, on_hyper},
    workload::Workload,
};

pub(crate) async fn serve(workload: Workload) {
    let store = store(workload).await;
    let reports = reports(store.clone(), workload);
    let polls = PollService::new(store).mounted_at("/operations");
    on_hyper(move |request: Request<Incoming>| {
        let is_accept = request.uri().path() == "/reports";
        // Each call clones only the service that it needs.
        let service = match is_accept {
            true => Either::Left(reports.clone()),
            false => Either::Right(polls.clone()),
        };
        async move {
            Ok(match service {
                Either::Left(reports) => {
                    let Ok(response) = reports.oneshot(request).await;
                    response.map(Either::Left)
                }
                Either::Right(polls) => {
                    let Ok(response) = polls.oneshot(request).await;
                    response.map(Either::Right)
                }
            })
        }
    })
    .await;
}

/// Serves as the implementation by hand does: by a router of axum, and its server.
pub(crate) async fn serve_in_axum(workload: Workload) {
    let store = store(workload).await;
    let reports = reports::<axum::body::Body>(store.clone(), workload);
    let app = axum::Router::new()
        .route("/reports", axum::routing::post_service(reports))
        .nest_service("/operations", PollService::new(store));
    in_axum(app).await;
}

fn reports<B>(
    store: MemoryStore,
    workload: Workload,
) -> impl Service<
    Request<B>,
    Response = Response<ResponseBody<BufferedBody>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static
where
    B: Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    // The load limits the operations in flight, not the layer.
    let layer = Operations::new(store).max_in_flight(usize::MAX).layer();
    layer.layer(work::<RequestBody<B>>(workload.takes()))
}

/// The time-to-live of ended operations. At 2 ms, all operations would fit into the caches.
const TTL: Duration = Duration::from_millis(500);

/// Creates a store with the operations that are polled.
async fn store(workload: Workload) -> MemoryStore {
    let Workload::Poll(stored) = workload else {
        // The default bound. Ended operations expire soon, so that as many operations are
        // deleted as accepted, and all turns are alike.
        return MemoryStore::new().ttl(TTL);
    };
    let store = MemoryStore::new()
        .max_operations(usize::MAX)
        .max_bytes(usize::MAX);
    for number in 0..stored {
        let id: OperationId = ids::nth(number).to_string().parse().expect("an id");
        create_finished(&store, id).await;
    }
    store
}

async fn create_finished(store: &MemoryStore, id: OperationId) {
    let new = NewOperation::new(id.clone()).with_lease(LeaseConfig::default());
    let Ok(Created::New(record)) = store.create(new).await else {
        panic!("not created");
    };
    let token = record.token();
    store.start(&id, token).await.expect("started");
    let body = bytes::Bytes::copy_from_slice(&report());
    let outcome = Outcome::Succeeded(Some(RecordedResponse::new(answer(body))));
    let written = store.finish(&id, token, outcome, None).await;
    written.expect("finished");
}

/// Returns an answer of this crate, for the contenders with a prepared answer.
pub(crate) async fn answer_of(workload: Workload) -> Response<BufferedBody> {
    match workload {
        Workload::AcceptNow | Workload::AcceptLater => {
            let reports = reports(MemoryStore::new(), workload);
            let request = Request::post("/reports").body(BufferedBody::from("{}"));
            let Ok(response) = reports.oneshot(request.expect("a request")).await;
            collect(response).await
        }
        Workload::Poll(_) => {
            let store = MemoryStore::new();
            let id: OperationId = ids::nth(0).to_string().parse().expect("an id");
            create_finished(&store, id.clone()).await;
            let request = Request::get(format!("/{id}")).body(());
            let polls = PollService::new(store);
            let Ok(response) = polls.oneshot(request.expect("a request")).await;
            collect(response).await
        }
    }
}

async fn collect<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> Response<BufferedBody> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a complete body").to_bytes();
    Response::from_parts(parts, BufferedBody::from(body))
}
