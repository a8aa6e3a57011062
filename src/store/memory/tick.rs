//! The monotonic clock of the store.

use std::time::Duration;

/// Nanoseconds on the monotonic clock since the store was created; enough for 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

impl Tick {
    pub(super) const NEVER: Self = Self(u64::MAX);

    /// The end of a released lease: before that of any other lease.
    pub(super) const RELEASED: Self = Self(0);

    pub(super) fn after(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn at(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }

    /// Adds a span; even the longest one ends before `NEVER`.
    pub(super) fn plus(self, span: Duration) -> Self {
        let at = self.0.saturating_add(Self::after(span).0);
        Self(at.min(Self::NEVER.0 - 1))
    }
}
