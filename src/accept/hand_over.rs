//! From a whole request to an operation that runs by itself.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, request::Parts};
use http_body::Body;
use tokio::sync::oneshot;
use tower::ServiceExt;
use tracing::Span;

use super::{
    RequestBody,
    create::{Made, create, is_free},
    front::{Accepted, Created, Front},
    going::{Creating, Going, Held},
    inner::Inner,
    policy::Policy,
    refuse::Refusal,
    reserve::{Reserved, ReservedKey},
    when::{Reply, Way},
};
use crate::{
    operation::{OperationId, RecordedResponse, WholeBody},
    run::{Admitted, InProcess, Leaving, Node, Take, Taken, spawn_after_a_turn},
    store::{FencingToken, KeyPowers, Lease, LeaseTerm, NewOperation},
};

/// A request that was let in, and what it needs to become an operation.
pub(super) struct Arriving<S, R> {
    pub(super) inner: S,
    pub(super) node: Arc<Node<R>>,
    pub(super) policy: Arc<Policy>,
    pub(super) way: Way,
    pub(super) parts: Parts,
    /// Whether it is kept to be run again.
    pub(super) is_kept: bool,
    pub(super) admitted: Admitted,
}

/// The operation that a request is to be.
pub(super) struct Wanted {
    pub(super) new: NewOperation,
    /// Whether the id is one that nobody can have used before.
    pub(super) is_fresh: bool,
}

impl Wanted {
    /// The same operation, of another creator.
    pub(super) fn anew(&self) -> Self {
        Self {
            new: NewOperation {
                token: FencingToken::random(),
                ..self.new.clone()
            },
            is_fresh: self.is_fresh,
        }
    }
}

impl<S, R> Arriving<S, R>
where
    R: Lease<Output = RecordedResponse>,
{
    /// Goes on with the whole body: the operation is created now, or the call
    /// is held, once it is certain that its key is free.
    pub(super) fn go_on<B>(self: Box<Self>, body: WholeBody) -> Going<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let wanted = match self.identify(&body) {
            Ok(wanted) => wanted,
            Err(refusal) => return self.refused(refusal),
        };
        match (self.way, &wanted.new.key, self.node.keys.get().copied()) {
            // Creating with a fresh id reserves the key in the same step.
            (Way::Pass | Way::Now, Some(_), Some(keys)) if !wanted.is_fresh => {
                Going::Reserving(Box::pin(self.reserve(keys, wanted, body)))
            }
            (Way::Pass | Way::Now, _, _) => Going::Creating(self.hand_over(wanted, body, None)),
            (Way::After(_) | Way::Signaled, Some(_), Some(keys)) => {
                Going::Reserving(Box::pin(self.reserve(keys, wanted, body)))
            }
            (Way::After(_) | Way::Signaled, _, _) => {
                Going::Held(self.hold(wanted, RequestBody::whole(body), None))
            }
        }
    }

    /// Holds the call of a request that streams.
    pub(super) fn stream<B>(self, body: B) -> Held<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let wanted = self.wanted(None, None);
        self.hold(wanted, RequestBody::passing(body), None)
    }

    /// Reserves the key, then holds the call.
    async fn reserve<B>(
        self: Box<Self>,
        keys: KeyPowers<R>,
        mut wanted: Wanted,
        body: WholeBody,
    ) -> Going<S::Response, S::Error>
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let (Some(key), Some(rules)) = (wanted.new.key.clone(), &self.policy.idempotency) else {
            return Going::Held(self.hold(wanted, RequestBody::whole(body), None));
        };
        let (node, max_wait) = (Arc::clone(&self.node), rules.max_wait);
        let owner = wanted.new.owner.clone();
        let patience = self.policy.create_timeout;
        let reserved = ReservedKey::reserve(node, keys, key, owner, patience, max_wait).await;
        let accepted = match reserved {
            Ok(Reserved::Free(key)) => {
                let node = Arc::clone(&self.node);
                if let Err(refusal) = is_free(&node, patience, &wanted).await {
                    return self.refused(refusal);
                }
                wanted.new = wanted.new.reservation(key.token);
                return match self.way {
                    Way::Pass | Way::Now => {
                        Going::Creating(self.hand_over(wanted, body, Some(key)))
                    }
                    Way::After(_) | Way::Signaled => {
                        Going::Held(self.hold(wanted, RequestBody::whole(body), Some(key)))
                    }
                };
            }
            Ok(Reserved::Operation(record)) if record.was_not_dispatched() => {
                return self.refused(Refusal::Unavailable);
            }
            Ok(Reserved::Operation(record)) => {
                let urls = self
                    .policy
                    .locator
                    .urls(&self.parts, record.operation().id());
                Accepted::Repeated(Created::of(&record), urls)
            }
            Ok(Reserved::Answered(answer)) => Accepted::Answered(answer),
            Err(refusal) => return self.refused(refusal),
        };
        let (response, reply) = self.front(&wanted.new.id).accepted(&accepted);
        Going::Answer { response, reply }
    }

    /// Creates the operation and runs it, in a task of its own: neither depends
    /// on the client from here on.
    fn hand_over<B>(
        self,
        wanted: Wanted,
        body: WholeBody,
        mut reserved: Option<ReservedKey>,
    ) -> Creating
    where
        S: Inner<B>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let front = self.front(&wanted.new.id);
        let Self {
            inner,
            node,
            policy,
            parts,
            admitted,
            ..
        } = self;
        let request = Box::new(Request::from_parts(parts, body));
        let (tell, created) = oneshot::channel();
        let span = Span::current();
        let service =
            inner.map_request(|request: Request<WholeBody>| request.map(RequestBody::<B>::whole));
        spawn_after_a_turn(async move {
            let record = match create(&node, &policy, &wanted).await {
                Ok(Made::New(record)) => {
                    if let Some(key) = reserved.take() {
                        key.bound();
                    }
                    record
                }
                // It was answered with a 503: this is no other request.
                Ok(Made::Repeated(record)) if record.was_not_dispatched() => {
                    let _ = tell.send(Err(Refusal::Unavailable));
                    return;
                }
                Ok(Made::Repeated(record)) => {
                    let (parts, _) = request.into_parts();
                    let urls = policy.locator.urls(&parts, record.operation().id());
                    let _ = tell.send(Ok(Accepted::Repeated(Created::of(&record), urls)));
                    return;
                }
                Ok(Made::Answered(answer)) => {
                    let _ = tell.send(Ok(Accepted::Answered(answer)));
                    return;
                }
                Err(refusal) => {
                    let _ = tell.send(Err(refusal));
                    return;
                }
            };
            let leaving = Leaving {
                node: Arc::clone(&node),
                limits: policy.run,
                service,
                record,
                request,
                stored: wanted.new.request,
                may_come_again: wanted.new.key.is_some(),
                admitted,
                span,
                at_most: policy.create_timeout,
            };
            // The client may be gone; the operation is not.
            let tell = |taken| {
                let _ = tell.send(match taken {
                    Taken::Yes(record) => Ok(Accepted::New(Created::of(&record))),
                    Taken::No => Err(Refusal::Unavailable),
                });
            };
            match &node.hand_off {
                None => InProcess::HERE.take(leaving, tell).await,
                Some(hand_off) => hand_off.take(leaving, tell).await,
            }
        });
        Creating { created, front }
    }

    /// The operation this request is to be, with the id and the key it brings.
    fn identify(&self, body: &WholeBody) -> Result<Wanted, Refusal> {
        let Some(rules) = &self.policy.idempotency else {
            return Ok(self.wanted(None, Some(body)));
        };
        let mut wanted = self.wanted(rules.client_id(&self.parts)?, Some(body));
        let body = body.data();
        let id = (!wanted.is_fresh).then_some(&wanted.new.id);
        wanted.new.key = rules.key(&self.parts, body, id, self.policy.knows_owners())?;
        Ok(wanted)
    }

    fn wanted(&self, id: Option<OperationId>, body: Option<&WholeBody>) -> Wanted {
        let is_fresh = id.is_none();
        let mut new = NewOperation::new(id.unwrap_or_else(OperationId::new));
        new.owner = self.policy.owner(&self.parts);
        new.method = Some(self.parts.method.clone());
        new.name = self.policy.name.clone();
        new.lease = Some(self.lease());
        new.request = body
            .filter(|_| self.is_kept)
            .and_then(|body| self.policy.kept(&self.parts, body));
        Wanted { new, is_fresh }
    }

    /// How the operation is held at first: by this node, or by nobody who would renew it
    /// until a worker claims it.
    fn lease(&self) -> LeaseTerm {
        let lease = self.node.lease().clone();
        match &self.node.hand_off {
            Some(hand_off) => LeaseTerm {
                term: hand_off.patience,
                ..lease
            },
            None => lease,
        }
    }

    /// Made before there is anything to lose: it runs a hook of the application.
    pub(super) fn front(&self, id: &OperationId) -> Front {
        let urls = self.policy.locator.urls(&self.parts, id);
        Front::new(Arc::clone(&self.policy), urls, self.parts.version)
    }

    fn refused<P, E>(&self, refusal: Refusal) -> Going<P, E> {
        let response = refusal.response(&self.policy, self.parts.version, false);
        Going::Answer {
            response,
            reply: Reply::Refused,
        }
    }
}
