//! Running work that is not an HTTP request.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use serde::Serialize;
use tokio::{sync::oneshot, time::timeout};

use super::Operations;
use crate::{
    environment,
    operation::{BufferedBody, FailureKind, OperationId, Outcome, Problem, RecordedResponse},
    run::{
        AcceptedRequest, AdmissionError, AdmissionPermit, OperationHandle, Readiness, RunLimits,
        Runtime, afterwards, operate, retry_until_certain,
    },
    store::{Created, FencingToken, Lease, NewOperation, Owner, Record, StoreError, Written},
    tower_util::ServiceFn,
};

/// The time that the store has to create the operation.
const PATIENCE: Duration = Duration::from_secs(5);

impl<R: Lease<Output = RecordedResponse>> Operations<R> {
    /// Runs work that is not an HTTP request, for example from a message or a timer, as an
    /// operation with this name. The lease, the limits, cancellation, progress and drain are
    /// those of requests.
    ///
    /// Await the returned value: it is ready once the operation is in the store. The work
    /// continues in a task of its own. The result is stored as JSON, like the response 200 of a
    /// service; an error is stored as its [`Problem`].
    ///
    /// The work is a closure, which cannot be stored. If its node dies, the recovery of another
    /// node ends the operation as `interrupted`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use http::StatusCode;
    /// use tower_operations::{MemoryStore, Operations, Problem, Progress};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Report { pages: u32 }
    ///
    /// let operations = Operations::new(MemoryStore::new());
    /// let id = operations
    ///     .spawn("render", |handle| async move {
    ///         for page in 1..=5 {
    ///             handle.progress(Progress::from_count(page, 5).with_unit("pages"));
    ///         }
    ///         match handle.cancellation().is_cancelled() {
    ///             true => Err(Problem::new(StatusCode::CONFLICT)),
    ///             false => Ok(Report { pages: 5 }),
    ///         }
    ///     })
    ///     .await?;
    /// // A client polls it like any other, below `/operations/{id}`.
    /// # let _ = id;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// The returned future panics if it is polled outside of a tokio runtime.
    pub fn spawn<W, F, T, E>(&self, name: impl Into<Arc<str>>, work: W) -> Spawn<R, W>
    where
        W: FnOnce(OperationHandle) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Into<Problem> + 'static,
    {
        Spawn {
            runtime: Arc::clone(&self.runtime),
            limits: self.limits,
            knows_owners: self.shared.owner.is_some(),
            new: NewOperation::new(OperationId::new()).with_name(Some(name.into())),
            work,
        }
    }
}

/// An operation that is [spawned](Operations::spawn) when this value is awaited.
#[must_use = "nothing is spawned until it is awaited"]
pub struct Spawn<R, W> {
    runtime: Arc<Runtime<R>>,
    limits: RunLimits,
    knows_owners: bool,
    new: NewOperation,
    work: W,
}

impl<R, W> Spawn<R, W> {
    /// Sets the owner of the operation; none by default.
    pub fn owner(mut self, owner: Option<Owner>) -> Self {
        self.new = self.new.with_owner(owner);
        self
    }

    /// Sets the id of the operation; a random one by default.
    pub fn id(mut self, id: OperationId) -> Self {
        self.new.id = id;
        self
    }
}

/// The reason why work was not [spawned](Operations::spawn). The work does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The bound on operations in flight is reached, in total or for this owner.
    #[error("too many operations are in flight")]
    Full,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Closed,
    /// An operation with this id exists. It may have been created late, for a call that
    /// returned [`Store`](Self::Store): that operation ends as `interrupted`.
    #[error("the id is taken")]
    IdTaken,
    /// The store did not create the operation within 5 seconds, or refused to create it. If the
    /// store created the operation late, the operation ends as `interrupted`.
    #[error("the operation was not created")]
    Store(#[source] StoreError),
}

impl<R, W, F, T, E> IntoFuture for Spawn<R, W>
where
    R: Lease<Output = RecordedResponse>,
    W: FnOnce(OperationHandle) -> F + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize + 'static,
    E: Into<Problem> + 'static,
{
    type Output = Result<OperationId, SpawnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Creates the operation and starts its work. Dropping the future before it is ready leaves
    /// a running operation, or none.
    fn into_future(self) -> Self::IntoFuture {
        let Self {
            runtime,
            limits,
            knows_owners,
            mut new,
            work,
        } = self;
        new.lease = Some(runtime.lease().clone());
        // The work needs no further readiness.
        new.is_running = true;
        let mut work = Some(work);
        let service = ServiceFn(move |request: Request<BufferedBody>| {
            let handle = OperationHandle::from_extensions(request.extensions());
            let running = work.take().map(|work| work(handle));
            async move {
                let done = match running {
                    Some(running) => running.await.map_err(Into::into),
                    None => Err(FailureKind::InnerError.into()),
                };
                Ok::<_, Infallible>(response(done))
            }
        });
        let (tell, told) = oneshot::channel();
        Box::pin(async move {
            let admitted = match knows_owners {
                true => runtime.in_flight.admit_for(new.owner.clone()),
                false => runtime.in_flight.admit(),
            };
            let admitted = admitted.map_err(|refused| match refused {
                AdmissionError::Full | AdmissionError::FullForOwner => SpawnError::Full,
                AdmissionError::Closed => SpawnError::Closed,
            })?;
            let id = new.id.clone();
            environment::spawn(async move {
                let Some((record, admitted)) = created(&runtime, new, admitted, tell).await else {
                    return;
                };
                let accepted = AcceptedRequest::of_work(&record).admitted(admitted);
                // At this point the outcome is in the store, or this node was abandoned.
                let _ = operate(runtime, limits, service, Readiness::Ready, accepted).await;
            });
            match told.await {
                Ok(answer) => answer.map(|()| id),
                Err(_) => Err(SpawnError::Closed),
            }
        })
    }
}

/// Creates the operation and reports the result. An operation that is created after an error was
/// reported is ended, since the caller may have retried.
async fn created<R>(
    runtime: &Arc<Runtime<R>>,
    new: NewOperation,
    admitted: AdmissionPermit,
    tell: oneshot::Sender<Result<(), SpawnError>>,
) -> Option<(Record<RecordedResponse>, AdmissionPermit)>
where
    R: Lease<Output = RecordedResponse>,
{
    let (id, token) = (new.id.clone(), new.token);
    let mut creating = Box::pin(retry_until_certain(runtime, Some(&id), || {
        runtime.store.create(new.clone())
    }));
    // The caller may have dropped the future at any time.
    let Ok(created) = timeout(PATIENCE, &mut creating).await else {
        let error = StoreError::unavailable("no answer in time");
        let _ = tell.send(Err(SpawnError::Store(error)));
        let ended = end_if_created(runtime, &id, token, creating);
        afterwards(&runtime.in_flight, admitted, ended).await;
        return None;
    };
    let (answer, created) = match created {
        Ok(Created::New(record) | Created::Existing(record)) if record.token() == token => {
            (Ok(()), Some((record, admitted)))
        }
        Ok(_) => (Err(SpawnError::IdTaken), None),
        Err(error) => (Err(SpawnError::Store(error)), None),
    };
    let _ = tell.send(answer);
    created
}

/// Ends an operation that is created late.
async fn end_if_created<R>(
    runtime: &Runtime<R>,
    id: &OperationId,
    token: FencingToken,
    creating: impl Future<Output = Result<Created<RecordedResponse>, StoreError>>,
) where
    R: Lease<Output = RecordedResponse>,
{
    let (Ok(Created::New(record)) | Ok(Created::Existing(record))) = creating.await else {
        return;
    };
    if record.token() != token {
        return;
    }
    let ended = retry_until_certain(runtime, Some(id), || {
        let outcome = Outcome::failed(FailureKind::Interrupted);
        runtime.store.finish(id, token, outcome, None)
    });
    if let Ok(Written::Done(record)) = ended.await {
        runtime.ended(&record);
    }
}

/// Returns the response that a service would have returned.
fn response<T: Serialize>(done: Result<T, Problem>) -> Response<BufferedBody> {
    let done = done.and_then(|value| {
        serde_json::to_vec(&value).map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "result not serialized, operation failed"
            );
            FailureKind::InnerError.into()
        })
    });
    match done {
        Ok(json) => {
            let mut response = Response::new(BufferedBody::from(json));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

impl<R, W> fmt::Debug for Spawn<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawn")
            .field("new", &self.new)
            .finish_non_exhaustive()
    }
}
