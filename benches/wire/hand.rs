//! What is written by hand, as a server.

use axum::serve::ListenerExt;

use super::{
    by_hand::{Kept, Operation, Operations, app},
    ids,
    report::report,
    serve::listen,
    workload::Workload,
};

pub(crate) async fn serve<R: Kept>(workload: Workload) {
    let operations: Operations<R> = Operations::default();
    if let Workload::Poll(stored) = workload {
        for number in 0..stored {
            let mut operation = Operation::new(ids::nth(number));
            operation.finish(R::keep(&report()));
            operations.insert(operation.id, operation);
        }
    }
    let app = app(operations, workload.takes());
    let listener = listen().await.tap_io(|stream| {
        stream.set_nodelay(true).expect("no delay");
    });
    axum::serve(listener, app).await.expect("it serves");
}
