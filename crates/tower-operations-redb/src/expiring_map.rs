//! A map with entries that expire: leases, and reservations of keys.
//!
//! The entries belong to this process alone. The process that opens the file is its only user,
//! so no earlier holder of a lease or a reservation exists any more. Because the map is in
//! memory, a renewal costs no write, and the clock is monotonic.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    time::{Duration, Instant},
};

/// Values by name, each with an end.
#[derive(Debug)]
pub(super) struct ExpiringMap<K, V> {
    entries: HashMap<K, ExpiringEntry<V>>,
    ending: BTreeSet<(Instant, K)>,
    /// The former entries of all names set since the last commit.
    before: Vec<(K, Option<ExpiringEntry<V>>)>,
}

#[derive(Debug, Clone)]
pub(super) struct ExpiringEntry<V> {
    pub(super) until: Instant,
    pub(super) value: V,
}

impl<V> ExpiringEntry<V> {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }
}

impl<K, V> Default for ExpiringMap<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            ending: BTreeSet::new(),
            before: Vec::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord, V> ExpiringMap<K, V> {
    pub(super) fn get(&self, name: &K) -> Option<&ExpiringEntry<V>> {
        self.entries.get(name)
    }

    /// Replaces the entry of `name`; [`undo`](Self::undo) reverts it.
    pub(super) fn set(&mut self, name: &K, next: Option<ExpiringEntry<V>>) {
        let before = self.place(name, next);
        self.before.push((name.clone(), before));
    }

    /// Makes the changes final.
    pub(super) fn keep(&mut self) {
        self.before.clear();
    }

    /// Reverts all changes since the last [`keep`](Self::keep).
    pub(super) fn undo(&mut self) {
        while let Some((name, before)) = self.before.pop() {
            self.place(&name, before);
        }
    }

    /// Returns the entries that expired by `now`, the oldest first.
    pub(super) fn over(&self, now: Instant) -> impl Iterator<Item = (&K, &V)> {
        let over = self
            .ending
            .iter()
            .take_while(move |(until, _)| *until <= now);
        over.filter_map(|(_, name)| Some((name, &self.entries.get(name)?.value)))
    }

    /// Keeps only the entries for which `keeps` is true.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&K, &ExpiringEntry<V>) -> bool) {
        self.entries.retain(|name, entry| {
            let stays = keeps(name, entry);
            if !stays {
                self.ending.remove(&(entry.until, name.clone()));
            }
            stays
        });
    }

    fn place(&mut self, name: &K, next: Option<ExpiringEntry<V>>) -> Option<ExpiringEntry<V>> {
        let until = next.as_ref().map(|entry| entry.until);
        let before = match next {
            Some(entry) => self.entries.insert(name.clone(), entry),
            None => self.entries.remove(name),
        };
        if let Some(before) = &before {
            self.ending.remove(&(before.until, name.clone()));
        }
        if let Some(until) = until {
            self.ending.insert((until, name.clone()));
        }
        before
    }
}

/// Returns `now` + `term`; a term beyond the range of the clock lasts for a lifetime.
pub(super) fn until(now: Instant, term: Duration) -> Instant {
    const LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now.checked_add(term).unwrap_or_else(|| now + LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undone_changes_leave_no_trace() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let entry = |seconds, value| {
            Some(ExpiringEntry {
                until: at(seconds),
                value,
            })
        };
        let mut terms = ExpiringMap::default();
        terms.set(&"a", entry(3, 1));
        terms.set(&"b", entry(2, 2));
        terms.keep();
        terms.set(&"a", entry(1, 3));
        terms.set(&"a", None);
        terms.set(&"b", None);
        terms.set(&"c", entry(1, 4));
        assert_eq!(terms.over(at(9)).collect::<Vec<_>>(), [(&"c", &4)]);
        terms.undo();
        let both = [(&"b", &2), (&"a", &1)];
        assert_eq!(terms.over(at(9)).collect::<Vec<_>>(), both);
        assert_eq!(terms.over(at(2)).collect::<Vec<_>>(), [(&"b", &2)]);
        assert_eq!(terms.get(&"a").map(|entry| entry.value), Some(1));
        assert!(terms.get(&"c").is_none());
        terms.retain(|name, _| *name == "a");
        assert_eq!(terms.over(at(9)).collect::<Vec<_>>(), [(&"a", &1)]);
    }

    #[test]
    fn terms_may_exceed_the_range_of_the_clock() {
        let now = Instant::now();
        assert!(until(now, Duration::MAX) > now + Duration::from_secs(60));
    }
}
