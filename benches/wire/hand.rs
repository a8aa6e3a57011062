//! The implementation by hand as a server.

use super::{
    by_hand::{Operation, Operations, StoredResult, app},
    ids,
    report::report,
    serve::in_axum,
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
    in_axum(app(operations, workload.takes())).await;
}
