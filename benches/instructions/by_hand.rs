//! The benchmarks of the implementation by hand.

use std::{hint::black_box, time::Duration};

use http::Request;
use tower::ServiceExt;
use tower_operations::BufferedBody;

use crate::{
    OPERATIONS,
    hand::{self, Operation, Operations, StoredResult},
    prepared::{
        Routine, SLEEP, accept_all, accept_at_once, paused_runtime, posts, routine, runtime,
    },
    report::report,
};

pub(crate) fn accept_by_hand_routine<R: StoredResult>() -> Routine {
    let (runtime, operations) = (runtime(), Operations::<R>::default());
    let app = hand::app(operations, Duration::ZERO);
    let posts = || posts(OPERATIONS).into_iter().map(to_axum).collect();
    runtime.block_on(accept_all(&app, posts()));
    let requests = posts();
    routine(runtime, async move {
        accept_all(&app, requests).await;
        std::mem::forget(app);
    })
}

/// All operations are live at the same time.
pub(crate) fn accept_live_by_hand_routine<R: StoredResult>() -> Routine {
    let (runtime, operations) = (paused_runtime(), Operations::<R>::default());
    let app = hand::app(operations, SLEEP);
    let posts = |count| posts(count).into_iter().map(to_axum).collect();
    runtime.block_on(accept_at_once(&app, posts(2 * OPERATIONS)));
    let requests = posts(OPERATIONS);
    routine(runtime, async move {
        accept_at_once(&app, requests).await;
        std::mem::forget(app);
    })
}

pub(crate) fn poll_by_hand_routine<R: StoredResult>() -> Routine {
    let operations = Operations::<R>::default();
    let requests: Vec<_> = (0..OPERATIONS)
        .map(|_| {
            let mut operation = Operation::new(uuid::Uuid::new_v4());
            operation.finish(R::parse(&report()));
            let request = Request::get(format!("/operations/{}", operation.id));
            operations.insert(operation.id, operation);
            to_axum(request.body(BufferedBody::default()).expect("a request"))
        })
        .collect();
    let app = hand::app(operations, Duration::ZERO);
    routine(runtime(), async move {
        for request in requests {
            let Ok(answer) = app.clone().oneshot(request).await;
            black_box(answer);
        }
        std::mem::forget(app);
    })
}

pub(crate) fn to_axum(request: Request<BufferedBody>) -> Request<axum::body::Body> {
    request.map(axum::body::Body::new)
}
