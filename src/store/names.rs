use std::{fmt, num::NonZeroU64, sync::Arc};

/// Counts the changes of one operation, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(NonZeroU64);

impl Version {
    /// The version an operation is created with.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The version as a number, from 1.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The version with this number; 0 is none.
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

/// Says which holder of an operation's lease is the latest: a write with an
/// older token is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(
    /// One more than its number, so that no token takes no room of its own.
    NonZeroU64,
);

impl FencingToken {
    /// The token of what nobody holds.
    pub const NONE: Self = Self(NonZeroU64::MIN);

    /// A token that nobody else has: of 62 bits, so that it and those after it
    /// fit into a signed number.
    #[must_use]
    pub fn random() -> Self {
        // All but the version and the variant is random.
        Self::from_number(uuid::Uuid::new_v4().as_u64_pair().1 & (u64::MAX >> 2))
    }

    /// The token that fences this one out.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The token as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get() - 1
    }

    /// The token with this number; `u64::MAX` is none, and becomes the one before.
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

/// Names one running instance of the application: one process, or one layer
/// with its clones. A restart is another node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node that no other has the name of.
    #[must_use]
    #[allow(clippy::new_without_default)] // a default value would have to be a constant
    pub fn new() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// A node with a name of yours. It must differ from that of every other
    /// node, and of every earlier start of this one.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whose operation it is. An operation without an owner is nobody's, which is
/// not the same as everybody's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(Arc<str>);

impl Owner {
    /// An owner by the name that the application knows it under.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
