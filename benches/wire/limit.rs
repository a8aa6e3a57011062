//! The lower bounds: servers that do the minimum.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::ServiceExt;
use tower_operations::BufferedBody;

use super::{ids::Random, ours, report::work, serve::on_hyper, workload::Workload};

/// Serves a prepared answer.
pub(crate) async fn limit(workload: Workload) {
    let answer = ours::answer_of(workload).await;
    let service = move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            drain(request.into_body()).await;
            Ok(answer)
        }
    };
    on_hyper(service).await;
}

/// Serves a prepared answer, and does the least that the workload needs: spawns the handler, or
/// sends one of as many bodies as there are operations.
pub(crate) async fn floor(workload: Workload) {
    match workload {
        Workload::AcceptNow | Workload::AcceptLater => accept_floor(workload).await,
        Workload::Poll(stored) => poll_floor(workload, stored).await,
    }
}

async fn accept_floor(workload: Workload) {
    let answer: Response<BufferedBody> = ours::answer_of(workload).await;
    let work = work::<()>(workload.takes());
    let service = move |request: Request<Incoming>| {
        let (answer, work) = (answer.clone(), work.clone());
        async move {
            let (parts, body) = request.into_parts();
            drain(body).await;
            let request = Request::from_parts(parts, ());
            tokio::spawn(async move { drop(work.oneshot(request).await) });
            Ok(answer)
        }
    };
    on_hyper(service).await;
}

/// The bodies are separate, and one is drawn for each request, without any look-up.
async fn poll_floor(workload: Workload, stored: u64) {
    let (parts, body) = ours::answer_of(workload).await.into_parts();
    let body = body.data();
    let bodies: Arc<[Bytes]> = (0..stored).map(|_| Bytes::copy_from_slice(body)).collect();
    let random = Arc::new(Mutex::new(Random::new()));
    let service = move |request: Request<Incoming>| {
        let drawn = random.lock().expect("one thread").below(stored);
        let body = BufferedBody::from(bodies[drawn as usize].clone());
        let answer = Response::from_parts(parts.clone(), body);
        async move {
            drain(request.into_body()).await;
            Ok(answer)
        }
    };
    on_hyper(service).await;
}

async fn drain(mut body: Incoming) {
    while let Some(frame) = body.frame().await {
        frame.expect("a whole request");
    }
}
