/// The operations and bytes that a node has in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InFlightStats {
    /// The number of requests that are being accepted, pending or running.
    pub operations: usize,
    /// The bytes that count for
    /// [`max_bytes_in_flight`](crate::Operations::max_bytes_in_flight): request bodies of more than
    /// a kibibyte that the service has not read, and results that are not recorded yet.
    /// Uploads to a result store count by what they have in memory.
    pub bytes: usize,
}
