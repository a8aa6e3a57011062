//! Named points at which a test can make the process die.
//!
//! A process with the feature `crash-points` aborts at the point that the environment variable
//! `TOWER_OPERATIONS_CRASH_AT` names: one of [`ALL`], of [`LARGE`], or of [`HANDED_OFF`]. The points are at
//! every await between the creation of an operation and its end, and on the way to another
//! process. Without the feature there are no points.

/// The points in the life of an operation in one process, in order.
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

/// The additional points of bodies that are in a result store. The last one is in a rerun.
pub const LARGE: [&str; 3] = ["request-stored", "uploaded", "request-reading"];

/// The additional points where requests are dispatched. The first two are in the front process,
/// the others in the worker.
pub const HANDED_OFF: [&str; 4] = ["dispatching", "dispatched", "claiming", "claimed"];

/// Aborts the process here, if the environment variable names this point.
pub(crate) fn here(point: &'static str) {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let all = || ALL.iter().chain(&LARGE).chain(&HANDED_OFF);
    debug_assert!(
        all().any(|known| *known == point),
        "{point} is no crash point"
    );
    let wanted = WANTED.get_or_init(|| std::env::var("TOWER_OPERATIONS_CRASH_AT").ok());
    if wanted.as_deref() == Some(point) {
        // Nothing is cleaned up, as in a power failure.
        std::process::abort();
    }
}
