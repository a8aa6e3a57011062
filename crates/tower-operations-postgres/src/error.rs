//! The errors, and whether a retry can help.

use std::{error::Error, fmt, sync::Arc};

use sqlx::Error as SqlError;
use tower_operations::store::StoreError;

/// The reason why a [`PostgresStore`](super::PostgresStore) could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// A schema or a table cannot have this name.
    #[error(
        "{name:?} cannot be a name here: at most {at_most} letters, digits and '_', no digit first"
    )]
    InvalidName {
        /// The name.
        name: Box<str>,
        /// The maximum length of the name in bytes.
        at_most: usize,
    },
    /// A newer release has set up the tables.
    #[error("the tables have version {found}; this release knows {known}")]
    NewerSchema {
        /// The version of the tables.
        found: i32,
        /// The newest version that this release knows.
        known: i32,
    },
    /// The tables have to be set up first, and `migrate` is off for this store.
    #[error("the tables have version {found}; this release needs {needed}, see `migrations`")]
    OlderSchema {
        /// The version of the tables, 0 if there are none.
        found: i32,
        /// The version that this release needs.
        needed: i32,
    },
    /// The server is a standby: it may lag behind, and takes no writes.
    #[error("the server is a standby")]
    Standby,
    /// With this setting, acknowledged changes can be lost in a crash.
    #[error("{setting} is {value:?}: acknowledged writes could be lost in a crash")]
    NotDurable {
        /// The setting.
        setting: &'static str,
        /// The value of the setting.
        value: Box<str>,
    },
    /// Any other error of the database.
    #[error("the database could not be set up: {}", text(.0))]
    Database(#[from] SqlError),
}

/// An error that the store detects itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unexpected {
    #[error("the server has become a standby")]
    Standby,
    #[error("a key that stands for {0:?}")]
    KeyState(Box<str>),
    #[error("a {0} where there must be one")]
    Missing(&'static str),
    #[error("a fingerprint of another length than 32 bytes")]
    Fingerprint,
    #[error("a name that is not UTF-8")]
    Text(#[source] std::string::FromUtf8Error),
}

impl From<Unexpected> for StoreError {
    fn from(error: Unexpected) -> Self {
        match error {
            Unexpected::Standby => Self::unavailable(error),
            error => Self::refused(error),
        }
    }
}

/// Returns the text of an error, without the line of PostgreSQL's own source that raised
/// it.
fn text(error: &SqlError) -> String {
    match error {
        SqlError::Database(error) => error.message().to_owned(),
        error => error.to_string(),
    }
}

/// An error of the driver: the source of a [`StoreError`] of a
/// [`PostgresStore`](crate::PostgresStore).
///
/// The text of the error is the server's message, without the line of PostgreSQL's own source.
#[derive(Debug, Clone)]
pub struct DriverError(Arc<SqlError>);

impl DriverError {
    /// Returns the error of sqlx.
    #[must_use]
    pub fn as_sqlx(&self) -> &SqlError {
        &self.0
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.0))
    }
}

impl Error for DriverError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &*self.0 {
            // The source is the message that is shown already.
            SqlError::Database(_) => None,
            error => error.source(),
        }
    }
}

/// Converts an error of the driver.
pub(super) fn store_error(error: SqlError) -> StoreError {
    match is_transient(&error) {
        true => StoreError::unavailable(DriverError(error.into())),
        false => StoreError::refused(DriverError(error.into())),
    }
}

/// Returns whether one row may have caused the error of a joint statement. The server has then
/// written no row. Other errors concern the connection, or all rows.
pub(super) fn may_be_of_one_row(error: &StoreError) -> bool {
    let (StoreError::Unavailable(source) | StoreError::Refused(source)) = error else {
        return false;
    };
    match source.downcast_ref().map(DriverError::as_sqlx) {
        Some(SqlError::Database(error)) => {
            let of_all = ["08", "40P01", "53", "57P"];
            let code = error.code().unwrap_or_default();
            !of_all.iter().any(|class| code.starts_with(class))
        }
        Some(_) => !error.is_transient(),
        None => false,
    }
}

/// Returns the same error for another caller of a joint statement.
pub(super) fn copy_of(error: &StoreError) -> StoreError {
    let copy = |source: &(dyn Error + Send + Sync + 'static)| -> Box<dyn Error + Send + Sync> {
        match source.downcast_ref::<DriverError>() {
            Some(error) => error.clone().into(),
            None => source.to_string().into(),
        }
    };
    match error {
        StoreError::Unavailable(source) => StoreError::Unavailable(copy(&**source)),
        StoreError::Refused(source) => StoreError::Refused(copy(&**source)),
        StoreError::Full => StoreError::Full,
        StoreError::FullForOwner => StoreError::FullForOwner,
        StoreError::TooLarge { length, limit, .. } => StoreError::too_large(*length, *limit),
        other => StoreError::unavailable(other.report()),
    }
}

/// Converts the error of a statement that adds data: a full disk of the server means a full
/// store.
pub(super) fn full(error: StoreError) -> StoreError {
    /// The SQLSTATE `disk_full`.
    const DISK_FULL: &str = "53100";
    let StoreError::Unavailable(source) = &error else {
        return error;
    };
    let code = match source.downcast_ref().map(DriverError::as_sqlx) {
        Some(SqlError::Database(error)) => error.code(),
        _ => None,
    };
    match code.as_deref() == Some(DISK_FULL) {
        true => StoreError::Full,
        false => error,
    }
}

fn is_transient(error: &SqlError) -> bool {
    match error {
        SqlError::Database(error) => error.code().is_none_or(|code| is_transient_state(&code)),
        // The error concerns the value, or the shape of the table.
        SqlError::Encode(_)
        | SqlError::Decode(_)
        | SqlError::ColumnDecode { .. }
        | SqlError::ColumnNotFound(_)
        | SqlError::ColumnIndexOutOfBounds { .. }
        | SqlError::TypeNotFound { .. }
        | SqlError::InvalidArgument(_)
        | SqlError::RowNotFound
        | SqlError::Configuration(_) => false,
        // The error concerns the connection, or the pool.
        _ => true,
    }
}

/// Decides by SQLSTATE (PostgreSQL's Appendix A). An error that concerns the value, or a
/// damaged row, is permanent. Every other error, a missing permission or table included,
/// concerns the present state of the server.
fn is_transient_state(code: &str) -> bool {
    const LASTING: [&str; 4] = [
        "22", // data exception
        "23", // integrity constraint violation
        "54", // program limit exceeded
        "XX", // internal error: data corrupted
    ];
    !LASTING.iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// The message of a server, with the line in its own source.
    #[derive(Debug)]
    struct ServerMessage;

    impl fmt::Display for ServerMessage {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} at line 768", self.message())
        }
    }

    impl Error for ServerMessage {}

    impl DatabaseError for ServerMessage {
        fn message(&self) -> &str {
            "role \"nobody\" does not exist"
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some("53100".into())
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[test]
    fn source_lines_of_the_server_are_left_out() {
        let raised = || SqlError::Database(Box::new(ServerMessage));
        assert_eq!(
            store_error(raised()).report(),
            "the store is unavailable: role \"nobody\" does not exist"
        );
        assert_eq!(
            PostgresError::from(raised()).to_string(),
            "the database could not be set up: role \"nobody\" does not exist"
        );
    }

    #[test]
    fn full_disks_are_full_stores_for_statements_that_add_data() {
        let raised = || store_error(SqlError::Database(Box::new(ServerMessage)));
        assert!(matches!(raised(), StoreError::Unavailable(_)));
        assert!(matches!(full(raised()), StoreError::Full));
        let other = full(store_error(SqlError::PoolTimedOut));
        assert!(matches!(other, StoreError::Unavailable(_)));
    }

    #[test]
    fn permanent_and_transient_errors_are_distinguished() {
        for code in [
            "08006", "40001", "40P01", "53100", "53300", "57014", "57P01", "57P03", "58030",
            "25006", "55P03", "42501", "42P01", "26000",
        ] {
            assert!(is_transient_state(code), "{code}");
        }
        for code in ["22001", "22021", "23505", "54000", "XX001"] {
            assert!(!is_transient_state(code), "{code}");
        }
        let error = store_error(SqlError::PoolTimedOut);
        assert!(error.is_transient());
        let source = std::error::Error::source(&error).unwrap();
        assert!(matches!(
            source.downcast_ref().map(DriverError::as_sqlx),
            Some(SqlError::PoolTimedOut)
        ));
        assert!(!store_error(SqlError::ColumnNotFound("head".into())).is_transient());
    }
}
