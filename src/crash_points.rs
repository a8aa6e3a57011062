//! Dying at a named point, for tests of what is left behind then.
//!
//! A process with the feature `crash-points` aborts where the environment variable
//! `TOWER_OPERATIONS_CRASH_AT` says: at one of [`ALL`] points, which lie at every
//! await between the creation of an operation and its end, or of those on the way to
//! another process. Without the feature there are none.

/// Every point in a life that one process goes through, in order.
pub const ALL: [&str; 16] = [
    "creating",
    "created",
    "accepted",
    "ready",
    "starting",
    "started",
    "calling",
    "called",
    "collected",
    "reporting",
    "reported",
    "finishing",
    "finished",
    "taking-over",
    "taken-over",
    "running-again",
];

/// The points in between where requests are dispatched: the first two at the front, the others at the
/// worker.
pub const HANDED_OFF: [&str; 4] = ["dispatching", "dispatched", "claiming", "claimed"];

/// Dies here, if that is what is wanted.
pub(crate) fn here(point: &'static str) {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let all = || ALL.iter().chain(&HANDED_OFF);
    debug_assert!(
        all().any(|known| *known == point),
        "{point} is no crash point"
    );
    let wanted = WANTED.get_or_init(|| std::env::var("TOWER_OPERATIONS_CRASH_AT").ok());
    if wanted.as_deref() == Some(point) {
        // Nothing is tidied up, as nothing is by a power cut.
        std::process::abort();
    }
}
