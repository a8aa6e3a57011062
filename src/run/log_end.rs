//! Logging the end of an operation.

use std::time::Duration;

use tracing::{Level, enabled};

use crate::{
    operation::{FailureKind, Operation, Problem, State},
    store::Record,
};

/// Logs the end of an operation once, where the end was written: a failure without an
/// answer of the inner service at `WARN`, anything else at `INFO`.
pub(crate) fn log_end<T>(record: &Record<T>) {
    let operation = record.operation();
    if is_ours(operation) {
        if enabled!(Level::WARN) {
            warn(record);
        }
    } else if enabled!(Level::INFO) {
        info(record);
    }
}

/// Returns whether the operation failed without an answer of the inner service.
fn is_ours<T>(operation: &Operation<T>) -> bool {
    operation.state() == State::Failed
        && operation.response().is_none()
        && operation.problem().is_some_and(|problem| {
            let of_problem = |kind: &FailureKind| kind.urn() == problem.type_uri();
            FailureKind::ALL.iter().any(of_problem)
        })
}

/// Returns the time since the last start, or since the creation if the operation was never
/// started.
fn duration<T>(operation: &Operation<T>) -> Option<Duration> {
    let metadata = operation.metadata();
    let begun = metadata.started_at().or(metadata.created_at())?;
    metadata.finished_at()?.duration_since(begun).ok()
}

/// Returns the duration in seconds, exact to the millisecond like stored times.
fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1000.0).round() / 1000.0
}

macro_rules! log_at {
    ($log:ident, $record:ident) => {{
        let operation = $record.operation();
        tracing::$log!(
            id = %operation.id(),
            name = operation.metadata().name(),
            state = %operation.state(),
            attempt = $record.attempts(),
            duration = duration(operation).map(seconds),
            problem = operation.problem().map(Problem::type_uri),
            "operation {}",
            operation.state(),
        );
    }};
}

#[cold]
fn warn<T>(record: &Record<T>) {
    log_at!(warn, record);
}

fn info<T>(record: &Record<T>) {
    log_at!(info, record);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_logged_to_the_millisecond() {
        for (nanos, expected) in [
            (2_506_000_000, "2.506"),
            (2_506_000_123, "2.506"),
            (1_999_600_000, "2"),
            (300_000_000, "0.3"),
            (400_000, "0"),
            (86_400_123_000_000, "86400.123"),
        ] {
            assert_eq!(seconds(Duration::from_nanos(nanos)).to_string(), expected);
        }
        // Many of these durations have more digits without the rounding.
        for millis in 0..100_000_u64 {
            let told = seconds(Duration::from_millis(millis)).to_string();
            assert!(told.len() <= "99.999".len(), "{told}");
        }
    }
}
