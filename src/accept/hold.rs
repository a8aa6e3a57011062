//! Holding a call that may still be answered directly.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use super::{
    RequestBody,
    create::{CreateOutcome, create},
    early::settled,
    going::HeldCall,
    hand_over::{Arriving, Wanted},
    held_tries::HeldTries,
    inner::Inner,
    mode::Decision,
    refuse::Refusal,
    reservation::ReservedKey,
};
use crate::{
    operation::{BufferedBody, RecordedResponse},
    run::{
        BufferedRequest, CallHold, NotAccepted, OperationHandle, RunContext, Told, operation_span,
    },
    store::Lease,
};

impl<S, R> Arriving<S, R>
where
    R: Lease<Output = RecordedResponse>,
{
    /// Runs the call in a task of its own. The call becomes an operation only once its time
    /// is over or the handler accepts it; until then a disconnect of the client drops the
    /// call.
    pub(super) fn hold<B>(
        self,
        wanted: Wanted,
        body: impl FnOnce(BufferedBody) -> RequestBody<B>,
        mut reserved: Option<ReservedKey>,
    ) -> HeldCall<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let front = self.front(&wanted.new.id);
        let Self {
            inner,
            node,
            policy,
            way,
            request,
            admitted,
            ..
        } = self;
        let work = Arc::new(RunContext::held_at_a_gate(
            wanted.new.id.clone(),
            wanted.new.request.is_some(),
        ));
        let base = request.base();
        let BufferedRequest {
            mut parts,
            body: whole,
            ..
        } = *request;
        let span = operation_span(&wanted.new.id, &parts, &Span::current());
        parts
            .extensions
            .insert(OperationHandle::new(Arc::clone(&work)));
        let request = Box::new(Request::from_parts(parts, body(whole)));
        let (tell, told) = oneshot::channel();
        let held = Arc::clone(&work);
        let holding = CallHold {
            node: Arc::clone(&node),
            limits: policy.run,
            work: Arc::clone(&work),
            service: inner,
            request,
            base,
            deadline: match way {
                Decision::After(limit) => Some(limit),
                Decision::Pass | Decision::Now | Decision::Signaled => None,
            },
        };
        let run = async move {
            // The place in flight is kept until the call is answered or ended.
            let admitted = Arc::new(admitted);
            let (node, policy) = (&node, &policy);
            let mut tell = Some(tell);
            let (wanted, admitted, work) = (&wanted, &admitted, &held);
            let tries = &Arc::new(HeldTries::default());
            let create = |is_running| async move {
                if let Some(record) = tries.take_found() {
                    return Ok(record);
                }
                // Each try has a token of its own: an operation of an abandoned try is
                // ended by its token, and must not be taken for the operation of this try.
                let mut wanted = wanted.anew();
                wanted.new.is_running = is_running;
                match create(node, policy, &wanted).await {
                    Ok(CreateOutcome::New(record)) => Ok(record),
                    Ok(CreateOutcome::Repeated(_) | CreateOutcome::Answered(_)) => {
                        tries.take_found().ok_or(())
                    }
                    Err(why) => {
                        let (work, admitted) = (Arc::clone(work), Arc::clone(admitted));
                        match wanted.may_be_found() && why != Refusal::Closed {
                            true => {
                                wanted.accept_if_created(node, work, Arc::clone(tries), admitted);
                            }
                            false => wanted.disown(node, admitted),
                        }
                        tries.set_refusal(why);
                        tries.take_found().ok_or(())
                    }
                }
            };
            let accepted = |record| {
                if let Some(key) = reserved.take() {
                    key.bound();
                }
                // A disconnected client has already been handled by the gate.
                if let Some(tell) = tell.take() {
                    drop(tell.send((Told::Accepted(record), None)));
                }
            };
            let Some(mut early) = holding.run(create, accepted).await else {
                return;
            };
            if let (Told::Answered(Ok(answer)), Some(why)) = (&mut early, tries.take_refusal())
                && answer.extensions().get::<NotAccepted>().is_some()
            {
                answer.extensions_mut().insert(why);
            }
            let early = settled(&wanted.new.id, early, reserved, policy, &node.in_flight).await;
            match &early {
                Told::ShutDown => node.in_flight.refused(),
                _ => node.in_flight.answered(),
            }
            if let Some(tell) = tell {
                // No longer in flight, but a drain waits until the answer is sent.
                drop(tell.send((early, Some(node.in_flight.pass()))));
            }
        };
        // Boxed once: a future is moved many times on its way into a task.
        let task = tokio::spawn(Box::pin(run.instrument(span))).abort_handle();
        HeldCall::new(told, front, work, task)
    }
}
