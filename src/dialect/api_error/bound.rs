/// A bound that keeps a service from being overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// The number of operations in flight.
    InFlight,
    /// The number of operations in flight of one owner.
    InFlightPerOwner,
    /// The bytes of request bodies and results in memory.
    BytesInFlight,
    /// The bytes of request bodies of one owner in memory.
    BytesInFlightPerOwner,
    /// The capacity of the store.
    Store,
    /// The capacity of the store for one owner.
    StorePerOwner,
    /// The number of open event streams.
    Streams,
    /// The number of open event streams of one owner.
    StreamsPerOwner,
}

impl Bound {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::InFlight => "Too many operations are in flight",
            Self::InFlightPerOwner => "Too many operations are in flight for this owner",
            Self::BytesInFlight => "Too many bytes are in flight",
            Self::BytesInFlightPerOwner => "Too many bytes are in flight for this owner",
            Self::Store => "The store has no more room",
            Self::StorePerOwner => "The store has no more room for this owner",
            Self::Streams => "Too many event streams are open",
            Self::StreamsPerOwner => "Too many event streams are open for this owner",
        }
    }
}
