//! Operations of a shard in the order of a moment that each has: a line of them for each
//! span of time.
//!
//! What has its moment the same span after it came joins its line at the end. The lines
//! lead through the entries themselves: none of this takes memory of its own.

use std::time::Duration;

use slab::Slab;

use super::shard::{Slot, Tick};

/// Lines of what has one kind of moment.
pub(super) struct DeadlineLists {
    /// Different spans are rare: mostly there is one.
    lines: Vec<DeadlineList>,
}

/// What has its moment the same span after it came.
struct DeadlineList {
    span: Duration,
    first: Slot,
    last: Slot,
}

/// The place of an entry in its line.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListLinks {
    before: Slot,
    after: Slot,
}

impl ListLinks {
    /// In no line, or alone in one.
    pub(super) const NONE: Self = Self {
        before: NO_SLOT,
        after: NO_SLOT,
    };
}

/// What stands in a line, one at a time.
pub(super) trait ListEntry {
    /// The moment that the line goes by.
    fn at(&self) -> Tick;
    /// Whether it is somebody's.
    fn is_owned(&self) -> bool;
    fn links(&self) -> ListLinks;
    fn links_mut(&mut self) -> &mut ListLinks;
}

/// No slab of slots this large fits into memory.
const NO_SLOT: Slot = Slot::MAX;

impl DeadlineLists {
    pub(super) fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// What comes first, and when.
    pub(super) fn first<E: ListEntry>(&self, entries: &Slab<E>) -> Option<(Tick, Slot)> {
        let first = |line: &DeadlineList| (entries[line.first as usize].at(), line.first);
        self.lines.iter().map(first).min()
    }

    /// What has its moment by `now`, the first of each line first.
    pub(super) fn until<E: ListEntry>(
        &self,
        entries: &Slab<E>,
        now: Tick,
    ) -> impl Iterator<Item = Slot> {
        self.lines.iter().flat_map(move |line| {
            let follow = |slot: &Slot| {
                let links = entries.get(*slot as usize)?.links();
                Some(links.after).filter(|after| *after != NO_SLOT)
            };
            let slots = std::iter::successors(Some(line.first), follow);
            slots.take_while(move |slot| entries[*slot as usize].at() <= now)
        })
    }

    /// Puts an entry into the line of what comes after `span`; true if it is the first of
    /// it.
    pub(super) fn insert<E: ListEntry>(
        &mut self,
        entries: &mut Slab<E>,
        slot: Slot,
        span: Duration,
    ) -> bool {
        let at = entries[slot as usize].at();
        let line = self.lines.iter_mut().find(|line| line.span == span);
        let before = line.as_ref().map_or(NO_SLOT, |line| {
            // Mostly the last one: whose clock was read first is not always here first.
            let mut before = line.last;
            while let Some(entry) = entries.get(before as usize)
                && entry.at() > at
            {
                before = entry.links().before;
            }
            before
        });
        let after = match (entries.get(before as usize), &line) {
            (Some(entry), _) => entry.links().after,
            (None, Some(line)) => line.first,
            (None, None) => NO_SLOT,
        };
        *entries[slot as usize].links_mut() = ListLinks { before, after };
        let (mut first, mut last) = (slot, slot);
        if let Some(before) = entries.get_mut(before as usize) {
            before.links_mut().after = slot;
            first = line.as_ref().map_or(slot, |line| line.first);
        }
        if let Some(after) = entries.get_mut(after as usize) {
            after.links_mut().before = slot;
            last = line.as_ref().map_or(slot, |line| line.last);
        }
        match line {
            Some(line) => (line.first, line.last) = (first, last),
            None => self.lines.push(DeadlineList { span, first, last }),
        }
        first == slot
    }

    /// Takes an entry out of its line, if it is in one; true if it was the first of it.
    pub(super) fn remove<E: ListEntry>(&mut self, entries: &mut Slab<E>, slot: Slot) -> bool {
        let links = std::mem::replace(entries[slot as usize].links_mut(), ListLinks::NONE);
        match (links.before, links.after) {
            (NO_SLOT, NO_SLOT) => {
                let alone = self.lines.iter().position(|line| line.first == slot);
                alone.map(|index| self.lines.swap_remove(index)).is_some()
            }
            (NO_SLOT, after) => {
                entries[after as usize].links_mut().before = NO_SLOT;
                if let Some(line) = self.lines.iter_mut().find(|line| line.first == slot) {
                    line.first = after;
                }
                true
            }
            (before, after) => {
                entries[before as usize].links_mut().after = after;
                match entries.get_mut(after as usize) {
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

    /// Whether nothing stands in a line.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
