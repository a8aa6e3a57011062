/// A bound that keeps a service from being overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// How many operations are in flight.
    InFlight,
    /// How many of one owner's are.
    InFlightPerOwner,
    /// How much the store keeps.
    Store,
    /// How much of that is one owner's.
    StorePerOwner,
    /// How many event streams are open.
    Streams,
    /// How many of one owner's are.
    StreamsPerOwner,
}

impl Bound {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::InFlight => "Too many operations are in flight",
            Self::InFlightPerOwner => "Too many operations are in flight for this owner",
            Self::Store => "The store has no more room",
            Self::StorePerOwner => "The store has no more room for this owner",
            Self::Streams => "Too many event streams are open",
            Self::StreamsPerOwner => "Too many event streams are open for this owner",
        }
    }
}
