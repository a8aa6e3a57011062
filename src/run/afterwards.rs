//! What is left to do for a request that has its answer.

use std::{future::Future, pin::pin};

use super::InFlight;

/// Does what is left to do for a request that may have its answer before. `admitted`, its
/// place in flight, is kept until that is done: there is never more of it than may be in
/// flight. When the doors close it is given back, since nothing more is let in, and a drain
/// waits for requests alone.
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
