//! Whether a service is ready when its request is accepted.

use std::task::{Context, Poll, Waker};

use tower_service::Service;

use super::{
    catch_panic::{Panicked, catch},
    failures::inner_error,
    supervise::CaughtEnd,
};
use crate::{BoxError, operation::OperationId};

/// The readiness of the service of an accepted request.
#[derive(Debug)]
pub(crate) enum Readiness {
    /// The run waits until the service is ready, and then starts the operation.
    Unknown,
    /// The service is ready, and the operation was created as running.
    Ready,
    /// The service has failed, and cannot be called.
    Failed(BoxError),
    Panicked(Panicked),
}

impl Readiness {
    /// Asks a service once whether it is ready. A service that has to wait is asked again by its
    /// run.
    pub(crate) fn ask<S, Q>(service: &mut S) -> Self
    where
        S: Service<Q>,
        S::Error: Into<BoxError>,
    {
        let mut context = Context::from_waker(Waker::noop());
        match catch(|| service.poll_ready(&mut context)) {
            Ok(Poll::Ready(Ok(()))) => Self::Ready,
            Ok(Poll::Pending) => Self::Unknown,
            Ok(Poll::Ready(Err(error))) => Self::Failed(error.into()),
            Err(panicked) => Self::Panicked(panicked),
        }
    }

    /// Returns the end of the run of a service that has failed. The error says whether the
    /// service is ready.
    pub(super) fn end_of_failed(self, id: &OperationId) -> Result<CaughtEnd, bool> {
        match self {
            Self::Failed(error) => Ok(Ok(Ok(inner_error(id, &error)))),
            Self::Panicked(panicked) => Ok(Err(panicked)),
            Self::Ready => Err(true),
            Self::Unknown => Err(false),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}
