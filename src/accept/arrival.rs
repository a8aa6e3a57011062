//! An admitted request, and the way that it takes once its body is complete.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;

use super::{
    RequestBody,
    creation::Creation,
    future::AcceptStep,
    inner::Inner,
    mode::Decision,
    policy::Policy,
    race::RacedCall,
    refuse::{Refusal, discard_after},
    request_body::{CollectBody, CollectError},
    reservation::{ReservedKey, reserve},
    responder::AcceptResponder,
    submission::Submission,
};
use crate::{
    operation::{BufferedBody, OperationId, RecordedResponse},
    run::{AdmissionPermit, BodyBytes, BufferedRequest, Runtime, current_span, operation_span},
    store::{Lease, LeaseConfig, NewOperation, Owner},
    tower_util::MapRequest,
};

/// An admitted request, with everything that is needed to create its operation. Its body is empty
/// until it was collected; a streamed body is never a part of it.
pub(super) struct Arrival<S, R> {
    pub(super) inner: S,
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    pub(super) decision: Decision,
    /// The time at which the request is accepted if it has no answer; known once the request is
    /// complete.
    pub(super) accept_at: Option<Instant>,
    /// The request, without its body until the body was collected.
    pub(super) request: Box<BufferedRequest>,
    /// Whether the request is stored for a rerun.
    pub(super) is_kept: bool,
    /// The owner of the request.
    pub(super) owner: Option<Owner>,
    pub(super) admitted: AdmissionPermit,
}

impl<S, R> Arrival<S, R>
where
    R: Lease<Output = RecordedResponse>,
{
    /// Continues with the complete body: submits the request, or races its call. The key is
    /// reserved before if something comes before the create.
    pub(super) fn proceed<B>(mut self, body: BufferedBody) -> AcceptStep<S, R, B>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        self.request.body = body;
        self.accept_at = self.decision.accept_at();
        let creation = match self.identify() {
            Ok(creation) => creation,
            Err(refusal) => return AcceptStep::refused(self.refuse(&refusal)),
        };
        let races = matches!(self.decision, Decision::After(_) | Decision::Signaled);
        // Otherwise creating the operation binds the key in the same step.
        // An upload that a repetition would not need waits for that, too.
        let comes_first = races || !creation.is_fresh || creation.upload.is_some();
        let needs_reservation = creation.new.key().is_some() && comes_first;
        match self.node.keys.get().copied() {
            Some(keys) if needs_reservation => AcceptStep::Reserving {
                reserving: Box::pin(reserve(self, keys, creation)),
            },
            _ => self.proceed_with(creation, None),
        }
    }

    /// Continues without a key, with a key that the create takes, or with a reserved one.
    pub(super) fn proceed_with<B>(
        self,
        creation: Creation,
        reserved: Option<ReservedKey>,
    ) -> AcceptStep<S, R, B>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        match self.decision {
            Decision::Pass | Decision::Now => self.submit(creation, reserved),
            Decision::After(_) | Decision::Signaled => AcceptStep::Racing {
                race: RacedCall::start(self, creation, RequestBody::whole, reserved),
            },
        }
    }

    /// Races the call of a request that streams.
    pub(super) fn stream<B>(self, body: B) -> AcceptStep<S, R, B>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let creation = self.creation(None);
        let (body, rest) = RequestBody::lent(body, self.request.parts.version);
        let mut race = RacedCall::start(self, creation, |_| body, None);
        race.rest = rest;
        AcceptStep::Racing { race }
    }

    /// Submits the request: creates its operation and starts its run. From here on neither
    /// depends on the client.
    fn submit<B>(self, creation: Creation, reserved: Option<ReservedKey>) -> AcceptStep<S, R, B>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let responder = self.responder(&creation.new.id);
        let service = MapRequest {
            inner: self.inner,
            map: |request: Request<BufferedBody>| request.map(RequestBody::<B>::whole),
        };
        let parts = &self.request.parts;
        let span = operation_span(&creation.new.id, parts, &current_span());
        let submission = Submission {
            node: self.node,
            policy: self.policy,
            creation,
            reserved,
            service,
            request: self.request,
            admitted: Some(self.admitted),
            span,
        };
        submission.submit(responder)
    }

    /// Returns the operation for this request, with the id and the key that the request
    /// names.
    fn identify(&self) -> Result<Creation, Refusal> {
        let Some(rules) = &self.policy.idempotency else {
            return Ok(self.creation(None));
        };
        let mut creation = self.creation(rules.client_id(&self.request.parts)?);
        let body = self.request.body.data();
        let id = (!creation.is_fresh).then_some(&creation.new.id);
        let key = rules.key(
            &self.request.parts,
            body,
            id,
            self.policy.shared.owner.is_some(),
        )?;
        if let Some(key) = key {
            creation.new = creation.new.with_key(key);
        }
        Ok(creation)
    }

    /// Returns the creation of an operation with this id, or with a fresh one.
    fn creation(&self, id: Option<OperationId>) -> Creation {
        let is_fresh = id.is_none();
        let mut new = NewOperation::new(id.unwrap_or_else(OperationId::new));
        new.owner = self.owner.clone();
        new.owners_known = self.policy.shared.owner.is_some();
        new.method = Some(self.request.parts.method.clone());
        new.name = self.policy.name.clone();
        new.lease = Some(self.lease());
        let mut creation = Creation::new(new, is_fresh);
        if self.is_kept {
            self.keep_request(&mut creation);
        }
        creation
    }

    /// Adds the stored form of the request, or the upload of its body if that is long.
    fn keep_request(&self, creation: &mut Creation) {
        let (request, length) = (&self.request, self.request.body.data().len() as u64);
        match &self.node.results {
            Some(results) if length > results.threshold => {
                let upload = self.policy.upload(request, results, &creation.new.id);
                creation.upload = upload.map(Arc::new);
            }
            _ => creation.new.set_request(self.policy.stored_form(request)),
        }
    }

    /// Returns the first lease of the operation: that of this node, or a lease that no node
    /// renews until a worker claims the operation.
    fn lease(&self) -> LeaseConfig {
        let lease = self.node.lease().clone();
        match &self.node.dispatcher {
            Some(dispatcher) => LeaseConfig {
                term: dispatcher.patience,
                ..lease
            },
            None => lease,
        }
    }

    /// Returns the responder. The responder runs a hook of the application, which may panic, so
    /// it is created before the operation is.
    pub(super) fn responder(&self, id: &OperationId) -> AcceptResponder {
        let parts = &self.request.parts;
        let urls = self.policy.shared.locator.urls(parts, id);
        AcceptResponder::new(Arc::clone(&self.policy), urls, parts.version)
    }

    /// Refuses the request because of its body. The client may still be sending the rest.
    #[cold]
    pub(super) fn refuse_body<B>(
        &self,
        CollectError { refusal, unread }: CollectError,
        rest: CollectBody<B>,
    ) -> Response<BufferedBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let version = self.request.parts.version;
        let mut response = refusal.response(&self.policy, version, unread);
        if unread {
            discard_after(version, &mut response, rest.into_rest());
        }
        response
    }

    /// Returns the bytes of a body that does not count yet.
    pub(super) fn no_body_bytes(&self) -> BodyBytes {
        let knows_owners = self.policy.shared.owner.is_some();
        let owner = knows_owners.then(|| self.owner.clone());
        self.node.in_flight.bytes().body_bytes(owner)
    }

    /// Refuses the request, whose body is complete.
    #[cold]
    pub(super) fn refuse(&self, refusal: &Refusal) -> Response<BufferedBody> {
        refusal.response(&self.policy, self.request.parts.version, false)
    }
}
