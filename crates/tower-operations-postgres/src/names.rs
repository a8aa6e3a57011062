//! The names of the objects of a store in its database.

use sha2::{Digest, Sha256};

use super::error::PostgresError;

/// The maximum length of a name that PostgreSQL does not cut.
const LONGEST: usize = 63;

/// The objects, by placeholder and suffix after the table.
const OBJECTS: [(&str, &str); 15] = [
    ("operations", ""),
    ("keys", "_keys"),
    ("versions", "_versions"),
    ("by_owner", "_by_owner"),
    ("by_lease", "_by_lease"),
    ("by_expiry", "_by_expiry"),
    ("by_until", "_keys_by_until"),
    // A later version of a function gets another name: older nodes call this one.
    ("lock_key", "_lock_key_1"),
    ("insert", "_insert_1"),
    ("reserve", "_reserve_1"),
    ("scope", "_scope_1"),
    ("insert_scoped", "_insert_2"),
    ("reserve_scoped", "_reserve_2"),
    ("as_insert_scoped", "_insert_2"),
    ("as_reserve_scoped", "_reserve_2"),
];

/// The placeholders without a schema: an index takes the schema of its table, and a new name
/// takes the schema of the old one.
const UNQUALIFIED: [&str; 2] = ["by_", "as_"];

/// A valid schema and a valid table name.
#[derive(Debug, Clone)]
pub(super) struct PostgresNames {
    schema: Box<str>,
    table: Box<str>,
}

impl PostgresNames {
    pub(super) fn new(schema: &str, table: &str) -> Result<Self, PostgresError> {
        let longest = OBJECTS.iter().map(|(_, suffix)| suffix.len()).max();
        for (name, at_most) in [
            (schema, LONGEST),
            (table, LONGEST - longest.unwrap_or_default()),
        ] {
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let begins_well = name.starts_with(|first: char| !first.is_ascii_digit());
            if !begins_well || name.len() > at_most || !name.bytes().all(is_word) {
                return Err(PostgresError::InvalidName {
                    name: name.into(),
                    at_most,
                });
            }
        }
        Ok(Self {
            schema: schema.into(),
            table: table.into(),
        })
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns SQL with quoted names in place of the placeholders.
    pub(super) fn put_into(&self, sql: &str) -> String {
        let Self { schema, table } = self;
        OBJECTS
            .iter()
            .fold(sql.to_owned(), |sql, (placeholder, suffix)| {
                let is_unqualified = |prefix: &&str| placeholder.starts_with(*prefix);
                let name = match UNQUALIFIED.iter().any(is_unqualified) {
                    true => format!("\"{table}{suffix}\""),
                    false => format!("\"{schema}\".\"{table}{suffix}\""),
                };
                sql.replace(&format!("{{{placeholder}}}"), &name)
            })
    }

    /// Returns the table of versions, as `to_regclass` takes it.
    pub(super) fn versions(&self) -> String {
        self.put_into("{versions}")
    }

    /// Returns the channel of notices, which belongs to one store within its database.
    pub(super) fn channel(&self) -> String {
        let digest = Sha256::digest(format!("{}.{}", self.schema, self.table));
        let number = digest.iter().take(8);
        let number = number.fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        format!("tower_operations_{number:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_that_fit() {
        for (schema, table) in [
            ("public", "operations"),
            ("Mine", "_o1"),
            (&"s".repeat(63), &"t".repeat(49)),
        ] {
            PostgresNames::new(schema, table).unwrap();
        }
        for (schema, table) in [
            ("public", ""),
            ("", "operations"),
            ("public", "1st"),
            ("public", "a\"b"),
            ("public", "a.b"),
            ("a b", "operations"),
            ("public", "operati\u{f6}nen"),
            ("public", "a\0"),
            (&"s".repeat(64), "operations"),
            ("public", &"t".repeat(50)),
        ] {
            let refused = PostgresNames::new(schema, table);
            assert!(
                matches!(refused, Err(PostgresError::InvalidName { .. })),
                "{schema:?}.{table:?}"
            );
        }
    }

    #[test]
    fn every_placeholder_gets_a_name_and_every_store_a_channel() {
        let names = PostgresNames::new("Mine", "ops").unwrap();
        assert_eq!(
            names.put_into("{operations} {keys} {by_owner} {insert} {operations}"),
            r#""Mine"."ops" "Mine"."ops_keys" "ops_by_owner" "Mine"."ops_insert_1" "Mine"."ops""#
        );
        let other = PostgresNames::new("Mine", "ops_2").unwrap();
        assert_ne!(names.channel(), other.channel());
        assert!(names.channel().len() < LONGEST);
    }
}
