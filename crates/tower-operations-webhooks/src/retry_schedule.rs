use std::time::Duration;

/// The default delays in seconds, those that Standard Webhooks 1.0.0 gives as an example.
const DEFAULT: [u64; 10] = [
    0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400,
];

/// The default bound on what a receiver asks for by `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The delays before the attempts to deliver a webhook.
///
/// The default is ten attempts within about 3 days: after 0, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h
/// and 24 h. Each delay is lengthened by a random part of it, up to a fifth, so that webhooks that failed
/// together are not retried together.
///
/// A `Retry-After` of the receiver lengthens a delay, and never shortens it. It counts for at most 24
/// hours ([`max_retry_after`](Self::max_retry_after)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    delays: Box<[Duration]>,
    max_retry_after: Duration,
    has_jitter: bool,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        Self::new(DEFAULT.map(Duration::from_secs))
    }
}

impl RetrySchedule {
    /// Creates a schedule of one attempt for each delay. The first delay counts from the end of the
    /// operation, each other one from the end of the attempt before it.
    #[must_use]
    pub fn new(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self {
            delays: delays.into_iter().collect(),
            max_retry_after: MAX_RETRY_AFTER,
            has_jitter: true,
        }
    }

    /// Sets the longest delay that a `Retry-After` of the receiver can ask for.
    #[must_use]
    pub fn max_retry_after(self, max_retry_after: Duration) -> Self {
        Self {
            max_retry_after,
            ..self
        }
    }

    /// Does not lengthen the delays randomly.
    #[must_use]
    pub fn without_jitter(self) -> Self {
        Self {
            has_jitter: false,
            ..self
        }
    }

    /// Returns the number of attempts.
    #[must_use]
    pub fn max_attempts(&self) -> usize {
        self.delays.len()
    }

    /// Returns the delay before the next attempt, after this number of attempts; `None` if there is no
    /// further one: the delivery is dead.
    ///
    /// # Panics
    /// Panics if the operating system has no randomness.
    #[must_use]
    pub fn next(&self, attempts_made: u32, retry_after: Option<Duration>) -> Option<Duration> {
        let random = getrandom::u64().expect("the operating system has randomness");
        self.next_with(attempts_made, retry_after, random)
    }

    /// Returns what [`next`](Self::next) returns, with this random number, from 0 for no jitter to
    /// `u64::MAX` for a fifth of the delay.
    #[must_use]
    pub fn next_with(
        &self,
        attempts_made: u32,
        retry_after: Option<Duration>,
        random: u64,
    ) -> Option<Duration> {
        let delay = *self.delays.get(usize::try_from(attempts_made).ok()?)?;
        let asked_for = retry_after.unwrap_or_default().min(self.max_retry_after);
        let delay = delay.max(asked_for);
        let jitter = match self.has_jitter {
            true => jitter(delay, random),
            false => Duration::ZERO,
        };
        Some(delay.saturating_add(jitter))
    }
}

/// Returns a part of a fifth of the delay.
fn jitter(delay: Duration, random: u64) -> Duration {
    let fifth = u64::try_from((delay / 5).as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(fifth) * u128::from(random)) >> 64;
    Duration::from_nanos(part as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_default_has_ten_attempts() {
        let schedule = RetrySchedule::default();
        assert_eq!(schedule.max_attempts(), 10);
        for (made, expected) in (0..).zip(DEFAULT.map(seconds)) {
            assert_eq!(schedule.next_with(made, None, 0), Some(expected));
            let longest = schedule.next_with(made, None, u64::MAX).unwrap();
            let rounding = Duration::from_nanos(1);
            assert!(longest <= expected * 6 / 5 && longest + rounding >= expected * 6 / 5);
            let middle = schedule.next_with(made, None, u64::MAX / 2 + 1);
            assert_eq!(middle, Some(expected * 11 / 10));
            let random = schedule.next(made, None).unwrap();
            assert!((expected..=longest).contains(&random));
        }
        for made in [10, 11, u32::MAX] {
            assert_eq!(schedule.next_with(made, Some(seconds(1)), 0), None);
        }
    }

    #[test]
    fn the_receiver_can_ask_for_a_longer_delay() {
        let schedule = RetrySchedule::new([0, 5, 300].map(seconds)).max_retry_after(seconds(3600));
        for (made, asked, expected) in [
            (1, 0, 5),
            (1, 4, 5),
            (1, 6, 6),
            (1, 3600, 3600),
            (1, 3601, 3600),
            (1, u64::MAX, 3600),
            (2, 10, 300),
        ] {
            let delay = schedule.next_with(made, Some(seconds(asked)), 0);
            assert_eq!(delay, Some(seconds(expected)));
        }
        let by_default = RetrySchedule::default().next_with(1, Some(Duration::MAX), 0);
        assert_eq!(by_default, Some(seconds(86_400)));
    }

    #[test]
    fn extreme_delays_do_not_overflow() {
        let schedule = RetrySchedule::new([Duration::MAX]);
        assert_eq!(schedule.next_with(0, None, u64::MAX), Some(Duration::MAX));
        assert_eq!(RetrySchedule::new([]).next_with(0, None, 0), None);
    }

    #[test]
    fn jitter_can_be_left_out() {
        let schedule = RetrySchedule::default().without_jitter();
        assert_eq!(schedule.next_with(1, None, u64::MAX), Some(seconds(5)));
    }
}
