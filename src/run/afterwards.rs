//! Work that remains after a request was answered.

use std::{future::Future, pin::pin};

use super::InFlight;

/// Finishes the work of a request that may be answered earlier. `admitted`, the place in flight,
/// is kept until the work is done, so that the bound on requests in flight covers the work. When
/// a drain begins, the place is released: no more requests are admitted, and a drain waits only
/// for requests.
pub(crate) async fn afterwards<P, T>(
    in_flight: &InFlight,
    admitted: P,
    left: impl Future<Output = T>,
) -> T {
    let mut left = pin!(left);
    tokio::select! {
        biased;
        done = left.as_mut() => return done,
        () = in_flight.closed().cancelled() => drop(admitted),
    }
    left.await
}
