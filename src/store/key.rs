//! What makes two requests the same request, and what a store knows of that.

use std::sync::Arc;

use super::{FencingToken, Owner, Record};

/// What makes two requests the same request: one name, sent by one owner. The same
/// name sent by another owner is another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose it is. A key that is nobody's is apart from everybody's.
    pub owner: Option<Owner>,
    /// What the client sent as its `Idempotency-Key`.
    pub name: Arc<str>,
    /// A digest of the request that came with it.
    pub fingerprint: [u8; 32],
}

/// Begins what is not the bare name of a key that is nobody's.
const MARK: char = '@';

impl IdempotencyKey {
    /// A key of `owner`, or nobody's.
    #[must_use]
    pub fn new(owner: Option<Owner>, name: impl Into<Arc<str>>, fingerprint: [u8; 32]) -> Self {
        Self {
            owner,
            name: name.into(),
            fingerprint,
        }
    }

    /// Owner and name as one text, which is that of no other owner or name: for a
    /// store to file the key under.
    ///
    /// It is the name, if it is nobody's and begins with no `@`; else an `@`, the length
    /// of the owner in bytes with a `:`, the owner, and the name; of nobody only an `@`
    /// and the name.
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

/// What a store knows of an [`IdempotencyKey`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Reservation<T> {
    /// It was free and is reserved now; this token settles or releases it.
    Reserved(FencingToken),
    /// The same request is being answered elsewhere.
    InProgress,
    /// The same request made this operation. The record may lack its result, which
    /// [`Store::get`](super::Store::get) reads.
    Operation(Arc<Record<T>>),
    /// The same request made this operation, which was [forgotten] before it expired.
    ///
    /// [forgotten]: super::Repository::delete
    Deleted(Arc<Record<T>>),
    /// The same request was answered early, with this.
    Answered(Arc<T>),
    /// Another request came with this key.
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
        fn no_two_keys_have_one_scoped_name((one, other) in (key(), key())) {
            prop_assert_eq!(one.scoped_name() == other.scoped_name(), one == other);
        }
    }
}
