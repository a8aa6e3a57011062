//! Health of a store: whether it is as durable as it promises.

use std::fmt;

/// Known problems that keep a store from being as durable as it promises, as reported by
/// [`Store::health`](super::Store::health).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// One warning per problem; empty if no problem is known.
    pub warnings: Vec<HealthWarning>,
}

impl Health {
    /// Returns the health with these warnings.
    #[must_use]
    pub fn new(warnings: Vec<HealthWarning>) -> Self {
        Self { warnings }
    }

    /// Returns whether no problem is known.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.warnings.is_empty()
    }
}

/// A way in which acknowledged writes can be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthWarning {
    /// A setting of the server that can lose acknowledged writes.
    Setting {
        /// The name of the setting on its server.
        name: Box<str>,
        /// The value of the setting.
        value: Box<str>,
    },
    /// The server is a standby or a replica: it may lag behind, and takes no writes.
    Standby,
    /// The file was removed: its data is lost once the process ends.
    FileRemoved,
    /// Another file has replaced this one: a process that opens the path does not find this
    /// data.
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
