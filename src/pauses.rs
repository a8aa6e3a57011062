//! The pauses between the tries of a call that fails.

use std::time::Duration;

use crate::environment;

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pauses between tries. Each pause is twice the previous one, and is extended by a random
/// part of its half, so that nodes do not retry in step.
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(SHORTEST_PAUSE)
    }
}

impl Pauses {
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        let random = u32::from_ne_bytes(environment::random_bytes());
        let longer = pause.mul_f64(0.5 * f64::from(random) / f64::from(u32::MAX));
        (pause + longer).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        let mut first = Duration::ZERO;
        for _ in 0..50 {
            let mut pauses = Pauses::default();
            for times in 0..20 {
                let shortest = (SHORTEST_PAUSE * 2_u32.pow(times.min(8))).min(LONGEST_PAUSE);
                let pause = pauses.next();
                assert!(pause >= shortest && pause <= LONGEST_PAUSE);
                assert!(pause <= shortest.mul_f64(1.5));
            }
            let next = Pauses(SHORTEST_PAUSE).next();
            assert_ne!(next, first);
            first = next;
        }
    }
}
