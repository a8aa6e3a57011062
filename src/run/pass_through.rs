//! Requests that are answered directly.

use std::sync::Arc;

use super::InFlight;

impl InFlight {
    /// Counts a request that passes through, unless a drain has begun. A drain does not
    /// wait for later requests: on a busy server it would never end.
    pub(crate) fn pass_while_open(self: &Arc<Self>) -> Option<PassThrough> {
        if self.closed().is_cancelled() {
            return None;
        }
        let passing = self.pass();
        // Checked after the count, since a drain closes first and then reads the count.
        (!self.closed().is_cancelled()).then_some(passing)
    }
}

/// The mark of a request that is answered directly, held until its answer was sent. A drain
/// waits for it.
#[derive(Debug)]
pub(crate) struct PassThrough(Arc<InFlight>);

impl PassThrough {
    pub(super) fn new(in_flight: Arc<InFlight>) -> Self {
        Self(in_flight)
    }

    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.0
    }
}

impl Drop for PassThrough {
    fn drop(&mut self) {
        self.0.passed();
    }
}
