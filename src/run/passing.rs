//! Requests that are answered directly.

use std::sync::Arc;

use super::InFlight;

/// A request that is answered directly, until its answer is out: a drain waits for it.
#[derive(Debug)]
pub(crate) struct Passing(Arc<InFlight>);

impl Passing {
    pub(super) fn new(in_flight: Arc<InFlight>) -> Self {
        Self(in_flight)
    }

    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.0
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.passed();
    }
}
