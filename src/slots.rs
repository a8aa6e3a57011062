//! Values at stable indices, in chunks that are never moved.
//!
//! A vector that doubles would copy every value while it grows, and would be a quarter empty on
//! average.

use std::ops::{Index, IndexMut};

/// The index of a value.
pub(crate) type Slot = u32;

/// No slots: as many values do not fit into memory.
pub(crate) const NO_SLOT: Slot = Slot::MAX;

/// The number of values in a chunk, a power of two.
const CHUNK: usize = 64;

#[derive(Debug)]
pub(crate) struct Slots<E> {
    /// The first chunk grows as a vector does, so that few values take little memory.
    chunks: Vec<Vec<SlotState<E>>>,
    /// The vacant slot that is taken next.
    vacant: Slot,
    length: usize,
}

#[derive(Debug)]
enum SlotState<E> {
    Occupied(E),
    /// Linked to the next vacant slot.
    Vacant(Slot),
}

impl<E> Default for Slots<E> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            vacant: NO_SLOT,
            length: 0,
        }
    }
}

impl<E> Slots<E> {
    /// Inserts a value, and returns its slot.
    pub(crate) fn insert(&mut self, value: E) -> Slot {
        self.length += 1;
        let slot = self.vacant;
        if let Some(state) = self.state_mut(slot)
            && let SlotState::Vacant(next) = *state
        {
            *state = SlotState::Occupied(value);
            self.vacant = next;
            return slot;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let index = self.chunks.len() - 1;
        let last = &mut self.chunks[index];
        last.push(SlotState::Occupied(value));
        (index * CHUNK + last.len() - 1) as Slot
    }

    /// Removes the value in a slot, if there is one.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<E> {
        let vacant = self.vacant;
        let state = self.state_mut(slot)?;
        if matches!(state, SlotState::Vacant(_)) {
            return None;
        }
        let SlotState::Occupied(value) = std::mem::replace(state, SlotState::Vacant(vacant)) else {
            return None;
        };
        self.vacant = slot;
        self.length -= 1;
        Some(value)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&E> {
        let chunk = self.chunks.get(slot as usize / CHUNK)?;
        match chunk.get(slot as usize % CHUNK)? {
            SlotState::Occupied(value) => Some(value),
            SlotState::Vacant(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut E> {
        match self.state_mut(slot)? {
            SlotState::Occupied(value) => Some(value),
            SlotState::Vacant(_) => None,
        }
    }

    fn state_mut(&mut self, slot: Slot) -> Option<&mut SlotState<E>> {
        let chunk = self.chunks.get_mut(slot as usize / CHUNK)?;
        chunk.get_mut(slot as usize % CHUNK)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &E> {
        self.chunks
            .iter()
            .flatten()
            .filter_map(|state| match state {
                SlotState::Occupied(value) => Some(value),
                SlotState::Vacant(_) => None,
            })
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl<E> Index<Slot> for Slots<E> {
    type Output = E;

    /// # Panics
    /// Panics if there is no value in the slot.
    fn index(&self, slot: Slot) -> &E {
        self.get(slot).expect("the slot is occupied")
    }
}

impl<E> IndexMut<Slot> for Slots<E> {
    /// # Panics
    /// Panics if there is no value in the slot.
    fn index_mut(&mut self, slot: Slot) -> &mut E {
        self.get_mut(slot).expect("the slot is occupied")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Slots behave like a map whose keys they choose.
        #[test]
        fn values_stay_in_their_slots(steps in prop::collection::vec(any::<(bool, u16)>(), 0..400)) {
            let (mut slots, mut model) = (Slots::default(), HashMap::new());
            for (inserts, number) in steps {
                if inserts || model.is_empty() {
                    let slot = slots.insert(number);
                    prop_assert_eq!(model.insert(slot, number), None, "the slot was occupied");
                } else {
                    let slot = *model.keys().nth(usize::from(number) % model.len()).unwrap();
                    prop_assert_eq!(slots.remove(slot), model.remove(&slot));
                    prop_assert_eq!(slots.remove(slot), None);
                }
                prop_assert_eq!(slots.len(), model.len());
            }
            for (slot, value) in &model {
                prop_assert_eq!(slots.get(*slot), Some(value));
                prop_assert_eq!(slots.get_mut(*slot).copied(), Some(*value));
            }
            let mut values: Vec<_> = slots.values().copied().collect();
            let mut expected: Vec<_> = model.into_values().collect();
            values.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(values, expected);
            prop_assert_eq!(slots.get(NO_SLOT), None);
        }
    }
}
