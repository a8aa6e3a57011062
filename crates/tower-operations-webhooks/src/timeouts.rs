use std::time::Duration;

use tokio::time::Instant;

/// A time-out that never ends an exchange.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Returns the time at which a time-out that begins now ends. A time-out may have any length.
pub(crate) fn after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(NEVER)
}
