//! Canceling live operations, and deleting terminal ones.

use std::sync::Arc;

use http::{Response, header::ETAG, request::Parts};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tracing::Instrument;

use super::{
    PollBody,
    capabilities::EndCapability,
    conditional,
    context::{in_context, unavailable},
    find::find,
    precondition::{self, NamedTags},
    settings::Settings,
    stored_result,
};
use crate::{
    dialect::{ApiError, OnTerminal, Replayed, Shown},
    environment,
    operation::{BufferedBody, OperationId, State},
    run::{Runtime, retry_until_certain},
    store::{Reader, Record, Stamp, Store, StoreError, Written},
};

pub(super) async fn cancel<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    when_finished: OnTerminal,
    reason: Option<&str>,
) -> Response<PollBody> {
    let response = match try_cancel(settings, parts, id, when_finished, reason).await {
        Ok(EndAnswer::Canceled(record)) => {
            let mut shown = Replayed::take(show_end(settings, parts, &record));
            if let Shown::Unread = shown {
                shown = match find(settings, parts, id, usize::MAX).await {
                    Ok(whole) => Replayed::take(show_end(settings, parts, &whole)),
                    Err(fault) => Shown::Complete(settings.fault(&fault)),
                };
            }
            match shown {
                Shown::Complete(response) | Shown::Replay(response, _) => response,
                Shown::Apart(response, recorded) => {
                    return stored_result::whole(settings, parts, id, response, &recorded).await;
                }
                Shown::Unread => {
                    let error = StoreError::refused("the store reads no body of this length");
                    settings.fault(&unavailable(settings, Some(id), &error))
                }
            }
        }
        Ok(EndAnswer::Deleted) => settings.shared.dialect.deleted(id),
        Err(fault) => settings.fault(&fault),
    };
    response.map(PollBody::from)
}

/// Answers with an operation that was canceled, or had ended before.
fn show_end<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    record: &Record<S::Output>,
) -> Response<BufferedBody> {
    let answer = in_context(settings, parts, record, |context| {
        let view = record.operation().view();
        settings.shared.dialect.ended(&view, context)
    });
    let mut response = answer.unwrap_or_else(|fault| settings.fault(&fault));
    if let Some(etag) = conditional::etag(record) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

pub(super) async fn delete<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> Response<BufferedBody> {
    match try_delete(settings, parts, id).await {
        Ok(()) => settings.shared.dialect.deleted(id),
        Err(fault) => settings.fault(&fault),
    }
}

enum EndAnswer<T> {
    /// The operation was canceled, or had ended before where the dialect treats that as success.
    Canceled(Record<T>),
    Deleted,
}

async fn try_cancel<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    when_finished: OnTerminal,
    reason: Option<&str>,
) -> Result<EndAnswer<S::Output>, ApiError> {
    let mut created_at = None;
    // The round is repeated when another writer was faster, which rarely happens twice.
    for round in 0..ROUNDS {
        let (record, stamp, ends) = found(settings, parts, id, settings.inline_limit).await?;
        let created = record.operation().metadata().created_at();
        if *created_at.get_or_insert(created) != created {
            // The operation was deleted, and its id used again.
            return Err(ApiError::NotFound { id: id.clone() });
        }
        let etag = conditional::etag(&record);
        let named = precondition::holding(&parts.headers, etag.as_ref())?;
        let state = record.operation().state();
        use OnTerminal::{Delete, Refuse, RefuseEnded, RefuseUnlessMatched, Same};
        let write = match (state, when_finished) {
            (State::Canceled, _) => {
                // An operation that the dialect hides is not canceled again.
                in_context(settings, parts, &record, |context| {
                    settings
                        .shared
                        .dialect
                        .status(&record.operation().view(), context)
                })?;
                if when_finished == RefuseEnded {
                    return Err(too_late(id, state));
                }
                let deletes = match when_finished {
                    // An operation that was canceled meanwhile is in the requested state.
                    Delete => round == 0 || named == Some(NamedTags::This),
                    // A client that names this version has seen that the operation was canceled.
                    RefuseUnlessMatched => named == Some(NamedTags::This),
                    Same | Refuse | RefuseEnded => false,
                };
                if deletes {
                    delete_at(settings, id, stamp, &ends).await?;
                    return Ok(EndAnswer::Deleted);
                }
                return Ok(EndAnswer::Canceled(record));
            }
            (State::Succeeded | State::Failed, Same) => return Ok(EndAnswer::Canceled(record)),
            // The operation was live when the request came, and any version was acceptable.
            (State::Succeeded | State::Failed, Delete)
                if round > 0 && named == Some(NamedTags::Any) =>
            {
                return Ok(EndAnswer::Canceled(record));
            }
            (State::Succeeded | State::Failed, RefuseUnlessMatched)
                if named == Some(NamedTags::This) =>
            {
                delete_at(settings, id, stamp, &ends).await?;
                return Ok(EndAnswer::Deleted);
            }
            (State::Succeeded | State::Failed, Refuse | RefuseEnded | RefuseUnlessMatched) => {
                return Err(too_late(id, state));
            }
            // Any version includes one with a result that the client has not seen.
            (State::Succeeded | State::Failed, Delete) if named == Some(NamedTags::Any) => {
                return Err(ApiError::PreconditionFailed { field: "If-Match" });
            }
            (State::Succeeded | State::Failed, Delete) => {
                delete_at(settings, id, stamp, &ends).await?;
                return Ok(EndAnswer::Deleted);
            }
            (State::Pending | State::Running, _) => {
                let mut guard = CancelGuard {
                    settings,
                    id,
                    is_answered: false,
                };
                let write = (ends.cancel)(settings.store(), id, stamp, reason).await;
                guard.is_answered = write.is_ok();
                write
            }
        };
        match write.map_err(|error| unavailable(settings, Some(id), &error))? {
            Written::Done(record) => {
                settings.runtime.ended(&record);
                return Ok(EndAnswer::Canceled(record));
            }
            Written::Lost(_) => {}
            Written::Gone => return Err(ApiError::NotFound { id: id.clone() }),
        }
    }
    Err(unavailable(
        settings,
        Some(id),
        &StoreError::unavailable("every cancellation lost to a concurrent change"),
    ))
}

/// Calls the terminal hook for a cancel whose answer is lost, or whose client went away before the
/// answer: the store may have canceled the operation.
struct CancelGuard<'a, S: Store> {
    settings: &'a Settings<S>,
    id: &'a OperationId,
    is_answered: bool,
}

impl<S: Store> Drop for CancelGuard<'_, S> {
    fn drop(&mut self) {
        let node = &self.settings.runtime;
        if self.is_answered || node.hook.is_none() || Handle::try_current().is_err() {
            return;
        }
        let told = tell_once_canceled(Arc::clone(node), self.id.clone());
        environment::spawn(told.in_current_span());
    }
}

/// Calls the terminal hook once the operation is canceled. The cancel may take effect late, so the
/// operation is looked for until its lease would have expired.
async fn tell_once_canceled<S: Store>(node: Arc<Runtime<S>>, id: OperationId) {
    let (begun, term) = (Instant::now(), node.lease().term);
    loop {
        let reader = Reader::new(None).with_max_body(0);
        let found = retry_until_certain(&node, Some(&id), || node.store.get_for(&id, reader));
        match found.await {
            Ok(Some(record)) if record.operation().state() == State::Canceled => {
                return node.tell(&record);
            }
            Ok(Some(record))
                if !record.operation().state().is_terminal() && begun.elapsed() < term =>
            {
                sleep(term / 10).await;
            }
            Ok(_) | Err(_) => return,
        }
    }
}

fn too_late(id: &OperationId, state: State) -> ApiError {
    let id = id.clone();
    ApiError::AlreadyFinished { id, state }
}

/// The number of tries to cancel an operation whose version changes meanwhile.
const ROUNDS: usize = 32;

async fn try_delete<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> Result<(), ApiError> {
    let (record, stamp, ends) = found(settings, parts, id, 0).await?;
    let etag = conditional::etag(&record);
    let named = precondition::holding(&parts.headers, etag.as_ref())?;
    match record.operation().state() {
        State::Pending | State::Running => Err(ApiError::NotFinished { id: id.clone() }),
        State::Succeeded | State::Failed if named == Some(NamedTags::Any) => {
            Err(ApiError::PreconditionFailed { field: "If-Match" })
        }
        State::Succeeded | State::Failed | State::Canceled => {
            delete_at(settings, id, stamp, &ends).await
        }
    }
}

/// Deletes a terminal operation. A terminal operation cannot change any more, so one that is
/// missing, or another one with its id, means that it was deleted.
async fn delete_at<S: Store>(
    settings: &Settings<S>,
    id: &OperationId,
    stamp: Stamp,
    ends: &EndCapability<S>,
) -> Result<(), ApiError> {
    match (ends.delete)(settings.store(), id, stamp).await {
        Ok(Written::Done(_) | Written::Gone | Written::Lost(_)) => Ok(()),
        Err(error) => Err(unavailable(settings, Some(id), &error)),
    }
}

type FoundToEnd<S> = (Record<<S as Store>::Output>, Stamp, EndCapability<S>);

async fn found<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    max_body: usize,
) -> Result<FoundToEnd<S>, ApiError> {
    let record = find(settings, parts, id, max_body).await?;
    // A service that ends operations has a store that counts versions.
    let missing = || ApiError::NotFound { id: id.clone() };
    let stamp = record.stamp().ok_or_else(missing)?;
    let ends = settings.powers.ends.ok_or_else(missing)?;
    Ok((record, stamp, ends))
}
