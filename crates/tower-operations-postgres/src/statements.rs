//! The statements of a store, with its names in place.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::names::PostgresNames;

macro_rules! statements {
    ($($name:ident)*) => {
        #[derive(Debug)]
        pub(super) struct Statements {
            $(pub(super) $name: Sql,)*
            pub(super) list_nobodys: Sql,
        }

        impl Statements {
            pub(super) fn new(names: &PostgresNames) -> Self {
                let list = include_str!("sql/list.sql");
                Self {
                    $($name: match stringify!($name) {
                        "list" => Sql::new(names, &list.replace("{is_owner}", "= $1")),
                        _ => Sql::new(names, include_str!(concat!("sql/", stringify!($name), ".sql"))),
                    },)*
                    list_nobodys: Sql::new(names, &list.replace("{is_owner}", "IS NULL AND $1::bytea IS NULL")),
                }
            }
        }
    };
}

statements! {
    read write insert_with_key change end take_over hand_on delete renew release released abandoned put_aside
    reserve settle release_key secret list purge purge_keys notify
}

/// A statement that is cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Sql(Arc<str>);

impl Sql {
    fn new(names: &PostgresNames, sql: &str) -> Self {
        // The server does not need the comments.
        let lines = sql.lines().filter(|line| !line.starts_with("--"));
        let lines: Vec<&str> = lines.collect();
        Self(names.put_into(&lines.join("\n")).into())
    }
}

impl SqlSafeStr for &Sql {
    /// Returns the text, which contains no values, only checked names.
    fn into_sql_str(self) -> SqlStr {
        AssertSqlSafe(Arc::clone(&self.0)).into_sql_str()
    }
}
