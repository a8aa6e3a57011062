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
    serve::on_hyper,
    workload::Workload,
};

pub(crate) async fn serve(workload: Workload) {
    let store = store(workload).await;
    let reports = reports(store.clone(), workload);
    let polls = PollService::new(store).mounted_at("/operations");
    on_hyper(move |request: Request<Incoming>| {
        let is_accept = request.uri().path() == "/reports";
        // A call needs a service of its own, and the other is not asked.
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
+ 'static
where
    B: Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    // The load, not the layer, says how much is in flight.
    let layer = Operations::new(store).max_in_flight(usize::MAX).layer();
    layer.layer(work::<RequestBody<B>>(workload.takes()))
}

/// How long what has ended is kept while something is accepted. Of 2 ms all of it fits
/// into the caches.
const KEPT: Duration = Duration::from_millis(500);

/// With the operations that are polled.
async fn store(workload: Workload) -> MemoryStore {
    let Workload::Poll(stored) = workload else {
        // Bounded as by default. What has ended expires soon, so that as much is forgotten
        // as is accepted, and no turn is unlike another.
        return MemoryStore::new().ttl(KEPT);
    };
    let store = MemoryStore::new()
        .max_operations(usize::MAX)
        .max_bytes(usize::MAX);
    for number in 0..stored {
        let id: OperationId = ids::nth(number).to_string().parse().expect("an id");
        finished(&store, id).await;
    }
    store
}

async fn finished(store: &MemoryStore, id: OperationId) {
    let new = NewOperation::new(id.clone()).with_lease(LeaseConfig::default());
    let Ok(Created::New(record)) = store.create(new).await else {
        panic!("not created");
    };
    let token = record.token();
    store.start(&id, token).await.expect("started");
    let body = bytes::Bytes::copy_from_slice(&report());
    let outcome = Outcome::Succeeded(Some(RecordedResponse::new(answer(body))));
    let finished = store.finish(&id, token, outcome, None).await;
    finished.expect("finished");
}

/// One of our answers, for those who give the same each time.
pub(crate) async fn answer_of(workload: Workload) -> Response<BufferedBody> {
    match workload {
        Workload::AcceptNow | Workload::AcceptLater => {
            let reports = reports(MemoryStore::new(), workload);
            let request = Request::post("/reports").body(BufferedBody::from("{}"));
            let Ok(response) = reports.oneshot(request.expect("a request")).await;
            whole(response).await
        }
        Workload::Poll(_) => {
            let store = MemoryStore::new();
            let id: OperationId = ids::nth(0).to_string().parse().expect("an id");
            finished(&store, id.clone()).await;
            let request = Request::get(format!("/{id}")).body(());
            let polls = PollService::new(store);
            let Ok(response) = polls.oneshot(request.expect("a request")).await;
            whole(response).await
        }
    }
}

async fn whole<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> Response<BufferedBody> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("it is there").to_bytes();
    Response::from_parts(parts, BufferedBody::from(body))
}
