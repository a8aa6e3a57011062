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
    /// The service is not ready, or was not asked. The run waits until it is ready, and then starts
    /// the operation.
    Unknown,
    /// The service is ready, and the operation was created as running.
    Ready,
    /// The service has failed, and cannot be called.
    Failed(BoxError),
    Panicked(Panicked),
}

/// The begin of a run.
pub(super) enum RunBegin {
    /// The service has failed, which is the end of the run.
    Ended(CaughtEnd),
    /// The service is called, once it is ready.
    Attempt { is_ready: bool },
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

    /// Returns how the run of the operation begins.
    pub(super) fn begin(self, id: &OperationId) -> RunBegin {
        match self {
            Self::Failed(error) => RunBegin::Ended(Ok(Ok(inner_error(id, &error)))),
            Self::Panicked(panicked) => RunBegin::Ended(Err(panicked)),
            Self::Ready => RunBegin::Attempt { is_ready: true },
            Self::Unknown => RunBegin::Attempt { is_ready: false },
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}
