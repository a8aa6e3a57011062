use std::{future::Future, sync::Arc};

use super::{AcceptedRequest, Handler, Leaving, Take, Taken, operate};
use crate::{
    operation::RecordedResponse,
    store::{Lease, Record},
};

/// Requests are run where they were accepted: the default of
/// [`AsyncAcceptLayer`](crate::AsyncAcceptLayer).
#[derive(Debug, Clone, Copy)]
pub struct InProcess {
    _none: (),
}

impl InProcess {
    pub(crate) const HERE: Self = Self { _none: () };

    /// Takes it: what is left to do is to run it to its end, which is the future.
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
        let accepted = AcceptedRequest::of(&record, request, kept, &span);
        crash_point!("accepted");
        // Boxed once: on its way into a task a future is moved many times, and one that
        // waits for it would have it twice.
        let run = Box::pin(operate(node, limits, service, accepted.admitted(admitted)));
        let run = async move {
            // An error was logged where it happened.
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
    /// Runs it, to its end.
    async fn take(&self, leaving: Leaving<S, R>, tell: impl FnOnce(Taken) + Send) {
        let (record, run) = Self::begin(leaving);
        // The client may be gone; the operation is not.
        tell(Taken::Yes(record));
        run.await;
    }
}
