use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_LENGTH, request::Parts};
use http_body::Body;
use tower_service::Service;

use super::{
    RequestBody, ResponseBody, ResponseFuture,
    arrival::Arrival,
    drain_over::DrainOver,
    future::AcceptStep,
    inner::Inner,
    mode::Decision,
    policy::{Policy, RequestClass},
    refuse::{DrainRefusal, Refusal, refuse_unread},
    request_body::CollectBody,
};
use crate::{
    BoxError,
    operation::{BufferedBody, RecordedResponse},
    run::{BufferedRequest, Runtime},
    store::Lease,
    tower_util::Oneshot,
};

/// The service that [`AsyncAcceptLayer`](super::AsyncAcceptLayer) creates.
pub struct AsyncAccept<S, R> {
    inner: S,
    node: Arc<Runtime<R>>,
    policy: Arc<Policy>,
}

impl<S, R> AsyncAccept<S, R> {
    pub(super) fn new(inner: S, node: Arc<Runtime<R>>, policy: Arc<Policy>) -> Self {
        Self {
            inner,
            node,
            policy,
        }
    }

    #[cold]
    fn refuse<B>(&self, refusal: &Refusal, parts: &Parts, body: B) -> AcceptStep<S, R, B>
    where
        S: Service<Request<RequestBody<B>>>,
        B: Body<Data = Bytes> + Send + 'static,
    {
        AcceptStep::refused(refuse_unread(&self.policy, refusal, parts, body))
    }
}

impl<S, R, B, C> Service<Request<B>> for AsyncAccept<S, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<C>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    C: Body<Data = Bytes> + Send + 'static,
    C::Error: Into<BoxError> + Send,
    R: Lease<Output = RecordedResponse>,
{
    type Response = Response<ResponseBody<C>>;
    /// The error of the inner service for a request that passes through. An error of an accepted
    /// request is an outcome of its operation.
    type Error = S::Error;
    type Future = ResponseFuture<S, R, B>;

    /// Returns `Ready` always; see [Readiness](crate::accept#readiness).
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S, R, B> {
        let (parts, body) = request.into_parts();
        let class = self.policy.classify(&parts);
        let (decision, preferred) = self.policy.decide(&parts, class);
        let step = match decision {
            Decision::Pass => self.pass(class, parts, body),
            decision => self.admit(decision, parts, body),
        };
        ResponseFuture::new(step, preferred)
    }
}

impl<S, R> AsyncAccept<S, R> {
    /// Passes a request on. If the request came before a drain, the drain waits for its answer,
    /// and refuses the request at the end, unless the request is drained elsewhere.
    fn pass<B>(&self, class: RequestClass, parts: Parts, body: B) -> AcceptStep<S, R, B>
    where
        S: Inner<B> + Clone,
        B: Body<Data = Bytes> + Send + 'static,
    {
        let in_flight = &self.node.in_flight;
        let passing = match class {
            RequestClass::OfOperations => None,
            RequestClass::Acceptable | RequestClass::Another => in_flight.pass_while_open(),
        };
        let is_acceptable = class == RequestClass::Acceptable;
        // A request that the layer does not accept is not refused if it comes after the drain
        // has begun.
        let (body, refusing) = match is_acceptable || passing.is_some() {
            false => (RequestBody::passing(body), None),
            true => {
                let (body, rest) = RequestBody::lent(body, parts.version);
                let refusing = DrainRefusal {
                    in_flight: Arc::clone(in_flight),
                    policy: Arc::clone(&self.policy),
                    version: parts.version,
                    is_acceptable,
                    rest,
                };
                (body, Some(refusing))
            }
        };
        let request = Request::from_parts(parts, body);
        AcceptStep::Passing {
            response: Oneshot::new(self.inner.clone(), request),
            passing,
            refusing,
            over: DrainOver::default(),
        }
    }

    /// Admits a request, or refuses it if there is no room.
    fn admit<B>(&self, decision: Decision, parts: Parts, body: B) -> AcceptStep<S, R, B>
    where
        S: Inner<B> + Clone,
        B: Body<Data = Bytes> + Send + 'static,
        R: Lease<Output = RecordedResponse>,
    {
        let known = self.policy.shared.known_owner(&parts);
        let in_flight = &self.node.in_flight;
        let admitted = match &known {
            Some(owner) => in_flight.admit_for(owner.clone()),
            None => in_flight.admit(),
        };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return self.refuse(&refused.into(), &parts, body),
        };
        let arrival = Arrival {
            inner: self.inner.clone(),
            node: Arc::clone(&self.node),
            policy: Arc::clone(&self.policy),
            decision,
            accept_at: None,
            is_kept: self.policy.keeps(&parts),
            owner: known.flatten(),
            request: Box::new(BufferedRequest {
                target: self.policy.original_uri_of(&parts),
                parts,
                body: BufferedBody::default(),
                reference: None,
            }),
            admitted,
        };
        let parts = &arrival.request.parts;
        let is_keyed = self
            .policy
            .idempotency
            .as_ref()
            .is_some_and(|rules| rules.concerns(&parts.headers));
        if decision == Decision::Signaled && !is_keyed && !arrival.is_kept {
            return arrival.stream(body);
        }
        let limit = self.policy.body_limit;
        let announced = body.size_hint().lower().max(content_length(parts));
        if announced > limit {
            return self.refuse(&Refusal::BodyTooLarge, parts, body);
        }
        let knows_owners = self.policy.shared.owner.is_some();
        let owner = knows_owners.then_some(&arrival.owner);
        if let Err(exceeded) = self.node.in_flight.bytes().fits(announced, owner) {
            return self.refuse(&exceeded.into(), parts, body);
        }
        let collecting = CollectBody::new(body, limit, self.policy.body_timeout);
        AcceptStep::Collecting {
            collecting: Some((collecting, arrival)),
            over: DrainOver::default(),
        }
    }
}

fn content_length(parts: &Parts) -> u64 {
    let value = parts.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    value
        .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
        .unwrap_or(0)
}

impl<S: Clone, R> Clone for AsyncAccept<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            node: Arc::clone(&self.node),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for AsyncAccept<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncAccept")
            .field("inner", &self.inner)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
