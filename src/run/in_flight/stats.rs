/// What a node has in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InFlightStats {
    /// The number of requests that are being accepted, pending or running.
    pub operations: usize,
    /// The bytes of request bodies and results in memory, which
    /// [`max_bytes_in_flight`](crate::Operations::max_bytes_in_flight) bounds.
    pub bytes: usize,
}
