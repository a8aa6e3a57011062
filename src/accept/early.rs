//! Answers that come before there is an operation, to requests with a key.

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::time::timeout;
use tower::BoxError;

use super::{policy::Policy, reservation::ReservedKey};
use crate::{
    operation::{FailureKind, OperationId, Outcome, RecordedResponse},
    run::{InFlight, Told, collect},
};

/// Keeps an answer of the call with this `id` that is below 500 under the request's key, so that a repetition gets
/// it too. Any other answer frees the key.
///
/// # Errors of the answer
/// One that is no final response is lost, as an error of the service would be. One that
/// is announced to be above the result limit is not kept. One that turns out to be is
/// lost, as the result of an operation would be; and so is one that is not whole when the
/// time of a drain is over.
pub(super) async fn settled<C, E>(
    id: &OperationId,
    early: Told<Response<C>, E>,
    reserved: Option<ReservedKey>,
    policy: &Policy,
    in_flight: &InFlight,
) -> Told<Response<C>, E>
where
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
{
    let limit = policy.run.result;
    let (response, key) = match (early, reserved) {
        (Told::Answered(Ok(response)), Some(key))
            if response.status().as_u16() < 500 && response.body().size_hint().lower() <= limit =>
        {
            (response, key)
        }
        (early, _) => return early,
    };
    let collected = tokio::select! {
        biased;
        collected = timeout(policy.run.running, collect(id, response, limit)) => collected,
        () = in_flight.over().cancelled() => return Told::ShutDown,
    };
    let outcome = match collected {
        Ok(Ok(whole)) => {
            let recorded = RecordedResponse::new(whole);
            if recorded.is_final() {
                key.settle(recorded.clone(), policy.create_timeout).await;
                return Told::Settled(recorded.to_response());
            }
            // Not to be kept: the key is free again.
            let status = recorded.status().as_u16();
            tracing::error!(%id, status, "the inner service gave no final response");
            Outcome::failed(FailureKind::InnerError)
        }
        Ok(Err(outcome)) => outcome,
        Err(_) => Outcome::failed(FailureKind::TimedOut),
    };
    let kind = match &outcome {
        Outcome::Failed(failure) => failure.kind(),
        Outcome::Succeeded(_) | Outcome::Canceled | Outcome::CanceledFor(_) => None,
    };
    Told::Failed(kind.unwrap_or(FailureKind::InnerError))
}
