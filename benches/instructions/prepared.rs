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

/// Returns a runtime whose clock is moved on when all tasks wait.
pub(crate) fn paused_runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// Lets spawned tasks run on the only thread until they wait.
pub(crate) async fn settle() {
    tokio::task::yield_now().await;
}

pub(crate) fn posts(count: usize) -> Vec<Request<BufferedBody>> {
    (0..count).map(|_| post()).collect()
}

/// The time that each handler takes where many operations are live at once.
pub(crate) const SLEEP: std::time::Duration = std::time::Duration::from_millis(50);

/// Accepts requests whose handlers sleep, all at the same time, and waits until they end.
pub(crate) async fn accept_at_once<S, B>(service: &S, requests: Vec<Request<B>>)
where
    S: Service<Request<B>, Error = Infallible> + Clone,
{
    accept_all(service, requests).await;
    tokio::time::sleep(2 * SLEEP).await;
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
