//! The digest of a recorded body, computed without holding up a thread of the runtime.

use crate::{
    environment,
    operation::{BodyDigest, RecordedResponse},
};

/// The length in bytes up to which a body is digested at once. The digest of a longer body would
/// keep the thread from other work for too long.
const AT_ONCE: usize = 1 << 20;

/// Returns the digest of a body, if it is known or soon computed.
pub(crate) fn digest_now(recorded: &RecordedResponse) -> Option<BodyDigest> {
    let known = recorded.known_digest();
    match recorded.body_len() <= AT_ONCE {
        true => known.or_else(|| recorded.digest()),
        false => known,
    }
}

/// Returns the digest of a body. That of a long body is computed on a thread that may be blocked.
/// `None` if neither the body nor its digest was read.
pub(crate) async fn digest(recorded: &RecordedResponse) -> Option<BodyDigest> {
    let now = digest_now(recorded);
    if now.is_some() {
        return now;
    }
    let body = recorded.clone();
    let computed = environment::spawn_blocking(move || body.digest());
    // The runtime is shutting down if it ran no more task.
    computed.await.unwrap_or_else(|_| recorded.digest())
}
