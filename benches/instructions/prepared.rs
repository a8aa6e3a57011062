//! The counted routines and their set-up.

use std::{convert::Infallible, future::Future, hint::black_box};

use http::Request;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceExt};
use tower_operations::BufferedBody;

/// A counted routine, which drops none of its data.
pub(crate) type Routine = Box<dyn FnOnce()>;

pub(crate) fn routine(runtime: Runtime, work: impl Future<Output = ()> + 'static) -> Routine {
    Box::new(move || {
        runtime.block_on(work);
        std::mem::forget(runtime);
    })
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

pub(crate) fn post() -> Request<BufferedBody> {
    Request::post("/reports")
        .body(BufferedBody::from("{}"))
        .expect("a request")
}

/// Lets spawned tasks run on the only thread until they wait.
pub(crate) async fn settle() {
    tokio::task::yield_now().await;
}

pub(crate) fn posts(count: usize) -> Vec<Request<BufferedBody>> {
    (0..count).map(|_| post()).collect()
}

pub(crate) async fn accept_all<S, B>(service: &S, requests: Vec<Request<B>>)
where
    S: Service<Request<B>, Error = Infallible> + Clone,
{
    for request in requests {
        let Ok(answer) = service.clone().oneshot(request).await;
        black_box(answer);
        settle().await;
    }
}
