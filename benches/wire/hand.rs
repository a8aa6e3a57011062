//! The implementation by hand as a server.

use axum::serve::ListenerExt;

use super::{
    by_hand::{Operation, Operations, StoredResult, app},
    ids,
    report::report,
    serve::listen,
    workload::Workload,
};

pub(crate) async fn serve<R: StoredResult>(workload: Workload) {
    let operations: Operations<R> = Operations::default();
    if let Workload::Poll(stored) = workload {
        for number in 0..stored {
            let mut operation = Operation::new(ids::nth(number));
            operation.finish(R::parse(&report()));
            operations.insert(operation.id, operation);
        }
    }
    let app = app(operations, workload.takes());
    let listener = listen().await.tap_io(|stream| {
        stream.set_nodelay(true).expect("no delay");
    });
    axum::serve(listener, app).await.expect("the server runs");
}
