//! Calls that may still be answered directly, as their clients see them.

use std::{
    panic::resume_unwind,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::{sync::oneshot, task::AbortHandle};
use tracing::{Instrument, Span};

use super::{
    RequestBody, ResponseBody,
    arrival::Arrival,
    creation::Creation,
    direct_answer::store_direct_answer,
    future::AcceptResponse,
    inner::Inner,
    lent_body::RemainingBody,
    mode::ReplyKind,
    race_creator::RaceCreator,
    refuse::Refusal,
    reservation::ReservedKey,
    responder::{AcceptAnswer, AcceptResponder, CreatedOperation},
};
use crate::{
    environment,
    operation::{BufferedBody, RecordedResponse},
    run::{
        BufferedRequest, Gate, NotAccepted, OperationHandle, PassThrough, Race, RaceEnd,
        RunContext, operation_span,
    },
    store::{Lease, Record},
};

/// A call that may still be answered directly. Dropping this value before the decision drops
/// the call.
pub(super) struct RacedCall<P, E> {
    result: oneshot::Receiver<RaceMessage<P, E>>,
    responder: AcceptResponder,
    work: Arc<RunContext>,
    task: AbortHandle,
    /// The unread rest of a streamed body.
    pub(super) rest: RemainingBody,
}

/// The result of a race, as told to the client.
pub(super) enum RaceResult<P, E> {
    /// The call ended first.
    Ended(RaceEnd<P, E>),
    /// The call returned first, and its answer is stored.
    Stored(Response<BufferedBody>),
    /// The call is an operation now.
    Accepted(Record<RecordedResponse>),
}

/// The result of a race, and the permit that a drain waits for if the result is an answer.
pub(super) type RaceMessage<P, E> = (RaceResult<P, E>, Option<PassThrough>);

impl<C, E> RacedCall<Response<C>, E> {
    /// Runs the call in a task of its own. The call becomes an operation only once its time
    /// is over or the handler accepts it; until then a disconnect of the client drops the
    /// call.
    pub(super) fn start<S, R, B>(
        arrival: Arrival<S, R>,
        creation: Creation,
        body: impl FnOnce(BufferedBody) -> RequestBody<B>,
        reserved: Option<ReservedKey>,
    ) -> Self
    where
        S: Inner<B, Body = C, Error = E>,
        B: Body<Data = Bytes> + Send + 'static,
        R: Lease<Output = RecordedResponse>,
        C: Body<Data = Bytes, Error: Into<crate::BoxError> + Send> + Send + 'static,
        E: Into<crate::BoxError> + Send + 'static,
    {
        let responder = arrival.responder(&creation.new.id);
        let Arrival {
            inner,
            node,
            policy,
            accept_at,
            request,
            admitted,
            ..
        } = arrival;
        let work = Arc::new(RunContext::held_at_a_gate(
            creation.new.id.clone(),
            creation.keeps_request(),
        ));
        let base = request.base();
        let BufferedRequest {
            mut parts,
            body: whole,
            ..
        } = *request;
        let span = operation_span(&creation.new.id, &parts, &Span::current());
        parts
            .extensions
            .insert(OperationHandle::new(Arc::clone(&work)));
        let race = Race {
            node: Arc::clone(&node),
            limits: policy.run,
            work: Arc::clone(&work),
            service: inner,
            request: Box::new(Request::from_parts(parts, body(whole))),
            base,
            accept_at,
        };
        let (sender, result) = oneshot::channel();
        let mut creator = RaceCreator::new(
            Arc::clone(&node),
            Arc::clone(&policy),
            creation,
            Arc::clone(&work),
            admitted,
            reserved,
            sender,
        );
        let run = async move {
            let Some(mut end) = race.run(&mut creator).await else {
                return;
            };
            if let (RaceEnd::Answered(Ok(answer)), Some(why)) = (&mut end, creator.take_refusal())
                && answer.extensions().get::<NotAccepted>().is_some()
            {
                answer.extensions_mut().insert(why);
            }
            let (id, reserved) = (creator.id(), creator.take_reserved());
            let limit = policy.run.kept_answer_limit(node.results.is_some());
            let result =
                store_direct_answer(&id, end, reserved, &policy, &node.in_flight, limit).await;
            match &result {
                RaceResult::Ended(RaceEnd::ShutDown) => node.in_flight.refused(),
                _ => node.in_flight.answered(),
            }
            // No longer in flight, but a drain waits until the answer is sent.
            creator.tell((result, Some(node.in_flight.pass())));
        };
        // Boxed once: a future is moved many times on its way into a task.
        let task = environment::spawn(Box::pin(run.instrument(span))).abort_handle();
        Self {
            result,
            responder,
            work,
            task,
            rest: RemainingBody::default(),
        }
    }

    /// Waits for the result of the race, and returns the response to the client.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<(AcceptResponse<C, E>, ReplyKind)> {
        let (responder, rest) = (&self.responder, &self.rest);
        let refuse = |refusal: &Refusal| responder.refuse(refusal, rest);
        // Without a result the task is gone: the runtime is shutting down.
        let (response, reply) = match ready!(Pin::new(&mut self.result).poll(context)) {
            Ok((RaceResult::Ended(RaceEnd::Answered(answer)), passing)) => {
                return Poll::Ready(self.direct(answer, passing));
            }
            Ok((RaceResult::Stored(response), _)) => (response, ReplyKind::Direct),
            Ok((RaceResult::Accepted(record), _)) => {
                let operation = CreatedOperation::from_record(&record);
                responder.answer(&Ok(AcceptAnswer::New(operation)))
            }
            Ok((RaceResult::Ended(RaceEnd::Panicked(payload)), _)) => resume_unwind(payload),
            Ok((RaceResult::Ended(RaceEnd::Failed(kind)), _)) => refuse(&Refusal::Failed(kind)),
            Ok((RaceResult::Ended(RaceEnd::ShutDown), _)) => refuse(&Refusal::Closed),
            Err(_) => refuse(&Refusal::Unavailable),
        };
        Poll::Ready((Ok(response.map(ResponseBody::whole)), reply))
    }

    /// Returns the answer of the handler. If that is the error of `accept`, the layer writes the
    /// refusal in its dialect.
    fn direct(
        &self,
        answer: Result<Response<C>, E>,
        passing: Option<PassThrough>,
    ) -> (AcceptResponse<C, E>, ReplyKind) {
        match answer {
            Ok(answer) if answer.extensions().get::<NotAccepted>().is_some() => {
                let why = answer.extensions().get::<Refusal>();
                let why = why.unwrap_or(&Refusal::Unavailable);
                let (response, reply) = self.responder.refuse(why, &self.rest);
                (Ok(response.map(ResponseBody::whole)), reply)
            }
            answer => (
                answer.map(|it| it.map(|body| ResponseBody::passing_as(body, passing))),
                ReplyKind::Direct,
            ),
        }
    }
}

impl<P, E> Drop for RacedCall<P, E> {
    fn drop(&mut self) {
        if self.work.gate().is_some_and(Gate::client_left) {
            // Tasks that the call has spawned have no other signal.
            self.work.abandon();
            self.task.abort();
        }
    }
}
