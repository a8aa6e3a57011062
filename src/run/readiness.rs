//! Whether a service is ready when its request is accepted.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll, Waker},
};

use tower_service::Service;

use super::{catch_panic::Panicked, failures::inner_error};
use crate::{
    BoxError,
    operation::{FailureKind, OperationId, Outcome, RecordedResponse},
};

/// The readiness of the service of an accepted request.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// The run waits until the service is ready, and then starts the operation.
    Unknown,
    /// The service is ready, and the operation was created as running.
    Ready,
    /// The service has failed, and cannot be called.
    Failed(Outcome<RecordedResponse>),
}

impl Readiness {
    /// Asks a service once whether it is ready. A service that has to wait is asked again by its
    /// run. `id` is the id of the operation.
    pub(crate) fn ask<S, Q>(service: &mut S, id: &OperationId) -> Self
    where
        S: Service<Q>,
        S::Error: Into<BoxError>,
    {
        let mut context = Context::from_waker(Waker::noop());
        match catch_unwind(AssertUnwindSafe(|| service.poll_ready(&mut context))) {
            Ok(Poll::Ready(Ok(()))) => Self::Ready,
            Ok(Poll::Pending) => Self::Unknown,
            Ok(Poll::Ready(Err(error))) => Self::Failed(inner_error(id, &error.into())),
            Err(payload) => {
                Panicked(payload).of_handler(id);
                Self::Failed(Outcome::failed(FailureKind::Panicked))
            }
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}
