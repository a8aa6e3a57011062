//! Finding the operation that a request is about.

use std::sync::Arc;

use http::request::Parts;

use super::{answer::unavailable, settings::Settings, unknown::not_found};
use crate::{
    dialect::ApiError,
    operation::OperationId,
    store::{Found, Owner, Record, Store},
};

pub(super) type FoundRecord<S> = Result<Arc<Record<<S as Store>::Output>>, ApiError>;

/// The operation, if it is there for the request, from a store that need not wait.
#[inline]
pub(super) fn find_now<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> Option<FoundRecord<S>> {
    let owner = settings.shared.owner(parts);
    let found = settings.store().get_now_for(id, owner.as_ref())?;
    let found = visible(settings, parts, id, found);
    match &found {
        Ok(record) if !is_whole(record, owner.as_ref()) => None,
        _ => Some(found),
    }
}

/// The operation, if it is there for the request.
pub(super) async fn find<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
) -> FoundRecord<S> {
    let owner = settings.shared.owner(parts);
    let found = match settings.store().get_now_for(id, owner.as_ref()) {
        Some(found) => found,
        None => settings.store().get_for(id, owner.as_ref()).await,
    };
    let record = visible(settings, parts, id, found)?;
    if is_whole(&record, owner.as_ref()) {
        return Ok(record);
    }
    // It is there for them under another name: one of an older key, for example.
    let found = settings.store().get_for(id, record.owner()).await;
    visible(settings, parts, id, found)
}

/// Whether its result came along, if it has one.
fn is_whole<T>(record: &Record<T>, owner: Option<&Owner>) -> bool {
    record.owner() == owner || !record.operation().state().is_terminal()
}

/// The record, if it is there for the request. To everybody but its owner an operation
/// is unknown.
#[inline]
pub(super) fn visible<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    found: Found<S::Output>,
) -> FoundRecord<S> {
    match found {
        Ok(Some(record)) if settings.shared.owns(parts, record.owner()) => Ok(record),
        Ok(_) => Err(not_found(settings, parts, id)),
        Err(error) => Err(unavailable(settings, Some(id), &error)),
    }
}
