//! Answers that come before there is an operation, to requests with a key.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::time::timeout;
use tower::BoxError;

use super::reserve::ReservedKey;
use crate::{
    operation::{FailureKind, Problem, RecordedResponse},
    run::{Told, collect},
};

/// Keeps an answer below 500 under the request's key, so that a repetition gets
/// it too. Any other answer frees the key.
///
/// # Errors of the answer
/// One that is announced to be above `limit` bytes is not kept. One that turns
/// out to be is lost, as the result of an operation would be.
pub(super) async fn settled<C, E, R>(
    early: Told<Response<C>, E>,
    reserved: Option<ReservedKey<R>>,
    limit: u64,
    at_most: Duration,
) -> Told<Response<C>, E>
where
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
    R: Send + Sync + 'static,
{
    let (response, key) = match (early, reserved) {
        (Told::Answered(Ok(response)), Some(key))
            if response.status().as_u16() < 500 && response.body().size_hint().lower() <= limit =>
        {
            (response, key)
        }
        (early, _) => return early,
    };
    match timeout(at_most, collect(response, limit)).await {
        Ok(Ok(whole)) => {
            let recorded = RecordedResponse::new(whole);
            key.settle(recorded.clone()).await;
            Told::Settled(recorded.to_response())
        }
        Ok(Err(_)) => Told::Settled(Problem::from(FailureKind::ResultTooLarge).into_response()),
        Err(_) => Told::Settled(Problem::from(FailureKind::TimedOut).into_response()),
    }
}
