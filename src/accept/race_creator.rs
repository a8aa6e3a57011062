//! Creating the operation of a raced call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tracing::Instrument;

use super::{
    creation::{CreateOutcome, Creation},
    in_doubt::find,
    policy::Policy,
    race::RaceMessage,
    refuse::Refusal,
    reservation::ReservedKey,
};
use crate::{
    operation::{OperationId, RecordedResponse},
    run::{AdmissionPermit, Creator, NotCreated, RaceResult, RunContext, Runtime, afterwards},
    store::{Lease, Record},
};

/// Creates the operation of a raced call, and tells the client of the result.
pub(super) struct RaceCreator<R, P, E> {
    node: Arc<Runtime<R>>,
    policy: Arc<Policy>,
    creation: Creation,
    work: Arc<RunContext>,
    /// The place in flight, kept until the call is answered or ended.
    admitted: Arc<AdmissionPermit>,
    tries: Arc<RaceTries>,
    reserved: Option<ReservedKey>,
    /// The sender to the client; `None` once the client was told.
    sender: Option<oneshot::Sender<RaceMessage<P, E>>>,
}

impl<R, P, E> RaceCreator<R, P, E> {
    pub(super) fn new(
        node: Arc<Runtime<R>>,
        policy: Arc<Policy>,
        creation: Creation,
        work: Arc<RunContext>,
        admitted: AdmissionPermit,
        reserved: Option<ReservedKey>,
        sender: oneshot::Sender<RaceMessage<P, E>>,
    ) -> Self {
        Self {
            node,
            policy,
            creation,
            work,
            admitted: Arc::new(admitted),
            tries: Arc::default(),
            reserved,
            sender: Some(sender),
        }
    }

    pub(super) fn id(&self) -> OperationId {
        self.creation.new.id.clone()
    }

    /// Returns the key that the call has reserved, if there is no operation.
    pub(super) fn take_reserved(&mut self) -> Option<ReservedKey> {
        self.reserved.take()
    }

    /// Returns the error of the last failed try.
    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        self.tries.lock().refusal.take()
    }

    /// Tells the client, once.
    pub(super) fn tell(&mut self, message: RaceMessage<P, E>) {
        // A disconnected client has already been handled by the gate.
        if let Some(sender) = self.sender.take() {
            drop(sender.send(message));
        }
    }
}

impl<R, P, E> Creator for &mut RaceCreator<R, P, E>
where
    R: Lease<Output = RecordedResponse>,
    P: Send,
    E: Send,
{
    async fn create(&self, is_running: bool) -> Result<Record<RecordedResponse>, NotCreated> {
        let tries = &self.tries;
        if let Some(record) = tries.take_found() {
            return Ok(record);
        }
        // Each try has a token of its own: an operation of an abandoned try is ended by its
        // token, and must not be taken for the operation of this try.
        let mut creation = self.creation.anew();
        creation.new.is_running = is_running;
        match creation.create(&self.node, &self.policy).await {
            Ok(CreateOutcome::New(record)) => return Ok(record),
            Ok(CreateOutcome::Repeated(_) | CreateOutcome::Answered(_)) => {}
            Err(why) => {
                let admitted = Arc::clone(&self.admitted);
                match creation.may_be_found() && why != Refusal::Closed {
                    true => {
                        let (work, tries) = (Arc::clone(&self.work), Arc::clone(tries));
                        creation.accept_if_created(&self.node, work, tries, admitted);
                    }
                    false => creation.disown(&self.node, admitted),
                }
                tries.lock().refusal = Some(why);
            }
        }
        tries.take_found().ok_or(NotCreated)
    }

    fn accepted(&mut self, record: Record<RecordedResponse>) {
        if let Some(key) = self.reserved.take() {
            key.bound();
        }
        self.tell((RaceResult::Accepted(record), None));
    }
}

/// The results of the tries to create the operation of one raced call.
#[derive(Default)]
pub(super) struct RaceTries(Mutex<TriesState>);

#[derive(Default)]
struct TriesState {
    /// The error of the last failed try.
    refusal: Option<Refusal>,
    /// The operation, if one of the tries turned out to have created it.
    found: Option<Record<RecordedResponse>>,
}

impl RaceTries {
    fn take_found(&self) -> Option<Record<RecordedResponse>> {
        self.lock().found.take()
    }

    fn lock(&self) -> MutexGuard<'_, TriesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Creation {
    /// Turns the call into the operation, in a task, if the operation has been created after
    /// all. Ends the operation if the call has been answered by then. The request has a key, so
    /// a repetition finds the operation. `admitted` is the place in flight.
    pub(super) fn accept_if_created<R, P>(
        mut self,
        node: &Arc<Runtime<R>>,
        work: Arc<RunContext>,
        tries: Arc<RaceTries>,
        admitted: P,
    ) where
        R: Lease<Output = RecordedResponse>,
        P: Send + 'static,
    {
        // The store may be unavailable for long.
        self.new.request = None;
        let node = Arc::clone(node);
        let accept = async move {
            let term = self.lease_term(&node);
            let looked = find(&node, &self, term);
            let record = match afterwards(&node.in_flight, admitted, looked).await {
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(error) => {
                    let id = &self.new.id;
                    tracing::warn!(%id, error = error.report(), "operation may exist, left to expire");
                    return;
                }
            };
            tries.lock().found = Some(record);
            let is_accepted = match work.gate() {
                Some(gate) => gate.accept().await.is_ok(),
                None => false,
            };
            // Unless a later try of the handler has accepted the operation.
            if !is_accepted && tries.take_found().is_some() {
                self.disown(&node, node.in_flight.admit_anyway());
            }
        };
        tokio::spawn(Box::pin(accept.in_current_span()));
    }
}
