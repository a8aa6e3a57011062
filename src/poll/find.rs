//! Finding the operation of a request.

use http::request::Parts;

use super::{context::unavailable, settings::Settings, unknown::not_found};
use crate::{
    dialect::ApiError,
    operation::OperationId,
    store::{Found, Owner, Reader, Record, Store},
};

pub(super) type FoundRecord<S> = Result<Record<<S as Store>::Output>, ApiError>;

/// Returns the operation if the request may see it, from a store that never waits. The body of its
/// result may be missing if it is longer than `max_body` bytes.
#[inline]
pub(super) fn find_now<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    max_body: usize,
) -> Option<FoundRecord<S>> {
    let owner = settings.shared.owner(parts);
    let reader = Reader::new(owner.as_ref()).with_max_body(max_body);
    let found = settings.store().get_now_for(id, reader)?;
    let found = visible(settings, parts, id, found);
    match &found {
        Ok(record) if is_withheld(record, owner.as_ref()) => None,
        _ => Some(found),
    }
}

/// Returns the operation if the request may see it. The body of its result may be missing if it is
/// longer than `max_body` bytes.
pub(super) async fn find<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    id: &OperationId,
    max_body: usize,
) -> FoundRecord<S> {
    let owner = settings.shared.owner(parts);
    let reader = Reader::new(owner.as_ref()).with_max_body(max_body);
    let found = match settings.store().get_now_for(id, reader) {
        Some(found) => found,
        None => settings.store().get_for(id, reader).await,
    };
    let record = visible(settings, parts, id, found)?;
    if !is_withheld(&record, owner.as_ref()) {
        return Ok(record);
    }
    // The owner is stored under another name, for example under that of an earlier key.
    let reader = Reader::new(record.owner()).with_max_body(max_body);
    let found = settings.store().get_for(id, reader).await;
    visible(settings, parts, id, found)
}

/// Returns whether the record may have a result that was withheld from this owner.
fn is_withheld<T>(record: &Record<T>, owner: Option<&Owner>) -> bool {
    record.owner() != owner && record.operation().state().is_terminal()
}

/// Returns the record if the request may see it. To every request of another owner the operation
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
