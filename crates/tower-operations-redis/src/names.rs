//! The names in the server.

use std::fmt::Write;

use tower_operations::{operation::OperationId, store::Owner};

use super::RedisError;

/// The maximum length of a prefix in bytes.
const MAX_PREFIX: usize = 64;

/// The prefix of all names, with its trailing `/`.
///
/// No prefix contains a `/`, so no name belongs to two prefixes.
#[derive(Debug, Clone)]
pub(super) struct RedisNames(Box<str>);

impl RedisNames {
    pub(super) fn new(prefix: &str) -> Result<Self, RedisError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(allowed) {
            return Err(RedisError::Prefix);
        }
        Ok(Self(format!("{prefix}/").into()))
    }

    pub(super) fn prefix(&self) -> &str {
        &self.0
    }

    /// Returns the name of the cell of an operation, with a hash tag of its own.
    pub(super) fn cell(&self, id: &OperationId) -> String {
        let mut name = String::with_capacity(self.0.len() + 38);
        name.push_str(&self.0);
        // Writing to a string does not fail.
        let _ = write!(name, "{{{id}}}");
        name
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}key:{name}", self.0)
    }

    /// Returns the name of the list of an owner's operations, by number; without an owner,
    /// the list of operations that have none.
    pub(super) fn list(&self, owner: Option<&Owner>) -> String {
        match owner {
            Some(owner) => format!("{}list:{}", self.0, owner.as_str()),
            None => format!("{}list", self.0),
        }
    }

    pub(super) fn format(&self) -> String {
        format!("{}format", self.0)
    }

    /// Returns the name of the secret of list cursors.
    pub(super) fn secret(&self) -> String {
        format!("{}secret", self.0)
    }

    /// Returns the channel for notices of changes.
    pub(super) fn channel(&self) -> String {
        format!("{}notices", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_could_overlap_with_others_are_refused() {
        for prefix in ["", "a/b", "{a}", "a b", "ü", "*", &"x".repeat(65)] {
            assert!(RedisNames::new(prefix).is_err(), "{prefix:?}");
        }
        let names = RedisNames::new("app:operations").unwrap();
        let id = "a.b".parse().unwrap();
        assert_eq!(names.cell(&id), "app:operations/{a.b}");
        assert_eq!(names.key("{a.b}"), "app:operations/key:{a.b}");
        assert_ne!(names.list(None), names.list(Some(&Owner::new(""))));
    }
}
