//! The share of the store that one owner may use, so that none shuts the others out.

use super::{MemoryStore, eviction::NeededRoom, limits::Limits};

/// The limits of one owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnerShare {
    operations: usize,
    bytes: usize,
}

/// The number of operations and bytes of one owner.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OwnerUsage {
    pub(super) operations: usize,
    pub(super) bytes: usize,
}

impl OwnerUsage {
    /// Returns the usage without an operation of `bytes`.
    fn without(self, bytes: usize) -> Self {
        Self {
            operations: self.operations.saturating_sub(1),
            bytes: self.bytes.saturating_sub(bytes),
        }
    }
}

impl OwnerShare {
    #[cfg(test)]
    pub(super) const ALL: Self = Self {
        operations: usize::MAX,
        bytes: usize::MAX,
    };

    /// Returns whether one more operation of `bytes` fits.
    pub(super) fn has(self, used: OwnerUsage, bytes: usize) -> bool {
        used.operations < self.operations && self.has_bytes(used, bytes)
    }

    /// Returns whether `bytes` more fit.
    pub(super) fn has_bytes(self, used: OwnerUsage, bytes: usize) -> bool {
        used.bytes.saturating_add(bytes) <= self.bytes
    }
}

impl<T> Limits<T> {
    pub(super) fn share(&self) -> OwnerShare {
        let operations = self.max_operations_per_owner;
        let bytes = self.max_bytes_per_owner;
        OwnerShare {
            operations: operations.unwrap_or(self.max_operations.div_ceil(4)),
            bytes: bytes.unwrap_or(self.max_bytes.div_ceil(4)),
        }
    }
}

impl<T> MemoryStore<T> {
    /// Returns the usage of the owner. Entries without an owner have one only if owners are
    /// known.
    pub(super) fn used_share(&self, wanted: NeededRoom<'_>) -> Option<OwnerUsage> {
        let room = &self.shared.room;
        match wanted.owner {
            Some(owner) => Some(room.ledger.used(owner)),
            None => room.knows_owners().then(|| room.unowned()),
        }
    }

    /// Returns whether the owner's share has room for a key. The room for the key is already
    /// reserved in the whole store, where it counts as bytes without an owner.
    pub(super) fn has_bytes_in_share(&self, wanted: NeededRoom<'_>) -> bool {
        let taken = match wanted.owner {
            Some(_) => wanted.weight,
            None => 0,
        };
        let used = self.used_share(wanted);
        used.is_none_or(|used| self.limits.share().has_bytes(used, taken))
    }

    /// Returns whether the share of entries without an owner has room for an operation.
    /// `is_taken` tells whether its room in the whole store is already reserved.
    pub(super) fn has_unowned_share(&self, weight: usize, is_taken: bool) -> bool {
        let room = &self.shared.room;
        if !room.knows_owners() {
            return true;
        }
        let used = match is_taken {
            true => room.unowned().without(weight),
            false => room.unowned(),
        };
        self.limits.share().has(used, weight)
    }
}
