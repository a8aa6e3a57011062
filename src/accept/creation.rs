//! Creating the operation in the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{idempotency::request_name, policy::Policy, refuse::Refusal, reservation::ASK_AGAIN};
use crate::{
    dialect::RequestName,
    operation::RecordedResponse,
    run::{RequestUpload, Runtime, Timeout, catch_panic, retry_until_certain},
    store::{
        Created, FencingToken, Lease, NewOperation, Placed, Reader, Record, Reservation, StoreError,
    },
};

/// The creation of an operation for a request.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) new: NewOperation,
    /// Whether the id is a fresh one that no earlier request can have used.
    pub(super) is_fresh: bool,
    /// The number of tries to create the operation whose result is uncertain.
    pub(super) in_doubt: AtomicUsize,
    /// The upload of the request's body, which ends before the operation is created.
    pub(super) upload: Option<Arc<RequestUpload>>,
}

/// The result of a [`Creation`].
pub(super) enum CreateOutcome {
    New(Record<RecordedResponse>),
    /// An earlier request created the operation.
    Repeated(Record<RecordedResponse>),
    /// An earlier request was answered with this response.
    Answered(Arc<RecordedResponse>),
}

impl Creation {
    pub(super) fn new(new: NewOperation, is_fresh: bool) -> Self {
        Self {
            new,
            is_fresh,
            in_doubt: AtomicUsize::new(0),
            upload: None,
        }
    }

    /// Returns whether the request is stored for a rerun.
    pub(super) fn keeps_request(&self) -> bool {
        self.new.request().is_some() || self.upload.is_some()
    }

    /// Drops the request, which the store has, or which is not needed.
    pub(super) fn drop_request(&mut self) {
        self.new.set_request(None);
        self.upload = None;
    }

    /// Returns the creation of the same operation by another creator.
    pub(super) fn anew(&self) -> Self {
        let mut new = self.new.clone();
        new.token = FencingToken::random();
        Self {
            upload: self.upload.clone(),
            ..Self::new(new, self.is_fresh)
        }
    }

    /// Returns the name that the client gave the request.
    pub(super) fn name(&self) -> RequestName {
        match self.new.key() {
            Some(key) => request_name(key),
            None => RequestName::Id(self.new.id.clone()),
        }
    }

    /// Returns whether the operation may exist although its creation seemed to fail, so that a
    /// repetition of the request finds the operation.
    pub(super) fn may_be_found(&self) -> bool {
        self.new.key().is_some() && self.in_doubt.load(Relaxed) > 0
    }

    /// Returns how long the operation is leased without a renewal.
    pub(super) fn lease_term<R>(&self, node: &Runtime<R>) -> Duration {
        let lease = self.new.lease.as_ref();
        lease.map_or(node.lease().term, |lease| lease.term)
    }

    /// Creates the operation at once, in a store that never has to wait. Returns the place of the
    /// new operation. Returns `None` in any other case: [`create`](Self::create) finds out which.
    pub(super) fn create_now<R>(&self, node: &Runtime<R>) -> Option<Placed>
    where
        R: Lease<Output = RecordedResponse>,
    {
        if node.in_flight.is_interrupting() || self.upload.is_some() {
            return None;
        }
        crash_point!("creating");
        // After a panic the operation may exist.
        self.in_doubt.fetch_add(1, Relaxed);
        let placed = catch_panic(|| node.store.create_now(&self.new))?;
        self.in_doubt.fetch_sub(1, Relaxed);
        if placed.is_some() {
            crash_point!("created");
        }
        placed
    }

    /// Tries to create the operation, and counts the try while its result is uncertain.
    async fn try_create<R>(
        &self,
        node: &Runtime<R>,
    ) -> Result<Created<RecordedResponse>, StoreError>
    where
        R: Lease<Output = RecordedResponse>,
    {
        self.in_doubt.fetch_add(1, Relaxed);
        let created = node.store.create(self.new.clone()).await;
        if !matches!(created, Err(StoreError::Unavailable(_))) {
            self.in_doubt.fetch_sub(1, Relaxed);
        }
        created
    }

    /// Creates the operation. Waits while another request with the same key is being answered.
    /// After a refusal the operation may exist, and has to be [disowned](Self::disown).
    /// `before_wait` is called before each wait.
    pub(super) async fn create<R>(
        &mut self,
        node: &Arc<Runtime<R>>,
        policy: &Policy,
        mut before_wait: impl FnMut(),
    ) -> Result<CreateOutcome, Refusal>
    where
        R: Lease<Output = RecordedResponse>,
    {
        if let Some(upload) = &self.upload {
            // Boxed, since this is rarely needed.
            let stored = Box::pin(self.upload_request(upload, node, policy)).await?;
            self.new.set_request(Some(stored));
        }
        let mut begun = None;
        loop {
            return match self.create_certainly(node, policy).await? {
                Created::New(record) => {
                    crash_point!("created");
                    Ok(CreateOutcome::New(record))
                }
                // An earlier try has created the operation.
                Created::Existing(record) if record.token() == self.new.token => {
                    Ok(CreateOutcome::New(record))
                }
                Created::Existing(record) => Ok(CreateOutcome::Repeated(record)),
                Created::IdTaken => Err(Refusal::Taken(self.new.id.clone())),
                Created::KeyHeld(Reservation::Answered(answer)) => {
                    Ok(CreateOutcome::Answered(answer))
                }
                Created::KeyHeld(Reservation::Deleted(record)) => {
                    Err(Refusal::deleted(&record, self.name()))
                }
                Created::KeyHeld(Reservation::InProgress)
                    if begun.get_or_insert_with(Instant::now).elapsed() < policy.key_wait() =>
                {
                    before_wait();
                    sleep(ASK_AGAIN).await;
                    continue;
                }
                Created::KeyHeld(Reservation::InProgress) => Err(Refusal::KeyInUse(self.name())),
                Created::KeyHeld(_) => Err(Refusal::KeyReused(self.name())),
            };
        }
    }

    /// Uploads the body of the request, and returns the stored form of the request.
    async fn upload_request<R>(
        &self,
        upload: &RequestUpload,
        node: &Runtime<R>,
        policy: &Policy,
    ) -> Result<Bytes, Refusal> {
        let stored = upload.finish(policy.create_timeout, node.in_flight.bytes());
        let stored = unless_over(node, stored).await?;
        stored.map_err(|error| {
            let (id, error) = (&self.new.id, error.report());
            tracing::error!(%id, error, "request body not stored, request refused");
            Refusal::Unavailable
        })
    }

    /// Creates the operation and returns a certain answer.
    ///
    /// An error can hide a success, so the creation is retried with the same id until the answer
    /// is certain or the time is up. If the answer stays uncertain, the operation may exist and
    /// has to be [disowned](Self::disown).
    async fn create_certainly<R>(
        &self,
        node: &Arc<Runtime<R>>,
        policy: &Policy,
    ) -> Result<Created<RecordedResponse>, Refusal>
    where
        R: Lease<Output = RecordedResponse>,
    {
        let new = &self.new;
        if node.in_flight.is_interrupting() {
            return Err(Refusal::Closed);
        }
        crash_point!("creating");
        let certain = retry_until_certain(node, Some(&new.id), || async {
            match self.try_create(node).await {
                Ok(created) => Ok(Ok(created)),
                Err(error) => match Refusal::of_full_store(&error) {
                    // The result is certain: this try created no operation. The client may retry.
                    Some(refusal) => Ok(Err(refusal)),
                    None => Err(error),
                },
            }
        });
        let certain = Timeout::new(policy.create_timeout, certain);
        let error = match unless_over(node, certain).await? {
            Ok(Ok(Ok(created))) => return Ok(created),
            Ok(Ok(Err(refusal))) => {
                if refusal == Refusal::StoreFull {
                    node.warn_of_full_store();
                }
                return Err(refusal);
            }
            Ok(Err(error)) => error.report(),
            Err(_) => "the store did not answer in time".into(),
        };
        tracing::error!(id = %new.id, error, "operation not created, request refused");
        Err(Refusal::Unavailable)
    }

    /// Refuses an id that the client chose if another request has an operation of this id: the
    /// inner service must not be called then.
    pub(super) async fn refuse_taken_id<R>(
        &self,
        node: &Runtime<R>,
        patience: Duration,
    ) -> Result<(), Refusal>
    where
        R: Lease<Output = RecordedResponse>,
    {
        if self.is_fresh {
            return Ok(());
        }
        let (id, owner) = (&self.new.id, self.new.owner.as_ref());
        let reader = Reader::new(owner).with_max_body(0);
        let found = retry_until_certain(node, Some(id), || node.store.get_for(id, reader));
        match unless_over(node, Timeout::new(patience, found)).await? {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(record))) if record.owner() == owner => {
                Err(Refusal::KeyReused(RequestName::Id(id.clone())))
            }
            Ok(Ok(Some(_))) => Err(Refusal::Taken(id.clone())),
            Ok(Err(_)) | Err(_) => {
                tracing::error!(%id, "operation not looked up, request refused");
                Err(Refusal::Unavailable)
            }
        }
    }
}

/// Awaits a future, or refuses the request once the time of a drain is over.
async fn unless_over<R, T>(
    node: &Runtime<R>,
    waited_for: impl Future<Output = T>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        done = waited_for => Ok(done),
        () = node.in_flight.over().cancelled() => Err(Refusal::Closed),
    }
}
