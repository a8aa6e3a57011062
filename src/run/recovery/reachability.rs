//! Reachability of the store: whether live nodes have had the time to renew their leases.

use std::time::Duration;

use tokio::time::Instant;

/// The period for which the store has been reachable from here, without a gap in which leases of
/// live nodes could have expired.
pub(super) struct Reachability {
    term: Duration,
    /// The start of the period, and the last answer.
    known: Option<(Instant, Instant)>,
}

impl Reachability {
    pub(super) fn new(term: Duration) -> Self {
        Self { term, known: None }
    }

    pub(super) fn did_not_answer(&mut self) {
        self.known = None;
    }

    /// Notes an answer, and returns whether the store has been reachable for a whole term.
    ///
    /// The last renewal of a live node is at most a third of a term before an outage, and its
    /// next renewal at most a third after the outage. The gap between two answers may therefore
    /// be the remaining third.
    pub(super) fn answered(&mut self) -> bool {
        let now = Instant::now();
        let since = match self.known {
            Some((since, last)) if now - last <= self.term / 3 => since,
            _ => now,
        };
        self.known = Some((since, now));
        now - since >= self.term
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_gap_between_two_answers_counts_as_an_outage() {
        let mut store = Reachability::new(30 * SECOND);
        for gap in [10, 11, 60] {
            store.did_not_answer();
            let mut answers = 0;
            while !store.answered() {
                answers += 1;
                advance(7 * SECOND).await;
            }
            assert!(answers >= 4, "it was trusted after {answers} answers");
            advance(gap * SECOND).await;
            assert_eq!(store.answered(), gap <= 10, "after {gap} s");
        }
        store.did_not_answer();
        assert!(!store.answered());
    }
}
