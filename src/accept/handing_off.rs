//! The layer before an engine.

use std::{marker::PhantomData, sync::Arc};

use super::{AsyncAcceptLayer, policy::Policy};
use crate::{
    operation::RecordedResponse,
    run::{Dispatch, Dispatcher, Drain, Recovery, Runtime},
    store::Lease,
};

impl<R: Lease<Output = RecordedResponse>, D: Dispatch> AsyncAcceptLayer<R, D> {
    /// A layer that gives what it accepts to an engine, by `dispatch`, for workers
    /// elsewhere to run: a [`RunService`](crate::RunService) with the whole application
    /// takes it there. Requests that are not accepted are passed to the inner service as
    /// ever.
    ///
    /// The 202 is out once the operation is in the store and its request in the queue. It
    /// is always, or [preferred](Self::when_preferred): there is no call here to wait for, so
    /// `Prefer: wait` is ignored. How many are on their way at a time is bounded
    /// ([`max_in_flight`](Self::max_in_flight)), how many are in the queue is not, but by the
    /// time that they [may be pending](Self::pending_timeout).
    ///
    /// If a request cannot be put into the queue, its operation fails as `not-dispatched`
    /// and the answer is 503. One with an idempotency key would be failed for ever by that:
    /// it is left to the [recovery](Self::dispatching_recovery), if there is one, and the
    /// answer is 202. So is every request that is still on its way into the queue at the
    /// deadline of a drain.
    ///
    /// ```compile_fail
    /// use std::time::Duration;
    /// use tower_operations::{AsyncAcceptLayer, MemoryStore, QueuedRequest};
    ///
    /// let layer = AsyncAcceptLayer::hand_off(MemoryStore::new(), |_: QueuedRequest| async {
    ///     Ok::<_, std::io::Error>(())
    /// });
    /// layer.after(Duration::from_secs(1)); // all but this compiles
    /// ```
    pub fn hand_off(store: R, dispatch: D) -> Self {
        let mut policy = Policy::default();
        policy.hands_off = true;
        Self {
            node: Arc::new(Runtime::handing_off(store, Dispatcher::to(dispatch))),
            policy: Arc::new(policy),
            run: PhantomData,
        }
    }

    /// The same, with the handle that shuts it down.
    pub fn hand_off_with_drain(store: R, dispatch: D) -> (Self, Drain) {
        let layer = Self::hand_off(store, dispatch);
        let drain = Drain::new(Arc::clone(&layer.node.in_flight));
        (layer, drain)
    }

    /// What dispatches again the operations that no worker has claimed in time, and
    /// those whose worker has died; it has to be spawned. An operation is started
    /// `attempts` times at the most, on whichever workers: after that it fails as
    /// `attempts-exhausted`. With more than one every request has to bear being done twice.
    ///
    /// One that no worker starts within the [time it may be pending](Self::pending_timeout)
    /// fails as `timed-out`; after its first start it has the
    /// [time that it may run](Self::running_timeout) in addition, from the last that was
    /// heard of it.
    pub fn dispatching_recovery(&self, attempts: u32) -> Recovery<R> {
        Recovery::new(Arc::clone(&self.node), self.policy.run).dispatch_again(attempts)
    }
}
