//! The lower bounds: servers that do the minimum.

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::ServiceExt;
use tower_operations::BufferedBody;

use super::{ours, report::work, serve::on_hyper, workload::Workload};

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

/// Serves a prepared answer, and spawns the handler.
pub(crate) async fn floor(workload: Workload) {
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

async fn drain(mut body: Incoming) {
    while let Some(frame) = body.frame().await {
        frame.expect("a whole request");
    }
}
