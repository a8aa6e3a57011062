//! Idempotency keys, and the state that a store keeps for each.

use std::sync::Arc;

use super::{FencingToken, Owner, Record};

/// The identity of repeated requests: one name, sent by one owner. The same name sent by another
/// owner is a different key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The owner of the key. A key without an owner differs from the keys of all owners.
    pub owner: Option<Owner>,
    /// The `Idempotency-Key` that the client sent.
    pub name: Arc<str>,
    /// A digest of the request that carried the key.
    pub fingerprint: [u8; 32],
}

/// The first character of every scoped name, except the plain names of keys without an owner.
const MARK: char = '@';

impl IdempotencyKey {
    /// Returns a key of `owner`, or a key without an owner.
    #[must_use]
    pub fn new(owner: Option<Owner>, name: impl Into<Arc<str>>, fingerprint: [u8; 32]) -> Self {
        Self {
            owner,
            name: name.into(),
            fingerprint,
        }
    }

    /// Returns owner and name as one text, unique to them, under which a store can file the
    /// key.
    ///
    /// With an owner, the text is an `@`, the length of the owner in bytes with a `:`, the
    /// owner, and the name. Without an owner, the text is the name, with an `@` in front if
    /// the name begins with `@`.
    ///
    /// ```
    /// use tower_operations::store::{IdempotencyKey, Owner};
    ///
    /// let name = |owner: Option<&str>, name: &str| {
    ///     let owner = owner.map(Owner::new);
    ///     IdempotencyKey::new(owner, name, [0; 32]).scoped_name().to_string()
    /// };
    /// assert_eq!(name(None, "order 7"), "order 7");
    /// assert_eq!(name(Some("ada"), "order 7"), "@3:adaorder 7");
    /// assert_eq!(name(None, "@3:adaorder 7"), "@@3:adaorder 7");
    /// ```
    #[must_use]
    pub fn scoped_name(&self) -> Arc<str> {
        let name = &*self.name;
        match &self.owner {
            Some(owner) => {
                let owner = owner.as_str();
                format!("{MARK}{}:{owner}{name}", owner.len()).into()
            }
            None if name.starts_with(MARK) => format!("{MARK}{name}").into(),
            None => Arc::clone(&self.name),
        }
    }
}

/// The state of an [`IdempotencyKey`] in a store.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reservation<T> {
    /// The key was free and is now reserved. This token completes or releases the
    /// reservation.
    Reserved(FencingToken),
    /// The same request is being answered elsewhere.
    InProgress,
    /// The same request created this operation. The record may lack its result;
    /// [`Store::get`](super::Store::get) reads the result.
    Operation(Record<T>),
    /// The same request created this operation, which was [deleted] before it expired.
    ///
    /// [deleted]: super::Repository::delete
    Deleted(Record<T>),
    /// The same request was answered early, with this answer.
    Answered(Arc<T>),
    /// A different request came with this key.
    Mismatch,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = IdempotencyKey> {
        let text = || "[@:0-3a]{0,6}";
        (proptest::option::of(text()), text())
            .prop_map(|(owner, name)| IdempotencyKey::new(owner.map(Owner::new), name, [0; 32]))
    }

    proptest! {
        #[test]
        fn different_keys_have_different_scoped_names((one, other) in (key(), key())) {
            prop_assert_eq!(one.scoped_name() == other.scoped_name(), one == other);
        }
    }
}
