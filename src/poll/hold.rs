//! Holding a poll until there is a change to report.

use http::request::Parts;
use tokio::time::Instant;

use super::settings::Settings;
use crate::store::{Found, Reader, Record, Store, Version};

/// The event that a held poll waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldUntil {
    /// The poll waits for any change.
    Changed,
    /// The poll waits for the terminal state.
    Terminal,
}

/// Waits until `deadline` at the latest, and returns the operation as it is then.
///
/// Does not wait if no later change can be reported: if the store does not notify of changes, if
/// the bound on held polls is reached, in total or for this owner, or if the server is shutting
/// down.
pub(super) async fn hold<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    mut record: Record<S::Output>,
    until: HoldUntil,
    deadline: Instant,
    max_body: usize,
) -> Found<S::Output> {
    let (Some(changed), Some(seen)) = (settings.powers.changed, record.version()) else {
        return Ok(Some(record));
    };
    if settings.closing().is_cancelled() {
        return Ok(Some(record));
    }
    let Ok(_held) = settings.held.one(settings.shared.known_owner(parts)) else {
        return Ok(Some(record));
    };
    let id = record.operation().id().clone();
    while !is_reached(&record, seen, until) {
        let Some(version) = record.version() else {
            break;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // The request may see the operation. Later records are visible too as long as the owner
        // is the same.
        let reader = Reader::new(record.owner()).with_max_body(max_body);
        let next = tokio::select! {
            biased;
            next = changed(settings.store(), &id, version, left, reader) => next,
            () = settings.closing().cancelled() => break,
        };
        let next = match next {
            // The store is slow: the record is the one that was read when the poll came.
            Err(error) if error.is_transient() && deadline <= Instant::now() => {
                tracing::debug!(error = error.report(), "held poll not read again");
                break;
            }
            next => next?,
        };
        match next {
            Some(next) if next.version() != Some(version) => record = next,
            // The wait is over.
            Some(next) => return Ok(Some(next)),
            None => return Ok(None),
        }
    }
    Ok(Some(record))
}

fn is_reached<T>(record: &Record<T>, seen: Version, until: HoldUntil) -> bool {
    let changed = until == HoldUntil::Changed && record.version() != Some(seen);
    changed || record.operation().state().is_terminal()
}
