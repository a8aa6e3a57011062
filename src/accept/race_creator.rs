//! Creating the operation of a raced call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{
    creation::{CreateOutcome, Creation},
    policy::Policy,
    race::{RaceMessage, RaceResult},
    refuse::Refusal,
    reservation::ReservedKey,
};
use crate::{
    operation::{OperationId, RecordedResponse},
    run::{AdmissionPermit, Creator, NotCreated, RunContext, Runtime},
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

impl<R, P, E> Creator for RaceCreator<R, P, E>
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
        match creation.create(&self.node, &self.policy, || ()).await {
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
            key.end();
        }
        self.creation.drop_request();
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
    pub(super) fn set_found(&self, record: Record<RecordedResponse>) {
        self.lock().found = Some(record);
    }

    pub(super) fn take_found(&self) -> Option<Record<RecordedResponse>> {
        self.lock().found.take()
    }

    fn lock(&self) -> MutexGuard<'_, TriesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
