//! Deleting what no operation names in the result store.

use std::time::Duration;

use tokio::time::sleep;

use super::RecoveryStats;
use crate::{
    environment,
    operation::RecordedResponse,
    results::{ResultKey, ResultStorage, StoredResult},
    run::{Runtime, guarded, guarded_next},
    store::{Lease, StoreError, StoreResult},
};

/// The number of uploads that are deleted in one call.
const BATCH: usize = 100;

/// The pause between two looks at the whole result store.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(10 * 60);

/// The age of an upload above which it is deleted if no operation names it. A younger one may be
/// that of an outcome that is being recorded. The clock of the result store may differ by almost as
/// much.
const ORPHANED: Duration = Duration::from_secs(60 * 60);

/// The same for a request, whose operation is created up to half an hour after the upload.
const ORPHANED_REQUEST: Duration = Duration::from_secs(2 * 60 * 60);

/// Deletes uploads that no operation names. The operation was deleted or has expired, or its holder
/// had lost it.
pub(super) async fn sweep<R>(node: &Runtime<R>, stats: &RecoveryStats)
where
    R: Lease<Output = RecordedResponse>,
{
    let Some(results) = &node.results else {
        return;
    };
    loop {
        if let Err(error) = sweep_once(node, results, stats).await {
            tracing::warn!(error = error.report(), "result store not swept");
        }
        sleep(BETWEEN_SWEEPS).await;
    }
}

async fn sweep_once<R>(
    node: &Runtime<R>,
    results: &ResultStorage,
    stats: &RecoveryStats,
) -> StoreResult<()>
where
    R: Lease<Output = RecordedResponse>,
{
    let mut entries = guarded(async { Ok(results.store.list()) }).await?;
    let mut orphans = Vec::new();
    // An error about one upload must not keep the others.
    let mut failed = None;
    loop {
        // The orphans that were found before an error are deleted.
        let entry = match guarded_next(&mut entries).await {
            Ok(entry) => entry,
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        let is_last = entry.is_none();
        if let Some(entry) = entry {
            match guarded(is_orphan(node, &entry)).await {
                Ok(true) => orphans.push(entry.key),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        if orphans.len() >= BATCH || is_last && !orphans.is_empty() {
            match guarded(async { results.store.delete(&orphans).await }).await {
                Ok(()) => stats.add_swept(orphans.len()),
                Err(error) => failed = Some(error),
            }
            orphans.clear();
        }
        if is_last {
            return failed.map_or(Ok(()), Err);
        }
    }
}

/// Returns whether an upload is old, and no operation names it or will name it.
async fn is_orphan<R>(node: &Runtime<R>, entry: &StoredResult) -> Result<bool, StoreError>
where
    R: Lease<Output = RecordedResponse>,
{
    let age = environment::wall_clock().duration_since(entry.finished_at);
    let bound = match entry.key.is_request {
        true => ORPHANED_REQUEST,
        false => ORPHANED,
    };
    if age.unwrap_or_default() < bound {
        return Ok(false);
    }
    let ResultKey {
        id,
        token,
        is_request,
    } = &entry.key;
    // `get` reads for any owner; `get_for` would withhold the response.
    Ok(match node.store.get(id).await {
        Err(error) if error.is_transient() => return Err(error),
        // A damaged record may name it.
        Err(_) => false,
        Ok(None) => true,
        // The request of a live operation may be needed for a rerun.
        Ok(Some(record)) if *is_request => record.operation().state().is_terminal(),
        Ok(Some(record)) if record.operation().state().is_terminal() => {
            let response = record.operation().response();
            response.and_then(RecordedResponse::uploader) != Some(token.get())
        }
        Ok(Some(record)) => record.token() != *token,
    })
}
