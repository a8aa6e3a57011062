//! Canceling what goes on, and forgetting what has ended.

use std::sync::Arc;

use http::{Response, header::ETAG, request::Parts};

use super::{
    answer::{in_context, unavailable},
    capabilities::EndCapability,
    conditional,
    find::find,
    precondition::{self, NamedTags},
    settings::Settings,
};
use crate::{
    dialect::{ApiError, OnTerminal},
    operation::{BufferedBody, OperationId, State},
    run::log_end,
    store::{Record, Store, StoreError, Version, Written},
};

pub(super) async fn cancel<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    when_finished: OnTerminal,
    reason: Option<&str>,
) -> Response<BufferedBody> {
    match try_cancel(settings, parts, id, when_finished, reason).await {
        Ok(EndAnswer::Canceled(record)) => {
            let answer = in_context(settings, parts, &record, |context| {
                settings
                    .shared
                    .dialect
                    .ended(&record.operation().view(), context)
            });
            let mut response = answer.unwrap_or_else(|fault| settings.fault(&fault));
            if let Some(etag) = conditional::etag(&record) {
                response.headers_mut().insert(ETAG, etag);
            }
            response
        }
        Ok(EndAnswer::Forgotten) => settings.shared.dialect.deleted(id),
        Err(fault) => settings.fault(&fault),
    }
}

pub(super) async fn forget<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> Response<BufferedBody> {
    match try_forget(settings, parts, id).await {
        Ok(()) => settings.shared.dialect.deleted(id),
        Err(fault) => settings.fault(&fault),
    }
}

enum EndAnswer<T> {
    /// Or finished before, where the dialect takes that for an answer.
    Canceled(Arc<Record<T>>),
    Forgotten,
}

async fn try_cancel<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    when_finished: OnTerminal,
    reason: Option<&str>,
) -> Result<EndAnswer<S::Output>, ApiError> {
    // Again when somebody else was faster, which is seldom the case twice.
    for round in 0..ROUNDS {
        let (record, version, ends) = found(settings, parts, id).await?;
        let etag = conditional::etag(&record);
        let named = precondition::holding(&parts.headers, etag.as_ref())?;
        let state = record.operation().state();
        use OnTerminal::{Delete, Refuse, RefuseEnded, RefuseUnlessMatched, Same};
        let write = match (state, when_finished) {
            (State::Canceled, _) => {
                // What the dialect shows no more is not canceled once more.
                in_context(settings, parts, &record, |context| {
                    settings
                        .shared
                        .dialect
                        .status(&record.operation().view(), context)
                })?;
                if when_finished == RefuseEnded {
                    return Err(too_late(id, state));
                }
                let forgets = match when_finished {
                    // One that was canceled meanwhile is as it was asked to be.
                    Delete => round == 0 || named == Some(NamedTags::This),
                    // Who names it has seen that it was.
                    RefuseUnlessMatched => named == Some(NamedTags::This),
                    Same | Refuse | RefuseEnded => false,
                };
                if forgets {
                    forgotten(settings, id, version, &ends).await?;
                    return Ok(EndAnswer::Forgotten);
                }
                return Ok(EndAnswer::Canceled(record));
            }
            (State::Succeeded | State::Failed, Same) => return Ok(EndAnswer::Canceled(record)),
            // It went on when it was asked for, and any version was good enough.
            (State::Succeeded | State::Failed, Delete)
                if round > 0 && named == Some(NamedTags::Any) =>
            {
                return Ok(EndAnswer::Canceled(record));
            }
            (State::Succeeded | State::Failed, RefuseUnlessMatched)
                if named == Some(NamedTags::This) =>
            {
                forgotten(settings, id, version, &ends).await?;
                return Ok(EndAnswer::Forgotten);
            }
            (State::Succeeded | State::Failed, Refuse | RefuseEnded | RefuseUnlessMatched) => {
                return Err(too_late(id, state));
            }
            // Any version may be one with a result that the client has not seen.
            (State::Succeeded | State::Failed, Delete) if named == Some(NamedTags::Any) => {
                return Err(ApiError::PreconditionFailed { field: "If-Match" });
            }
            (State::Succeeded | State::Failed, Delete) => {
                forgotten(settings, id, version, &ends).await?;
                return Ok(EndAnswer::Forgotten);
            }
            (State::Pending | State::Running, _) => {
                (ends.cancel)(settings.store(), id, version, reason).await
            }
        };
        match write.map_err(|error| unavailable(settings, Some(id), &error))? {
            Written::Done(record) => {
                log_end(&record);
                return Ok(EndAnswer::Canceled(record));
            }
            Written::Lost(_) => {}
            Written::Gone => return Err(ApiError::NotFound { id: id.clone() }),
        }
    }
    Err(unavailable(
        settings,
        Some(id),
        &StoreError::unavailable("every cancel lost a race"),
    ))
}

fn too_late(id: &OperationId, state: State) -> ApiError {
    let id = id.clone();
    ApiError::AlreadyFinished { id, state }
}

/// So often a cancel is tried against a version that is gone by then.
const ROUNDS: usize = 32;

async fn try_forget<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> Result<(), ApiError> {
    let (record, version, ends) = found(settings, parts, id).await?;
    let etag = conditional::etag(&record);
    let named = precondition::holding(&parts.headers, etag.as_ref())?;
    match record.operation().state() {
        State::Pending | State::Running => Err(ApiError::NotFinished { id: id.clone() }),
        State::Succeeded | State::Failed if named == Some(NamedTags::Any) => {
            Err(ApiError::PreconditionFailed { field: "If-Match" })
        }
        State::Succeeded | State::Failed | State::Canceled => {
            forgotten(settings, id, version, &ends).await
        }
    }
}

/// Forgets a terminal operation. It cannot change any more, so it is gone one
/// way or the other.
async fn forgotten<S: Store>(
    settings: &Settings<S>,
    id: &OperationId,
    version: Version,
    ends: &EndCapability<S>,
) -> Result<(), ApiError> {
    match (ends.forget)(settings.store(), id, version).await {
        Ok(Written::Done(_) | Written::Gone) => Ok(()),
        Ok(Written::Lost(_)) => Err(ApiError::PreconditionFailed { field: "If-Match" }),
        Err(error) => Err(unavailable(settings, Some(id), &error)),
    }
}

type FoundToEnd<S> = (Arc<Record<<S as Store>::Output>>, Version, EndCapability<S>);

async fn found<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> Result<FoundToEnd<S>, ApiError> {
    let record = find(settings, parts, id).await?;
    // A service that ends operations was made with a store that counts versions.
    let missing = || ApiError::NotFound { id: id.clone() };
    let version = record.version().ok_or_else(missing)?;
    let ends = settings.powers.ends.ok_or_else(missing)?;
    Ok((record, version, ends))
}
