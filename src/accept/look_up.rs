//! Repetitions that come while nothing more may be in flight.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::request::Parts;
use http_body::Body;
use tokio::time::{Instant, timeout_at};

use super::{
    going::Going,
    idempotency::sent,
    key_digest::KeyDigest,
    mode::ReplyKind,
    policy::Policy,
    refuse::{Refusal, discard_after},
    repeated::repeated,
    reservation::{ReserveOutcome, ReservedKey},
    responder::{AcceptAnswer, AcceptResponder, AcceptVerdict},
};
use crate::{
    operation::{OperationId, RecordedResponse},
    run::{LookupPermit, PassThrough, Runtime},
    store::{IdempotencyKey, KeyCapability, Lease, Owner},
};

/// A request without a place in flight, which may repeat one that has been accepted.
///
/// Its body is read for the fingerprint and not kept, so however many there are, they take
/// no memory for bodies. How many are looked up at a time is bounded too.
pub(super) struct LookUp<R> {
    pub(super) node: Arc<Runtime<R>>,
    pub(super) policy: Arc<Policy>,
    pub(super) keys: KeyCapability<R>,
    pub(super) parts: Parts,
    pub(super) owner: Option<Owner>,
    /// The answer to a request that is no repetition.
    pub(super) refusal: Refusal,
    pub(super) _permit: LookupPermit,
    /// A drain waits for it.
    pub(super) passing: Option<PassThrough>,
}

impl<R: Lease<Output = RecordedResponse>> LookUp<R> {
    /// Looks up what the key stands for once the body is in `digest`.
    pub(super) async fn run<P, E, B>(self, body: B, mut digest: KeyDigest) -> Going<P, E>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let mut body = Box::pin(body);
        let in_flight = Arc::clone(&self.node.in_flight);
        let looked_up = async {
            match self.read(body.as_mut(), &mut digest).await {
                true => self.look_up(digest.finish()).await,
                false => Err(self.refusal.clone()),
            }
        };
        let verdict = tokio::select! {
            biased;
            verdict = looked_up => verdict,
            () = in_flight.over().cancelled() => Err(Refusal::Closed),
        };
        if self.passing.is_some() {
            match &verdict {
                Err(Refusal::Closed) => in_flight.refused(),
                _ => in_flight.answered(),
            }
        }
        let unread = !body.is_end_stream();
        match &verdict {
            Err(refusal) if unread => {
                let version = self.parts.version;
                let mut response = refusal.response(&self.policy, version, true);
                discard_after(version, &mut response, body);
                (response, ReplyKind::Refused).into()
            }
            verdict => self.responder().answer(verdict).into(),
        }
    }

    /// Takes the body into the fingerprint; false if it is not to be had.
    async fn read<B>(&self, mut body: Pin<&mut B>, digest: &mut KeyDigest) -> bool
    where
        B: Body<Data = Bytes>,
    {
        let until = Instant::now() + self.policy.body_timeout;
        let mut left = self.policy.body_limit;
        loop {
            let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
            let data = match timeout_at(until, frame).await {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(None) => return true,
                Ok(Some(Err(_))) | Err(_) => return false,
            };
            digest.update(&data);
            match left.checked_sub(data.len() as u64) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
    }

    /// Looks up the operation or the answer of a key. A key that is free stays free.
    async fn look_up(&self, mut key: IdempotencyKey) -> AcceptVerdict {
        key.owner.clone_from(&self.owner);
        let (node, policy) = (Arc::clone(&self.node), &self.policy);
        let name = sent(&key);
        let no_time = Duration::ZERO;
        let reserved = ReservedKey::reserve(node, self.keys, key, policy.create_timeout, no_time);
        match reserved.await {
            Ok(ReserveOutcome::Operation(record)) => repeated(policy, &self.parts, &record, name),
            Ok(ReserveOutcome::Answered(answer)) => Ok(AcceptAnswer::Answered(answer)),
            // Dropped, it is freed.
            Ok(ReserveOutcome::Free(_)) => Err(self.refusal.clone()),
            Err(refusal) => Err(match refusal {
                Refusal::KeyReused(_) | Refusal::KeyInUse(_) | Refusal::Deleted(..) => refusal,
                _ => self.refusal.clone(),
            }),
        }
    }

    fn responder(&self) -> AcceptResponder {
        // A repetition is answered with the URLs of its operation.
        let urls = self
            .policy
            .shared
            .locator
            .urls(&self.parts, &OperationId::new());
        AcceptResponder::new(Arc::clone(&self.policy), urls, self.parts.version)
    }
}
