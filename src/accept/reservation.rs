//! Reserving the key of a request that may be answered without an operation.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::Body;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tracing::Instrument;

use super::{
    arrival::Arrival, creation::Creation, future::AcceptStep, idempotency::request_name,
    inner::Inner, refuse::Refusal, repeated::repeated, responder::AcceptAnswer,
};
use crate::{
    environment,
    operation::RecordedResponse,
    run::{Runtime, retry_until_certain},
    store::{
        FencingToken, IdempotencyKey, KeyCapability, Lease, Record, Repository, Reservation,
        StoreError,
    },
};

/// Reserves the key of a request, then continues with it.
pub(super) async fn reserve<S, R, B>(
    arrival: Arrival<S, R>,
    keys: KeyCapability<R>,
    mut creation: Creation,
) -> AcceptStep<S, R, B>
where
    S: Inner<B>,
    B: Body<Data = Bytes> + Send + 'static,
    R: Lease<Output = RecordedResponse>,
{
    let (Some(key), Some(rules)) = (creation.new.key().cloned(), &arrival.policy.idempotency)
    else {
        return arrival.proceed_with(creation, None);
    };
    let (node, max_wait) = (Arc::clone(&arrival.node), rules.max_wait);
    let patience = arrival.policy.create_timeout;
    let in_flight = Arc::clone(&node.in_flight);
    let reserved = tokio::select! {
        biased;
        reserved = ReservedKey::reserve(node, keys, key, patience, max_wait) => reserved,
        () = in_flight.over().cancelled() => {
            in_flight.refused();
            Err(Refusal::Closed)
        }
    };
    let result = match reserved {
        Ok(ReserveOutcome::Free(key)) => {
            match creation.refuse_taken_id(&arrival.node, patience).await {
                Ok(()) => {
                    creation.new = creation.new.with_reservation(key.token);
                    return arrival.proceed_with(creation, Some(key));
                }
                Err(refusal) => {
                    match refusal {
                        Refusal::Closed => in_flight.refused(),
                        _ => in_flight.answered(),
                    }
                    Err(refusal)
                }
            }
        }
        Ok(ReserveOutcome::Operation(record)) => {
            let parts = &arrival.request.parts;
            repeated(&arrival.policy, parts, &record, creation.name())
        }
        Ok(ReserveOutcome::Answered(answer)) => Ok(AcceptAnswer::Answered(answer)),
        Err(refusal) => {
            if refusal != Refusal::Closed {
                in_flight.answered();
            }
            Err(refusal)
        }
    };
    arrival.responder(&creation.new.id).answer(&result).into()
}

/// The certain result of reserving a key.
pub(super) enum ReserveOutcome {
    Free(ReservedKey),
    Operation(Record<RecordedResponse>),
    Answered(Arc<RecordedResponse>),
}

/// A key that is reserved for this request. Dropping it frees the key.
pub(super) struct ReservedKey {
    pub(super) token: FencingToken,
    end: oneshot::Sender<ReservationEnd>,
}

/// The end of a reservation that is not freed.
enum ReservationEnd {
    /// The key names an operation.
    Bound,
    /// The key names an answer that is to be stored; the sender is dropped once it is.
    Answered(RecordedResponse, oneshot::Sender<()>),
}

/// The interval at which the store is asked whether the first request has been answered.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);

impl ReservedKey {
    /// Reserves `key`, or returns what the key names. The store has `patience` to answer.
    /// While another request with the key is being answered, this waits for at most
    /// `max_wait`.
    pub(super) async fn reserve<R: Repository>(
        node: Arc<Runtime<R>>,
        powers: KeyCapability<R>,
        key: IdempotencyKey,
        patience: Duration,
        max_wait: Duration,
    ) -> Result<ReserveOutcome, Refusal> {
        let begun = Instant::now();
        loop {
            let keeper = ReservationKeeper {
                node: Arc::clone(&node),
                powers,
                key: key.clone(),
                token: FencingToken::random(),
            };
            // The keeper runs in a task of its own, so that it completes even if the client
            // disconnects.
            let (tell, told) = oneshot::channel();
            environment::spawn(Box::pin(keeper.run(patience, tell).in_current_span()));
            match told.await.unwrap_or(Err(Refusal::Unavailable))? {
                Some(reserved) => return Ok(reserved),
                None if begun.elapsed() >= max_wait => {
                    return Err(Refusal::KeyInUse(request_name(&key)));
                }
                None => sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Ends the reservation: the key names an operation now.
    pub(super) fn end(self) {
        let _ = self.end.send(ReservationEnd::Bound);
    }

    /// Stores an answer for repetitions. Returns once the answer is stored, or after `patience`.
    /// After `patience` the task continues to retry, since the call must not be rerun.
    pub(super) async fn complete(self, answer: RecordedResponse, patience: Duration) {
        let (done, settled) = oneshot::channel();
        let _ = self.end.send(ReservationEnd::Answered(answer, done));
        if timeout(patience, settled).await.is_err() {
            tracing::warn!("direct answer not stored in time, retrying");
        }
    }
}

/// Keeps a reservation while its request lives. If the node dies, the reservation expires after
/// at most one lease.
struct ReservationKeeper<R> {
    node: Arc<Runtime<R>>,
    powers: KeyCapability<R>,
    key: IdempotencyKey,
    token: FencingToken,
}

type Tell = oneshot::Sender<Result<Option<ReserveOutcome>, Refusal>>;

impl<R: Repository> ReservationKeeper<R> {
    /// Asks the store until it answers, and sends the result. Sends nothing while another
    /// request with the key is being answered.
    async fn run(self, patience: Duration, tell: Tell) {
        let (end, ended) = oneshot::channel();
        let token = self.token;
        let told = match timeout(patience, self.reserve()).await {
            Ok(Ok(Ok(Reservation::Reserved(_)))) => {
                // If the receiver is gone, the drop of the key frees it.
                let _ = tell.send(Ok(Some(ReserveOutcome::Free(ReservedKey { token, end }))));
                return self.keep(ended).await;
            }
            Ok(Ok(Err(refusal))) => {
                if refusal == Refusal::StoreFull {
                    self.node.warn_of_full_store();
                }
                Err(refusal)
            }
            Ok(Ok(Ok(found))) => match found {
                Reservation::Operation(record) => Ok(Some(ReserveOutcome::Operation(record))),
                Reservation::Answered(answer) => Ok(Some(ReserveOutcome::Answered(answer))),
                Reservation::InProgress => Ok(None),
                Reservation::Deleted(record) => {
                    Err(Refusal::deleted(&record, request_name(&self.key)))
                }
                Reservation::Mismatch | Reservation::Reserved(_) => {
                    Err(Refusal::KeyReused(request_name(&self.key)))
                }
            },
            Ok(Err(_)) | Err(_) => {
                tracing::error!("key not reserved, request refused");
                let _ = tell.send(Err(Refusal::Unavailable));
                // The error may hide that the key was reserved.
                return self.release().await;
            }
        };
        let _ = tell.send(told);
    }

    /// Renews the reservation until it ends.
    async fn keep(self, ended: oneshot::Receiver<ReservationEnd>) {
        match self.renewing_until(ended).await {
            Ok(ReservationEnd::Bound) => {}
            Ok(ReservationEnd::Answered(answer, _done)) => {
                self.renewing_until(self.complete(answer)).await;
            }
            Err(_) => self.release().await,
        }
    }

    async fn renewing_until<T>(&self, done: impl Future<Output = T>) -> T {
        let mut done = std::pin::pin!(done);
        let interval = self.node.lease().term / 3;
        loop {
            if let Ok(done) = timeout(interval, &mut done).await {
                return done;
            }
            // Awaited before anything else: a renewal that is overtaken by a release would
            // reserve the key again.
            match timeout(interval, self.reserve()).await {
                Ok(Ok(Ok(Reservation::Reserved(_)))) => {}
                // The key names an operation now.
                Ok(Ok(Ok(
                    Reservation::Operation(_) | Reservation::Deleted(_) | Reservation::Answered(_),
                ))) => {}
                Ok(Ok(Ok(_))) => tracing::warn!("key reservation lost to another request"),
                Ok(Ok(Err(_)) | Err(_)) | Err(_) => {
                    tracing::warn!("key reservation not renewed, retrying");
                }
            }
        }
    }

    /// Reserves the key, with retries until the answer is certain. The answer of a full store is
    /// certain.
    async fn reserve(&self) -> Result<Result<Reservation<RecordedResponse>, Refusal>, StoreError> {
        let node = &self.node;
        retry_until_certain(node, None, || async {
            let term = node.lease().term;
            let reserved = (self.powers.reserve)(&node.store, &self.key, self.token, term);
            match reserved.await {
                Ok(reserved) => Ok(Ok(reserved)),
                Err(error) => match Refusal::of_full_store(&error) {
                    Some(refusal) => Ok(Err(refusal)),
                    None => Err(error),
                },
            }
        })
        .await
    }

    async fn complete(&self, answer: RecordedResponse) {
        let node = &self.node;
        let settled = retry_until_certain(node, None, || {
            (self.powers.complete)(&node.store, &self.key, self.token, answer.clone())
        });
        match settled.await {
            Ok(true) => {}
            Ok(false) => tracing::warn!("key expired, direct answer not stored"),
            Err(error) => {
                tracing::error!(error = error.report(), "direct answer not stored");
            }
        }
    }

    async fn release(&self) {
        let released = (self.powers.release)(&self.node.store, &self.key, self.token);
        // After a term the reservation has expired in any case.
        match timeout(self.node.lease().term, released).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = error.report(), "key not released, left to expire");
            }
            Err(_) => tracing::warn!("key not released in time, left to expire"),
        }
    }
}
