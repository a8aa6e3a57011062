//! The steps of a request from its body to its answer.

use std::{
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use tokio::{sync::oneshot, task::AbortHandle};

use super::{
    ResponseBody,
    lent_body::RemainingBody,
    mode::ReplyKind,
    refuse::Refusal,
    responder::{AcceptAnswer, AcceptResponder, AcceptVerdict, CreatedOperation},
};
use crate::{
    operation::BufferedBody,
    run::{Gate, NotAccepted, PassThrough, RunContext, Told},
};

/// The step that a request has reached.
pub(super) enum Going<P, E> {
    Creating(Creating),
    Held(HeldCall<P, E>),
    /// The key is looked up first.
    Reserving(Pin<Box<dyn Future<Output = Self> + Send>>),
    Answer {
        response: Response<BufferedBody>,
        reply: ReplyKind,
    },
}

/// An operation that is being created, even if the client disconnects.
pub(super) struct Creating {
    created: oneshot::Receiver<AcceptVerdict>,
    front: AcceptResponder,
}

impl Creating {
    /// Spawns a task that creates the operation and sends the verdict.
    pub(super) fn by<P, E, F>(
        front: AcceptResponder,
        task: impl FnOnce(oneshot::Sender<AcceptVerdict>) -> F,
    ) -> Going<P, E>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tell, created) = oneshot::channel();
        // Boxed once: a future is moved many times on its way into a task.
        tokio::spawn(Box::pin(task(tell)));
        Going::Creating(Self { created, front })
    }
}

impl<P, E> From<(Response<BufferedBody>, ReplyKind)> for Going<P, E> {
    fn from((response, reply): (Response<BufferedBody>, ReplyKind)) -> Self {
        Self::Answer { response, reply }
    }
}

/// A call that may still be answered directly. Dropping this future before the decision drops
/// the call.
pub(super) struct HeldCall<P, E> {
    told: oneshot::Receiver<Telling<P, E>>,
    front: AcceptResponder,
    work: Arc<RunContext>,
    task: AbortHandle,
    /// The unread rest of a streamed body.
    pub(super) rest: RemainingBody,
}

/// The result of a held call, and the permit that a drain waits for if the result is an
/// answer.
pub(super) type Telling<P, E> = (Told<P, E>, Option<PassThrough>);

impl<P, E> HeldCall<P, E> {
    pub(super) fn new(
        told: oneshot::Receiver<Telling<P, E>>,
        front: AcceptResponder,
        work: Arc<RunContext>,
        task: AbortHandle,
    ) -> Self {
        Self {
            told,
            front,
            work,
            task,
            rest: RemainingBody::default(),
        }
    }
}

impl<P, E> Drop for HeldCall<P, E> {
    fn drop(&mut self) {
        if self.work.gate().is_some_and(Gate::leave) {
            // Tasks that the call has spawned have no other signal.
            self.work.abandon();
            self.task.abort();
        }
    }
}

pub(super) type AcceptResponse<C, E> = Result<Response<ResponseBody<C>>, E>;

/// The result of a step of [`Going`].
pub(super) enum Gone<C, E> {
    On(Going<Response<C>, E>),
    Answered(AcceptResponse<C, E>, ReplyKind),
}

impl<C, E> Going<Response<C>, E> {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Gone<C, E>> {
        let ours = |(response, reply): (Response<BufferedBody>, _)| {
            Gone::Answered(Ok(response.map(ResponseBody::whole)), reply)
        };
        Poll::Ready(match self {
            Self::Reserving(reserving) => Gone::On(ready!(reserving.as_mut().poll(context))),
            Self::Creating(Creating { created, front }) => {
                let verdict = ready!(Pin::new(created).poll(context));
                // The task is gone: the runtime is shutting down.
                ours(front.answer(&verdict.unwrap_or(Err(Refusal::Unavailable))))
            }
            Self::Held(HeldCall {
                told, front, rest, ..
            }) => match ready!(Pin::new(told).poll(context)) {
                // The handler answered with the error of `accept`: the layer writes the refusal
                // in its dialect.
                Ok((Told::Answered(Ok(answer)), _))
                    if answer.extensions().get::<NotAccepted>().is_some() =>
                {
                    let why = answer.extensions().get::<Refusal>();
                    ours(front.refuse(why.unwrap_or(&Refusal::Unavailable), rest))
                }
                Ok((Told::Answered(answer), passing)) => Gone::Answered(
                    answer.map(|it| it.map(|body| ResponseBody::passing_as(body, passing))),
                    ReplyKind::Direct,
                ),
                Ok((Told::Settled(response), _)) => ours((response, ReplyKind::Direct)),
                Ok((Told::Accepted(record), _)) => ours(front.answer(&Ok(AcceptAnswer::New(
                    CreatedOperation::from_record(&record),
                )))),
                Ok((Told::Panicked(payload), _)) => resume_unwind(payload),
                Ok((Told::Failed(kind), _)) => ours(front.refuse(&Refusal::Failed(kind), rest)),
                Ok((Told::ShutDown, _)) => ours(front.refuse(&Refusal::Closed, rest)),
                // The task is gone: the runtime is shutting down.
                Err(_) => ours(front.refuse(&Refusal::Unavailable, rest)),
            },
            Self::Answer { response, reply } => ours((std::mem::take(response), *reply)),
        })
    }
}
