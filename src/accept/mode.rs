//! The choice between a direct answer and an operation, and the fields of the response that report
//! it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header::VARY};
use tokio::time::Instant;

use crate::dialect::Preferences;

/// The mode that the application chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    #[default]
    Always,
    Preferred,
    After(Duration),
    Signaled,
}

/// The decision for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The answer of the service, however long it takes.
    Pass,
    /// A 202 at once.
    Now,
    /// The answer if it comes in time, otherwise a 202.
    After(Duration),
    /// The handler decides.
    Signaled,
}

impl Decision {
    /// Returns the time at which a request that is complete now is accepted, if it has no answer
    /// by then. The time counts from here (RFC 7240, section 4.3), so that a slow look-up of a
    /// key does not prolong it.
    pub(super) fn accept_at(self) -> Option<Instant> {
        match self {
            Self::After(limit) => Instant::now().checked_add(limit),
            Self::Pass | Self::Now | Self::Signaled => None,
        }
    }
}

impl Mode {
    /// Decides for one request. `wait` only bounds the time of requests that become
    /// asynchronous anyway, up to `max_wait`. With `needs_preference` only requests that
    /// prefer it become asynchronous.
    pub(super) fn decide(
        self,
        preferences: Preferences,
        max_wait: Duration,
        needs_preference: bool,
    ) -> (Decision, AppliedPreferences) {
        let (way, mut preferred) = self.chosen(preferences, max_wait);
        if !needs_preference {
            return (way, preferred);
        }
        preferred.matters = true;
        preferred.respond_async = preferences.respond_async();
        match preferences.respond_async() {
            true => (way, preferred),
            false => {
                preferred.wait = None;
                (Decision::Pass, preferred)
            }
        }
    }

    fn chosen(
        self,
        preferences: Preferences,
        max_wait: Duration,
    ) -> (Decision, AppliedPreferences) {
        let wait = preferences.stated_wait().filter(|wait| match self {
            // In this mode zero seconds mean no wait, and change nothing.
            Self::Always => !wait.is_zero(),
            Self::Preferred => !wait.is_zero() && preferences.respond_async(),
            Self::After(_) => true,
            Self::Signaled => false,
        });
        let bounded = wait.map(|wait| wait.min(max_wait));
        let way = match (self, bounded) {
            (Self::Preferred, _) if !preferences.respond_async() => Decision::Pass,
            (Self::Always | Self::Preferred, None) => Decision::Now,
            (Self::Always | Self::Preferred, Some(wait)) => Decision::After(wait),
            (Self::After(_), Some(Duration::ZERO)) => Decision::Now,
            (Self::After(limit), wait) => {
                Decision::After(wait.map_or(limit, |wait| wait.min(limit)))
            }
            (Self::Signaled, _) => Decision::Signaled,
        };
        let honoured = match way {
            Decision::After(limit) => limit,
            Decision::Pass | Decision::Now | Decision::Signaled => Duration::ZERO,
        };
        // A wait that is cut to less than a second cannot be reported in seconds.
        let is_said = |wait: &Duration| wait.is_zero() || honoured.as_secs() > 0;
        let wait = wait.filter(is_said).map(|_| honoured);
        let matters = self != Self::Signaled;
        let respond_async = matters && preferences.respond_async();
        (
            way,
            AppliedPreferences {
                matters,
                respond_async,
                wait,
            },
        )
    }
}

/// The kind of a response, as far as preferences are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyKind {
    /// The request was accepted.
    Accepted,
    /// The response of the inner service.
    Direct,
    /// The response of the inner service to an earlier request.
    Replayed,
    /// A refusal, which follows no preference.
    Refused,
}

/// The preferences that a response reports as applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct AppliedPreferences {
    /// Whether another `Prefer` could have led to another response.
    matters: bool,
    respond_async: bool,
    /// The wait that the client asked for, as far as it was honoured.
    wait: Option<Duration>,
}

static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

const BY_PREFER: HeaderValue = HeaderValue::from_static("Prefer");
const RESPOND_ASYNC: HeaderValue = HeaderValue::from_static("respond-async");

/// Returns a header value of words and numbers, which are always valid there.
fn applied(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(RESPOND_ASYNC)
}

impl AppliedPreferences {
    /// Returns whether the duration of the answer is relevant.
    pub(super) fn has_wait(self) -> bool {
        self.wait.is_some()
    }

    /// Adds `Vary: Prefer` where the response depends on the preferences, and
    /// `Preference-Applied` (RFC 7240, section 3) with the honoured ones: `respond-async` on a
    /// 202; `wait` on an answer that came within the wait, and on a 202 that was sent after the
    /// whole wait. `ago` is the time since the request came. The inner service may have honoured
    /// other preferences.
    pub(super) fn mark(self, headers: &mut HeaderMap, reply: ReplyKind, ago: Duration) {
        if !self.matters {
            return;
        }
        headers.append(VARY, BY_PREFER);
        let wait = self.wait.filter(|wait| match reply {
            ReplyKind::Accepted => ago >= *wait,
            ReplyKind::Direct => true,
            ReplyKind::Replayed | ReplyKind::Refused => false,
        });
        let respond_async = self.respond_async && reply == ReplyKind::Accepted;
        let applied = match (respond_async, wait.map(|wait| wait.as_secs())) {
            (false, None) => return,
            (true, None) => RESPOND_ASYNC,
            (false, Some(wait)) => applied(format!("wait={wait}")),
            (true, Some(wait)) => applied(format!("respond-async, wait={wait}")),
        };
        headers.append(&PREFERENCE_APPLIED, applied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(when: Mode, prefer: &'static str) -> (Decision, String) {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", HeaderValue::from_static(prefer));
        let cap = Duration::from_secs(30);
        let (way, preferred) = when.decide(Preferences::from_headers(&headers), cap, false);
        let mut marked = HeaderMap::new();
        preferred.mark(&mut marked, ReplyKind::Accepted, cap);
        let applied = marked
            .get("preference-applied")
            .map_or("", |value| value.to_str().unwrap());
        assert_eq!(marked.contains_key("vary"), when != Mode::Signaled);
        (way, applied.into())
    }

    #[test]
    fn requests_without_the_preference_pass_through_where_the_dialect_needs_it() {
        let cap = Duration::from_secs(30);
        for when in [
            Mode::Always,
            Mode::Preferred,
            Mode::Signaled,
            Mode::After(cap),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", HeaderValue::from_static("wait=3"));
            let (way, _) = when.decide(Preferences::from_headers(&headers), cap, true);
            assert_eq!(way, Decision::Pass, "{when:?}");
            headers.append("prefer", HeaderValue::from_static("respond-async"));
            let (way, preferred) = when.decide(Preferences::from_headers(&headers), cap, true);
            assert_ne!(way, Decision::Pass, "{when:?}");
            let mut marked = HeaderMap::new();
            preferred.mark(&mut marked, ReplyKind::Accepted, cap);
            let applied = marked["preference-applied"].to_str().unwrap();
            assert!(applied.starts_with("respond-async"), "{when:?}: {applied}");
            assert_eq!(marked["vary"], "Prefer");
        }
    }

    #[test]
    fn wait_only_bounds_requests_that_become_asynchronous_anyway() {
        let seconds = Duration::from_secs;
        let after = Mode::After(seconds(5));
        for (when, prefer, expected, applied) in [
            (Mode::Always, "", Decision::Now, ""),
            (
                Mode::Always,
                "respond-async",
                Decision::Now,
                "respond-async",
            ),
            (Mode::Always, "wait=0", Decision::Now, ""),
            (
                Mode::Always,
                "wait=3",
                Decision::After(seconds(3)),
                "wait=3",
            ),
            (
                Mode::Always,
                "wait=99",
                Decision::After(seconds(30)),
                "wait=30",
            ),
            (
                Mode::Always,
                "wait=99999999999999999999",
                Decision::After(seconds(30)),
                "wait=30",
            ),
            (
                Mode::Preferred,
                "respond-async, wait=0",
                Decision::Now,
                "respond-async",
            ),
            (Mode::Preferred, "", Decision::Pass, ""),
            (Mode::Preferred, "wait=3", Decision::Pass, ""),
            (
                Mode::Preferred,
                "respond-async",
                Decision::Now,
                "respond-async",
            ),
            (
                Mode::Preferred,
                "respond-async, wait=3",
                Decision::After(seconds(3)),
                "respond-async, wait=3",
            ),
            (after, "", Decision::After(seconds(5)), ""),
            (after, "wait=3", Decision::After(seconds(3)), "wait=3"),
            (after, "wait=9", Decision::After(seconds(5)), "wait=5"),
            (after, "wait=0", Decision::Now, "wait=0"),
            (after, "wait=x", Decision::After(seconds(5)), ""),
            (
                Mode::After(Duration::from_millis(500)),
                "wait=9",
                Decision::After(Duration::from_millis(500)),
                "",
            ),
            (
                Mode::Signaled,
                "respond-async, wait=3",
                Decision::Signaled,
                "",
            ),
        ] {
            assert_eq!(
                way(when, prefer),
                (expected, applied.into()),
                "{when:?} {prefer:?}"
            );
        }
    }
}
