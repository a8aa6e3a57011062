use std::time::Duration;

/// The delay before the next poll, by the age of the operation.
///
/// The delay is sent as `Retry-After` (RFC 9110, section 10.2.3) in whole seconds, rounded
/// up and at least 1. Every closure from an age to a duration implements this trait.
///
/// ```
/// use std::time::Duration;
/// use tower_operations::{MemoryStore, Operations};
///
/// let operations = Operations::new(MemoryStore::new())
///     .retry_after(|age: Duration| if age < Duration::from_secs(60) { Duration::from_secs(2) } else { age / 10 });
/// ```
pub trait RetryAfter: Send + Sync + 'static {
    /// Returns how long a client should wait before it polls an operation again that was
    /// accepted `age` ago.
    fn retry_after(&self, age: Duration) -> Duration;
}

impl<F: Fn(Duration) -> Duration + Send + Sync + 'static> RetryAfter for F {
    fn retry_after(&self, age: Duration) -> Duration {
        self(age)
    }
}

/// The default delay: a quarter of the operation's age, from 1 to 30 seconds.
///
/// A client that follows this delay polls about ten times in the first half minute and
/// twice a minute from the second minute on.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdaptiveRetryAfter;

impl RetryAfter for AdaptiveRetryAfter {
    fn retry_after(&self, age: Duration) -> Duration {
        (age / 4).clamp(Duration::from_secs(1), Duration::from_secs(30))
    }
}

/// Returns `span` as the whole seconds of a `Retry-After`: rounded up, at least 1.
pub(crate) fn whole_seconds(span: Duration) -> u64 {
    span.as_secs()
        .saturating_add(u64::from(span.subsec_nanos() > 0))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_delays_grow_from_1_to_30_seconds() {
        for (age, seconds) in [(0, 1), (4, 1), (5, 2), (40, 10), (120, 30), (100_000, 30)] {
            let span = AdaptiveRetryAfter.retry_after(Duration::from_secs(age));
            assert_eq!(whole_seconds(span), seconds, "at {age} s");
        }
    }

    #[test]
    fn default_delays_lead_to_few_polls() {
        let asked_by = |until: u64| {
            let (mut age, mut asked) = (0, 0);
            while age < until {
                age += whole_seconds(AdaptiveRetryAfter.retry_after(Duration::from_secs(age)));
                asked += 1;
            }
            asked
        };
        assert!((8..=12).contains(&asked_by(30)), "{}", asked_by(30));
        assert!(asked_by(600) - asked_by(120) <= 16);
    }

    #[test]
    fn delays_are_rounded_up_and_never_0() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (1500, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }
}
