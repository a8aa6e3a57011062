use std::time::SystemTime;

use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};

use super::{
    BufferedBody, Failure, InvalidTransition, Metadata, OperationId, OperationView, Outcome,
    Payload, Problem, Progress, State, Status,
};
use crate::codec::operation_json;

/// An operation: the resource that a client reads after its `202 Accepted`.
///
/// The JSON is flat; members that are unknown or absent are left out:
///
/// ```
/// use tower_operations::{Operation, OperationId, Outcome, Snapshot};
///
/// let id: OperationId = "q3".parse()?;
/// let operation = Operation::from_parts(id, Outcome::Succeeded(Some(42)));
/// assert_eq!(
///     serde_json::to_string(&operation)?,
///     r#"{"id":"q3","state":"succeeded","result":42}"#,
/// );
/// assert_eq!(
///     serde_json::from_str::<Operation<u32>>(r#"{"id":"q3","state":"succeeded","result":42}"#)?,
///     operation,
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Operation<T> {
    id: OperationId,
    snapshot: Snapshot<T>,
}

/// An operation without its id: the value that a store keeps under the id.
///
/// The default is pending, with empty metadata.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// The state, with the data that belongs to that state.
    pub status: Status<T>,
    /// Times, progress, method and name.
    pub metadata: Metadata,
}

impl<T> Snapshot<T> {
    /// Returns a snapshot of this status, with its metadata.
    #[must_use]
    pub fn new(status: Status<T>, metadata: Metadata) -> Self {
        Self { status, metadata }
    }
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self {
            status: Status::Pending,
            metadata: Metadata::default(),
        }
    }
}

impl<T> From<Status<T>> for Snapshot<T> {
    fn from(status: Status<T>) -> Self {
        Self {
            status,
            metadata: Metadata::default(),
        }
    }
}

impl<T> From<Outcome<T>> for Snapshot<T> {
    fn from(outcome: Outcome<T>) -> Self {
        Status::from(outcome).into()
    }
}

impl<T> Operation<T> {
    /// Creates a pending operation with empty metadata.
    #[must_use]
    pub fn new(id: OperationId) -> Self {
        Self::from_parts(id, Snapshot::default())
    }

    /// Creates an operation from its id and a snapshot.
    pub fn from_parts(id: OperationId, snapshot: impl Into<Snapshot<T>>) -> Self {
        Self {
            id,
            snapshot: snapshot.into(),
        }
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.snapshot.status.state()
    }

    /// Returns the state, with the data that belongs to that state.
    #[must_use]
    pub fn status(&self) -> &Status<T> {
        &self.snapshot.status
    }

    /// Returns the outcome, once the operation has ended.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome<T>> {
        self.snapshot.status.outcome()
    }

    /// Returns the result; only an operation that succeeded can have one.
    #[must_use]
    pub fn result(&self) -> Option<&T> {
        match self.outcome()? {
            Outcome::Succeeded(result) => result.as_ref(),
            Outcome::Failed(_) | Outcome::Canceled | Outcome::CanceledFor(_) => None,
        }
    }

    /// Returns the problem of a failed operation; `None` in any other state.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        self.failure().map(|failure| &failure.problem)
    }

    /// Returns the failure of a failed operation; `None` in any other state.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure<T>> {
        match self.outcome()? {
            Outcome::Failed(failure) => Some(failure),
            Outcome::Succeeded(_) | Outcome::Canceled | Outcome::CanceledFor(_) => None,
        }
    }

    /// Returns the reason for the cancellation, if one was given.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self.outcome()? {
            Outcome::CanceledFor(reason) => Some(reason),
            Outcome::Succeeded(_) | Outcome::Failed(_) | Outcome::Canceled => None,
        }
    }

    /// Returns the response that the result resource replays: the result, or the response
    /// that came with a failure.
    #[must_use]
    pub fn response(&self) -> Option<&T> {
        match self.outcome()? {
            Outcome::Succeeded(result) => result.as_ref(),
            Outcome::Failed(failure) => failure.response.as_ref(),
            Outcome::Canceled | Outcome::CanceledFor(_) => None,
        }
    }

    /// Returns times, progress, method and name.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.snapshot.metadata
    }

    /// Moves the operation to the status `to` and records the time.
    ///
    /// # Errors
    /// [`InvalidTransition`] if [`State`] does not allow the transition; the operation is
    /// then unchanged.
    pub fn transition(
        &mut self,
        to: impl Into<Status<T>>,
        at: SystemTime,
    ) -> Result<(), InvalidTransition> {
        let to = to.into();
        let state = self.state().transition(to.state())?;
        self.snapshot.status = to;
        self.snapshot.metadata.moved_to(state, at);
        Ok(())
    }

    /// Records the progress and the time of the report.
    pub fn report(&mut self, progress: Progress, at: SystemTime) {
        self.update(|metadata| metadata.with_progress(progress).with_updated_at(at));
    }

    /// Changes the metadata.
    pub fn update(&mut self, change: impl FnOnce(Metadata) -> Metadata) {
        self.snapshot.metadata = change(std::mem::take(&mut self.snapshot.metadata));
    }

    /// Sets the time at which the operation expires.
    pub(crate) fn set_expires_at(&mut self, at: SystemTime) {
        self.snapshot.metadata.expires_at = Some(at.into());
    }
}

impl<T: Payload> Operation<T> {
    /// Returns the operation as a [`Dialect`](crate::dialect::Dialect) sees it.
    #[must_use]
    pub fn view(&self) -> OperationView<'_> {
        OperationView::new(self)
    }

    /// Returns the operation as a response with this status: its JSON, with `Cache-Control:
    /// no-store`. If the result cannot be written as JSON, the response is a 500 problem.
    #[must_use]
    pub fn into_response(self, status: StatusCode) -> Response<BufferedBody> {
        let Ok(text) = operation_json(&self.view(), usize::MAX, 0) else {
            return Problem::new(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        };
        let mut response = Response::new(BufferedBody::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
