//! Entries in the order of a deadline: one list for each span of time.
//!
//! An entry whose deadline is the list's span after its insertion is appended to that list.
//! The lists are linked through the entries themselves, so they take no memory of their
//! own.

use std::time::Duration;

use crate::slots::{NO_SLOT, Slot, Slots};

/// The lists for one kind of deadline.
#[derive(Debug, Default)]
pub(crate) struct DeadlineLists {
    /// One list per span. Usually there is only one.
    lines: Vec<DeadlineList>,
}

/// The entries with the same span between insertion and deadline.
#[derive(Debug)]
struct DeadlineList {
    span: Duration,
    first: Slot,
    last: Slot,
}

/// The links of an entry in its list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListLinks {
    before: Slot,
    after: Slot,
}

impl ListLinks {
    /// The links of an entry that is in no list, or alone in one.
    pub(crate) const NONE: Self = Self {
        before: NO_SLOT,
        after: NO_SLOT,
    };
}

/// An entry that can be in one list at a time.
pub(crate) trait ListEntry {
    /// A moment.
    type Moment: Copy + Ord;

    /// Returns the deadline that the list is ordered by.
    fn at(&self) -> Self::Moment;
    fn links(&self) -> ListLinks;
    fn links_mut(&mut self) -> &mut ListLinks;
}

impl DeadlineLists {
    /// Returns the earliest deadline and its slot.
    pub(crate) fn first<E: ListEntry>(&self, entries: &Slots<E>) -> Option<(E::Moment, Slot)> {
        let first = |line: &DeadlineList| (entries[line.first].at(), line.first);
        self.lines.iter().map(first).min()
    }

    /// Returns the slots with a deadline up to `now`, each list in order.
    pub(crate) fn until<E: ListEntry>(
        &self,
        entries: &Slots<E>,
        now: E::Moment,
    ) -> impl Iterator<Item = Slot> {
        self.lines.iter().flat_map(move |line| {
            let follow = |slot: &Slot| {
                let links = entries.get(*slot)?.links();
                Some(links.after).filter(|after| *after != NO_SLOT)
            };
            let slots = std::iter::successors(Some(line.first), follow);
            slots.take_while(move |slot| entries[*slot].at() <= now)
        })
    }

    /// Inserts an entry into the list for `span`. Returns true if the entry is now the
    /// first of the list.
    pub(crate) fn insert<E: ListEntry>(
        &mut self,
        entries: &mut Slots<E>,
        slot: Slot,
        span: Duration,
    ) -> bool {
        let at = entries[slot].at();
        let line = self.lines.iter_mut().find(|line| line.span == span);
        let before = line.as_ref().map_or(NO_SLOT, |line| {
            // The entry usually becomes the last one. Threads can read the clock in another
            // order than they insert, so the place is searched from the end.
            let mut before = line.last;
            while let Some(entry) = entries.get(before)
                && entry.at() > at
            {
                before = entry.links().before;
            }
            before
        });
        let after = match (entries.get(before), &line) {
            (Some(entry), _) => entry.links().after,
            (None, Some(line)) => line.first,
            (None, None) => NO_SLOT,
        };
        *entries[slot].links_mut() = ListLinks { before, after };
        let (mut first, mut last) = (slot, slot);
        if let Some(before) = entries.get_mut(before) {
            before.links_mut().after = slot;
            first = line.as_ref().map_or(slot, |line| line.first);
        }
        if let Some(after) = entries.get_mut(after) {
            after.links_mut().before = slot;
            last = line.as_ref().map_or(slot, |line| line.last);
        }
        match line {
            Some(line) => (line.first, line.last) = (first, last),
            None => self.lines.push(DeadlineList { span, first, last }),
        }
        first == slot
    }

    /// Removes an entry from its list, if it is in one. Returns true if it was the first of
    /// the list.
    pub(crate) fn remove<E: ListEntry>(&mut self, entries: &mut Slots<E>, slot: Slot) -> bool {
        let links = std::mem::replace(entries[slot].links_mut(), ListLinks::NONE);
        match (links.before, links.after) {
            (NO_SLOT, NO_SLOT) => {
                let alone = self.lines.iter().position(|line| line.first == slot);
                alone.map(|index| self.lines.swap_remove(index)).is_some()
            }
            (NO_SLOT, after) => {
                entries[after].links_mut().before = NO_SLOT;
                if let Some(line) = self.lines.iter_mut().find(|line| line.first == slot) {
                    line.first = after;
                }
                true
            }
            (before, after) => {
                entries[before].links_mut().after = after;
                match entries.get_mut(after) {
                    Some(after) => after.links_mut().before = before,
                    None => {
                        if let Some(line) = self.lines.iter_mut().find(|line| line.last == slot) {
                            line.last = before;
                        }
                    }
                }
                false
            }
        }
    }

    /// Returns whether all lists are empty.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
