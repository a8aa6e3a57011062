//! What is logged of an operation's end.

use std::time::Duration;

use tracing::{Level, enabled};

use crate::{
    operation::{FailureKind, Operation, Problem, State},
    store::Record,
};

/// Logs the end of an operation, once, where it was written: a failure that is none of the
/// inner service's own answer at `WARN`, anything else at `INFO`.
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

/// Whether it failed without an answer.
fn is_ours<T>(operation: &Operation<T>) -> bool {
    operation.state() == State::Failed
        && operation.response().is_none()
        && operation.problem().is_some_and(|problem| {
            let of_problem = |kind: &FailureKind| kind.urn() == problem.type_uri();
            FailureKind::ALL.iter().any(of_problem)
        })
}

/// Since its last start, or its creation if it was never started.
fn duration<T>(operation: &Operation<T>) -> Option<Duration> {
    let metadata = operation.metadata();
    let begun = metadata.started_at().or(metadata.created_at())?;
    metadata.finished_at()?.duration_since(begun).ok()
}

/// To the millisecond, which is as exact as times are kept.
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
    fn a_duration_is_told_to_the_millisecond() {
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
        // Among them many that are not told so by a division of their own.
        for millis in 0..100_000_u64 {
            let told = seconds(Duration::from_millis(millis)).to_string();
            assert!(told.len() <= "99.999".len(), "{told}");
        }
    }
}
