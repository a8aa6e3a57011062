use super::{FencingToken, Version};

/// The identity of an operation at one version of one holder.
///
/// Operations that have the same id one after another never have the same stamp, since each is
/// created with a [random token](FencingToken::random). So a change that names a stamp cannot hit a
/// later operation with this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stamp {
    /// The version.
    pub version: Version,
    /// The token of the latest holder.
    pub token: FencingToken,
}

impl Stamp {
    /// Returns the stamp of this version and token.
    #[must_use]
    pub fn new(version: Version, token: FencingToken) -> Self {
        Self { version, token }
    }
}
