//! Creating the operation in the store.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{hand_over::Wanted, policy::Policy, refuse::Refusal, reservation::ASK_AGAIN};
use crate::{
    dialect::RequestName,
    operation::RecordedResponse,
    run::{Runtime, Timeout, retry_until_certain},
    store::{Created, Lease, Record, Reservation, StoreError},
};

/// The result of creating an operation.
pub(super) enum CreateOutcome {
    New(Arc<Record<RecordedResponse>>),
    /// An earlier request created the operation.
    Repeated(Arc<Record<RecordedResponse>>),
    /// An earlier request was answered with this response.
    Answered(Arc<RecordedResponse>),
}

/// Creates the operation. Waits while another request with the same key is being answered.
/// After a refusal the operation may exist, and has to be [disowned](Wanted::disown).
pub(super) async fn create<R>(
    node: &Arc<Runtime<R>>,
    policy: &Policy,
    wanted: &Wanted,
) -> Result<CreateOutcome, Refusal>
where
    R: Lease<Output = RecordedResponse>,
{
    let mut begun = None;
    let max_wait = policy
        .idempotency
        .as_ref()
        .map(|rules| rules.max_wait)
        .unwrap_or_default();
    loop {
        return match create_certainly(node, policy, wanted).await? {
            Created::New(record) => {
                crash_point!("created");
                Ok(CreateOutcome::New(record))
            }
            // An earlier try has created the operation.
            Created::Existing(record) if record.token() == wanted.new.token => {
                Ok(CreateOutcome::New(record))
            }
            Created::Existing(record) => Ok(CreateOutcome::Repeated(record)),
            Created::IdTaken => Err(Refusal::Taken(wanted.new.id.clone())),
            Created::KeyHeld(Reservation::Answered(answer)) => Ok(CreateOutcome::Answered(answer)),
            Created::KeyHeld(Reservation::Deleted(record)) => {
                Err(Refusal::deleted(&record, wanted.name()))
            }
            Created::KeyHeld(Reservation::InProgress)
                if begun.get_or_insert_with(Instant::now).elapsed() < max_wait =>
            {
                sleep(ASK_AGAIN).await;
                continue;
            }
            Created::KeyHeld(Reservation::InProgress) => Err(Refusal::KeyInUse(wanted.name())),
            Created::KeyHeld(_) => Err(Refusal::KeyReused(wanted.name())),
        };
    }
}

/// Returns whether an id that the client chose is unused. If the id is that of an
/// operation of another request, the inner service must not be called.
pub(super) async fn is_free<R>(
    node: &Runtime<R>,
    patience: Duration,
    wanted: &Wanted,
) -> Result<(), Refusal>
where
    R: Lease<Output = RecordedResponse>,
{
    if wanted.is_fresh {
        return Ok(());
    }
    let found = retry_until_certain(node, Some(&wanted.new.id), || {
        node.store
            .get_for(&wanted.new.id, wanted.new.owner.as_ref())
    });
    match unless_over(node, Timeout::new(patience, found)).await? {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(record))) if record.owner() == wanted.new.owner.as_ref() => {
            Err(Refusal::KeyReused(RequestName::Id(wanted.new.id.clone())))
        }
        Ok(Ok(Some(_))) => Err(Refusal::Taken(wanted.new.id.clone())),
        Ok(Err(_)) | Err(_) => {
            tracing::error!(id = %wanted.new.id, "operation not looked up, request refused");
            Err(Refusal::Unavailable)
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

/// Creates the operation and returns a certain answer.
///
/// An error can hide a success, so the creation is retried with the same id until the answer is
/// certain or the time is up. If the answer stays uncertain, the operation may exist and has to
/// be [disowned](Wanted::disown).
async fn create_certainly<R>(
    node: &Arc<Runtime<R>>,
    policy: &Policy,
    wanted: &Wanted,
) -> Result<Created<RecordedResponse>, Refusal>
where
    R: Lease<Output = RecordedResponse>,
{
    let new = &wanted.new;
    if node.in_flight.is_interrupting() {
        return Err(Refusal::Closed);
    }
    crash_point!("creating");
    let certain = retry_until_certain(node, Some(&new.id), || async {
        wanted.in_doubt.fetch_add(1, Relaxed);
        let created = node.store.create(new.clone()).await;
        if !matches!(created, Err(StoreError::Unavailable(_))) {
            wanted.in_doubt.fetch_sub(1, Relaxed);
        }
        match created {
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
