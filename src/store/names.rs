use std::{fmt, num::NonZeroU64, sync::Arc};

use crate::environment::random_bytes;

/// Counts the changes of an operation, starting at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(NonZeroU64);

impl Version {
    /// The version of a newly created operation.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// Returns the version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the version as a number, starting at 1.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// Returns the version with this number, or `None` for 0.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies the latest holder of an operation's lease: a write with an older token is
/// refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(
    /// Stored as number + 1 so that `Option<FencingToken>` has a niche.
    NonZeroU64,
);

impl FencingToken {
    /// The token of an operation without a holder.
    pub const NONE: Self = Self(NonZeroU64::MIN);

    /// Returns a unique token of 62 bits, so that the token and its successors fit into a
    /// signed number.
    #[must_use]
    pub fn random() -> Self {
        Self::from_number(u64::from_ne_bytes(random_bytes()) & (u64::MAX >> 2))
    }

    /// Returns the token that fences this one out.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the token as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get() - 1
    }

    /// Returns the token with this number. No token has the number `u64::MAX`; it becomes
    /// `u64::MAX - 1`.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(number))
    }
}

impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FencingToken").field(&self.get()).finish()
    }
}

/// The name of one running instance of the application: one process, or one layer with its
/// clones. A restart is another node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Returns a node with a unique generated name.
    #[must_use]
    #[allow(clippy::new_without_default)] // a default value would have to be a constant
    pub fn new() -> Self {
        let name = uuid::Builder::from_random_bytes(random_bytes()).into_uuid();
        Self(name.to_string().into())
    }

    /// Returns a node with the given name. The name must differ from that of every other node,
    /// and of every earlier start of this node.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The owner of an operation. An operation without an owner is accessible only to requests
/// without an owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(Arc<str>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Owner {
    /// Returns an owner with the name that the application uses.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
