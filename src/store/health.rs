//! Whether a store is as durable as it promises to be.

use std::fmt;

/// What is known to keep a store from being as durable as it promises, as
/// [`Store::health`](super::Store::health) found it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// One each; none, if nothing is known.
    pub warnings: Vec<HealthWarning>,
}

impl Health {
    /// What these warnings say.
    #[must_use]
    pub fn new(warnings: Vec<HealthWarning>) -> Self {
        Self { warnings }
    }

    /// Whether nothing is known against it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.warnings.is_empty()
    }
}

/// One way to lose what was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthWarning {
    /// A setting of the server with which what it acknowledged can be lost.
    Setting {
        /// The setting, as its server calls it.
        name: Box<str>,
        /// What it is.
        value: Box<str>,
    },
    /// The server is a standby or a replica: it may be behind, and takes no writes.
    Standby,
    /// The file has no name any more: it is gone with the process.
    FileRemoved,
    /// Another file has its name: whoever opens that does not find what is here.
    FileReplaced,
}

impl fmt::Display for HealthWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { name, value } => write!(f, "`{name}` is `{value}`"),
            Self::Standby => f.write_str("the server is a standby or a replica"),
            Self::FileRemoved => f.write_str("the file was removed while it is in use"),
            Self::FileReplaced => f.write_str("another file has taken the place of this one"),
        }
    }
}
