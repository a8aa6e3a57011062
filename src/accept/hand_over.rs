//! Turning a complete request into an operation that runs in the background.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tracing::Span;

use super::{
    RequestBody,
    create::is_free,
    departure::Departure,
    going::{Going, HeldCall},
    idempotency::request_name,
    inner::Inner,
    mode::{Decision, ReplyKind},
    policy::Policy,
    refuse::Refusal,
    repeated::repeated,
    reservation::{ReserveOutcome, ReservedKey},
    responder::{AcceptAnswer, AcceptResponder},
};
use crate::{
    call::MapRequest,
    dialect::RequestName,
    operation::{BufferedBody, OperationId, RecordedResponse},
    run::{AdmissionPermit, BufferedRequest, Runtime},
    store::{FencingToken, KeyCapability, Lease, LeaseConfig, NewOperation, Owner},
};

/// An admitted request, with everything that is needed to create its operation.
pub(super) struct Arriving<S, R> {
    pub(super) inner: S,
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    pub(super) way: Decision,
    /// The request, without its body until the body was collected.
    pub(super) request: Box<BufferedRequest>,
    /// Whether the request is stored for a rerun.
    pub(super) is_kept: bool,
    /// The owner of the request.
    pub(super) owner: Option<Owner>,
    pub(super) admitted: AdmissionPermit,
}

/// The operation that is to be created for a request.
pub(super) struct Wanted {
    pub(super) new: NewOperation,
    /// Whether the id is a fresh one that no earlier request can have used.
    pub(super) is_fresh: bool,
    /// The number of tries to create the operation whose result is uncertain.
    pub(super) in_doubt: AtomicUsize,
}

impl Wanted {
    /// Returns the name that the client gave the request.
    pub(super) fn name(&self) -> RequestName {
        match &self.new.key {
            Some(key) => request_name(key),
            None => RequestName::Id(self.new.id.clone()),
        }
    }

    /// Returns whether the operation may exist although its creation seemed to fail, so that a
    /// repetition of the request finds the operation.
    pub(super) fn may_be_found(&self) -> bool {
        self.new.key.is_some() && self.in_doubt.load(Relaxed) > 0
    }

    /// Returns how long the operation is leased without a renewal.
    pub(super) fn lease_term<R>(&self, node: &Runtime<R>) -> Duration {
        let lease = self.new.lease.as_ref();
        lease.map_or(node.lease().term, |lease| lease.term)
    }

    /// Returns the same operation with another creator.
    pub(super) fn anew(&self) -> Self {
        Self {
            new: NewOperation {
                token: FencingToken::random(),
                ..self.new.clone()
            },
            is_fresh: self.is_fresh,
            in_doubt: AtomicUsize::new(0),
        }
    }
}

impl<S, R> Arriving<S, R>
where
    R: Lease<Output = RecordedResponse>,
{
    /// Continues with the complete body: creates the operation now, or holds the call once
    /// the key is certain to be free.
    pub(super) fn go_on<B>(mut self, body: BufferedBody) -> Going<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        self.request.body = body;
        let wanted = match self.identify() {
            Ok(wanted) => wanted,
            Err(refusal) => return self.refused(&refusal),
        };
        match (self.way, &wanted.new.key, self.node.keys.get().copied()) {
            // Creating with a fresh id reserves the key in the same step.
            (Decision::Pass | Decision::Now, Some(_), Some(keys)) if !wanted.is_fresh => {
                Going::Reserving(Box::pin(self.reserve(keys, wanted)))
            }
            (Decision::Pass | Decision::Now, _, _) => self.hand_over(wanted, None),
            (Decision::After(_) | Decision::Signaled, Some(_), Some(keys)) => {
                Going::Reserving(Box::pin(self.reserve(keys, wanted)))
            }
            (Decision::After(_) | Decision::Signaled, _, _) => {
                Going::Held(self.hold_whole(wanted, None))
            }
        }
    }

    /// Holds the call of a request that streams.
    pub(super) fn stream<B>(self, body: B) -> HeldCall<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let wanted = self.wanted(None);
        let (body, rest) = RequestBody::lent(body, self.request.parts.version);
        let mut held = self.hold(wanted, |_| body, None);
        held.rest = rest;
        held
    }

    /// Holds the call of a request whose body is complete.
    fn hold_whole<B>(
        self,
        wanted: Wanted,
        reserved: Option<ReservedKey>,
    ) -> HeldCall<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        self.hold(wanted, RequestBody::whole, reserved)
    }

    /// Reserves the key, then holds the call.
    async fn reserve<B>(
        self,
        keys: KeyCapability<R>,
        mut wanted: Wanted,
    ) -> Going<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let (Some(key), Some(rules)) = (wanted.new.key.clone(), &self.policy.idempotency) else {
            return Going::Held(self.hold_whole(wanted, None));
        };
        let (node, max_wait) = (Arc::clone(&self.node), rules.max_wait);
        let patience = self.policy.create_timeout;
        let in_flight = Arc::clone(&node.in_flight);
        let reserved = tokio::select! {
            biased;
            reserved = ReservedKey::reserve(node, keys, key, patience, max_wait) => reserved,
            () = in_flight.over().cancelled() => {
                in_flight.refused();
                Err(Refusal::Closed)
            }
        };
        let verdict = match reserved {
            Ok(ReserveOutcome::Free(key)) => {
                let node = Arc::clone(&self.node);
                if let Err(refusal) = is_free(&node, patience, &wanted).await {
                    match refusal {
                        Refusal::Closed => in_flight.refused(),
                        _ => in_flight.answered(),
                    }
                    return self.refused(&refusal);
                }
                wanted.new = wanted.new.with_reservation(key.token);
                return match self.way {
                    Decision::Pass | Decision::Now => self.hand_over(wanted, Some(key)),
                    Decision::After(_) | Decision::Signaled => {
                        Going::Held(self.hold_whole(wanted, Some(key)))
                    }
                };
            }
            Ok(ReserveOutcome::Operation(record)) => {
                let parts = &self.request.parts;
                repeated(&self.policy, parts, &record, wanted.name())
            }
            Ok(ReserveOutcome::Answered(answer)) => Ok(AcceptAnswer::Answered(answer)),
            Err(refusal) => {
                if refusal != Refusal::Closed {
                    in_flight.answered();
                }
                Err(refusal)
            }
        };
        self.front(&wanted.new.id).answer(&verdict).into()
    }

    /// Creates the operation and starts its run. From here on neither depends on the
    /// client.
    fn hand_over<B>(
        self,
        wanted: Wanted,
        reserved: Option<ReservedKey>,
    ) -> Going<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let front = self.front(&wanted.new.id);
        let service = MapRequest {
            inner: self.inner,
            map: |request: Request<BufferedBody>| request.map(RequestBody::<B>::whole),
        };
        let departure = Departure {
            node: self.node,
            policy: self.policy,
            wanted,
            reserved,
            service,
            request: self.request,
            admitted: Some(self.admitted),
            span: Span::current(),
        };
        departure.go(front)
    }

    /// Returns the operation for this request, with the id and the key that the request
    /// names.
    fn identify(&self) -> Result<Wanted, Refusal> {
        let Some(rules) = &self.policy.idempotency else {
            return Ok(self.wanted(None));
        };
        let mut wanted = self.wanted(rules.client_id(&self.request.parts)?);
        let body = self.request.body.data();
        let id = (!wanted.is_fresh).then_some(&wanted.new.id);
        let key = rules.key(
            &self.request.parts,
            body,
            id,
            self.policy.shared.owner.is_some(),
        )?;
        if let Some(key) = key {
            wanted.new = wanted.new.with_key(key);
        }
        Ok(wanted)
    }

    fn wanted(&self, id: Option<OperationId>) -> Wanted {
        let parts = &self.request.parts;
        let is_fresh = id.is_none();
        let mut new = NewOperation::new(id.unwrap_or_else(OperationId::new));
        new.owner = self.owner.clone();
        new.owners_known = self.policy.shared.owner.is_some();
        new.method = Some(parts.method.clone());
        new.name = self.policy.name.clone();
        new.lease = Some(self.lease());
        if self.is_kept {
            new.request = self.policy.kept(&self.request);
        }
        Wanted {
            new,
            is_fresh,
            in_doubt: AtomicUsize::new(0),
        }
    }

    /// Returns the first lease of the operation: that of this node, or a lease that no node
    /// renews until a worker claims the operation.
    fn lease(&self) -> LeaseConfig {
        let lease = self.node.lease().clone();
        match &self.node.hand_off {
            Some(hand_off) => LeaseConfig {
                term: hand_off.patience,
                ..lease
            },
            None => lease,
        }
    }

    /// Returns the responder. The responder runs a hook of the application, which may panic, so
    /// it is created before the operation is.
    pub(super) fn front(&self, id: &OperationId) -> AcceptResponder {
        let parts = &self.request.parts;
        let urls = self.policy.shared.locator.urls(parts, id);
        AcceptResponder::new(Arc::clone(&self.policy), urls, parts.version)
    }

    fn refused<P, E>(&self, refusal: &Refusal) -> Going<P, E> {
        let response = refusal.response(&self.policy, self.request.parts.version, false);
        (response, ReplyKind::Refused).into()
    }
}
