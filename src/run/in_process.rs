use std::{future::Future, sync::Arc};

use super::{AcceptedRequest, Handler, Leaving, Take, Taken, operate};
use crate::{
    operation::RecordedResponse,
    store::{Lease, Record},
};

/// Runs requests in the process that accepted them: the default of
/// [`AsyncAcceptLayer`](crate::AsyncAcceptLayer).
#[derive(Debug, Clone, Copy)]
pub struct InProcess {
    _none: (),
}

impl InProcess {
    pub(crate) const HERE: Self = Self { _none: () };

    /// Takes an accepted request. The returned future runs the request to its end.
    pub(crate) fn begin<S, R>(
        leaving: Leaving<S, R>,
    ) -> (
        Arc<Record<RecordedResponse>>,
        impl Future<Output = ()> + Send,
    )
    where
        S: Handler,
        R: Lease<Output = RecordedResponse>,
    {
        let Leaving {
            node,
            limits,
            service,
            record,
            request,
            stored,
            admitted,
            span,
            ..
        } = leaving;
        let kept = stored.is_some();
        let accepted = AcceptedRequest::from_record(&record, request, kept, &span);
        crash_point!("accepted");
        // Boxed once: a future is moved many times on its way into a task, and an outer future
        // that awaits it would contain it twice.
        let run = Box::pin(operate(node, limits, service, accepted.admitted(admitted)));
        let run = async move {
            // The error was logged where it occurred.
            let _ = run.await;
        };
        (record, run)
    }
}

impl<S, R> Take<S, R> for InProcess
where
    S: Handler,
    R: Lease<Output = RecordedResponse>,
{
    /// Runs the request to its end.
    async fn take(&self, leaving: Leaving<S, R>, tell: impl FnOnce(Taken) + Send) {
        let (record, run) = Self::begin(leaving);
        // The client may have disconnected; the operation exists.
        tell(Taken::Yes(record));
        run.await;
    }
}
