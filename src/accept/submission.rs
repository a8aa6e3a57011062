//! Creating the operation of an accepted request, and starting its run.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use tokio::sync::oneshot;
use tracing::Span;

use super::{
    creation::{CreateOutcome, Creation},
    future::AcceptStep,
    inner::Inner,
    policy::Policy,
    refuse::Refusal,
    repeated::repeated,
    reservation::ReservedKey,
    responder::{AcceptAnswer, AcceptResponder, CreatedOperation},
};
use crate::{
    environment::Spawner,
    operation::RecordedResponse,
    run::{
        AcceptedRequest, AdmissionPermit, BufferedRequest, DispatchRequest, Handler, Readiness,
        Run, Runtime, operate,
    },
    store::{Lease, Record},
};

/// An accepted request that leaves for its run: in this process, or through a dispatcher.
pub(super) struct Submission<S, R> {
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    pub(super) creation: Creation,
    pub(super) reserved: Option<ReservedKey>,
    pub(super) service: S,
    pub(super) request: Box<BufferedRequest>,
    /// The place in flight; `None` once the place was released.
    pub(super) admitted: Option<AdmissionPermit>,
    /// The span of the operation, created before the operation is: a subscriber may panic.
    pub(super) span: Span,
}

/// The answer to the client, or the reason why there is none.
pub(super) type AcceptResult = Result<AcceptAnswer, Refusal>;

impl<S, R> Submission<S, R>
where
    S: Handler<Body: 'static> + Clone + 'static,
    R: Lease<Output = RecordedResponse>,
{
    /// Creates the operation in place if the store never waits, in a task otherwise. The run is
    /// always in a task. An answer that is not simply the new operation is found out in a task
    /// too.
    pub(super) fn submit<I, B>(mut self, responder: AcceptResponder) -> AcceptStep<I, R, B>
    where
        I: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        // Panics without a runtime, before anything exists that could be lost.
        let tasks = Spawner::current();
        let mut readiness = self.ask_readiness();
        if self.node.dispatcher.is_none()
            && let Some(placed) = self.creation.create_now(&self.node)
        {
            self.end_reservation();
            let operation = CreatedOperation::from_new(&self.creation.new, placed);
            let (new, request) = (&self.creation.new, self.request);
            let accepted = AcceptedRequest::from_new(new, placed, request, self.span);
            let run = prepare_run(
                self.node,
                &self.policy,
                accepted,
                self.service,
                readiness,
                self.admitted,
            );
            // If the runtime is shutting down, the run is dropped like every other task.
            tasks.spawn(run);
            return responder.accepted(&operation).into();
        }
        let (sender, created) = oneshot::channel();
        // Boxed once: a future is moved many times on its way into a task.
        tasks.spawn(Box::pin(async move {
            let (service, creation) = (&mut self.service, &mut self.creation);
            let created = creation.create(&self.node, &self.policy, || {
                unready(service, &mut readiness);
            });
            match created.await {
                Ok(CreateOutcome::New(record)) => {
                    self.run_or_dispatch(record, readiness, sender).await;
                }
                // The client may have disconnected.
                other => drop(sender.send(self.without_run(other))),
            }
        }));
        AcceptStep::Creating { created, responder }
    }

    /// Asks whether the service is ready. If so, the operation is created as running, and its
    /// start needs no write of its own.
    fn ask_readiness(&mut self) -> Readiness {
        // A ready service may hold a permit, which an upload must not keep from other requests.
        if self.node.dispatcher.is_some() || self.creation.upload.is_some() {
            return Readiness::Unknown;
        }
        let readiness = Readiness::ask(&mut self.service);
        self.creation.new.is_running = readiness.is_ready();
        readiness
    }

    /// Returns the answer where there is nothing to run. An operation that may have been created
    /// is looked for in a task.
    #[cold]
    fn without_run(mut self, created: Result<CreateOutcome, Refusal>) -> AcceptResult {
        match created {
            // The caller runs a new operation.
            Ok(CreateOutcome::New(record) | CreateOutcome::Repeated(record)) => {
                let (parts, name) = (&self.request.parts, self.creation.name());
                repeated(&self.policy, parts, &record, name)
            }
            Ok(CreateOutcome::Answered(answer)) => Ok(AcceptAnswer::Answered(answer)),
            Err(refusal) => {
                match refusal {
                    Refusal::Closed => self.node.in_flight.refused(),
                    _ => self.node.in_flight.answered(),
                }
                match self.creation.may_be_found() {
                    true => self.run_if_created(),
                    false => self.creation.disown(&self.node, self.admitted.take()),
                }
                Err(refusal)
            }
        }
    }

    /// Starts the run of the operation here, or dispatches its request.
    pub(super) async fn run_or_dispatch(
        mut self,
        record: Record<RecordedResponse>,
        readiness: Readiness,
        sender: oneshot::Sender<AcceptResult>,
    ) {
        self.end_reservation();
        let operation = CreatedOperation::from_record(&record);
        // The client may have disconnected; the operation exists.
        let tell = |is_taken| {
            drop(sender.send(match is_taken {
                true => Ok(AcceptAnswer::New(operation)),
                false => Err(Refusal::Unavailable),
            }));
        };
        let node = Arc::clone(&self.node);
        match &node.dispatcher {
            None => {
                let kept = self.creation.new.request().is_some();
                // The stored form of the request is in the store now.
                drop(self.creation);
                let accepted = AcceptedRequest::within(&record, self.request, kept, self.span);
                let run = prepare_run(
                    self.node,
                    &self.policy,
                    accepted,
                    self.service,
                    readiness,
                    self.admitted,
                );
                tell(true);
                // The error was logged where it occurred.
                drop(run.await);
            }
            Some(dispatcher) => {
                let admitted = self.admitted.take();
                let admitted = admitted.unwrap_or_else(|| node.in_flight.admit_anyway());
                let request = DispatchRequest {
                    node: &node,
                    record,
                    stored: self.creation.new.request().cloned(),
                    admitted,
                    may_come_again: self.creation.new.key().is_some(),
                    at_most: self.policy.create_timeout,
                };
                dispatcher.dispatch(request, tell).await;
            }
        }
    }

    /// Ends the reservation of the key: it names the operation now.
    fn end_reservation(&mut self) {
        if let Some(key) = self.reserved.take() {
            key.end();
        }
    }
}

/// Gives back what a service holds because it is ready, such as a permit of a concurrency limit.
/// The run waits for readiness again.
pub(super) fn unready<S: Clone>(service: &mut S, readiness: &mut Readiness) {
    if readiness.is_ready() {
        *service = service.clone();
        *readiness = Readiness::Unknown;
    }
}

/// Returns the run of an operation in this process. The operation is live from here on.
fn prepare_run<S, R>(
    node: Arc<Runtime<R>>,
    policy: &Policy,
    mut accepted: AcceptedRequest,
    service: S,
    readiness: Readiness,
    admitted: Option<AdmissionPermit>,
) -> Run
where
    S: Handler<Body: 'static> + 'static,
    R: Lease<Output = RecordedResponse>,
{
    accepted.admitted = admitted;
    crash_point!("accepted");
    operate(node, policy.run, service, readiness, accepted)
}
