//! Direct answers to requests with a key, without an operation.

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::time::timeout;

use super::{policy::Policy, race::RaceResult, reservation::ReservedKey};
use crate::{
    BoxError,
    operation::{FailureKind, OperationId, Outcome},
    run::{InFlight, RaceEnd, Recording, collect},
};

/// Stores an answer below 500 of the call `id` under the key of the request, so that a
/// repetition gets the same answer. Any other answer frees the key.
///
/// # Errors of the answer
/// An answer that is not a final response fails like an error of the service. An answer that
/// declares a length above `limit` in bytes is sent but not stored. An answer that turns out to
/// be above the limit fails as the result of an operation does. An answer that is incomplete
/// when the time of a drain is over is replaced by a refusal.
pub(super) async fn store_direct_answer<C, E>(
    id: &OperationId,
    end: RaceEnd<Response<C>, E>,
    reserved: Option<ReservedKey>,
    policy: &Policy,
    in_flight: &InFlight,
    limit: u64,
) -> RaceResult<Response<C>, E>
where
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
{
    let (response, key) = match (end, reserved) {
        (RaceEnd::Answered(Ok(response)), Some(key))
            if response.status().as_u16() < 500 && response.body().size_hint().lower() <= limit =>
        {
            (response, key)
        }
        (end, _) => return RaceResult::Ended(end),
    };
    let recording = Recording {
        id,
        base: None,
        limit,
        budget: in_flight.bytes(),
        apart: None,
    };
    let collecting = collect(response, recording);
    let collected = tokio::select! {
        biased;
        collected = timeout(policy.run.running, collecting) => collected,
        () = in_flight.over().cancelled() => return RaceResult::Ended(RaceEnd::ShutDown),
    };
    let outcome = match collected {
        Ok(Ok(recorded)) => {
            if recorded.is_final() {
                let _counted = in_flight.bytes().result_bytes(recorded.body_len());
                key.complete(recorded.clone(), policy.create_timeout).await;
                return RaceResult::Stored(recorded.replayed());
            }
            // The answer is not stored: the key is free again.
            let status = recorded.status().as_u16();
            tracing::error!(%id, status, "response is not final, request failed");
            Outcome::failed(FailureKind::InnerError)
        }
        Ok(Err(outcome)) => outcome,
        Err(_) => Outcome::failed(FailureKind::TimedOut),
    };
    let kind = match &outcome {
        Outcome::Failed(failure) => failure.kind(),
        Outcome::Succeeded(_) | Outcome::Canceled | Outcome::CanceledFor(_) => None,
    };
    RaceResult::Ended(RaceEnd::Failed(kind.unwrap_or(FailureKind::InnerError)))
}
