//! The reasons why a server cannot be used, and the meaning of its errors.

use std::time::Duration;

use tower_operations::store::StoreError;

use super::connection::LARGEST;

/// The reason why a Redis or Valkey server cannot keep operations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// The URL is invalid, or needs a feature that this build lacks, such as TLS.
    #[error("the URL of the Redis server cannot be used: {0}")]
    Url(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The prefix is not 1 to 64 characters of letters, digits, `-`, `_`, `.`
    /// and `:`.
    #[error("a prefix consists of 1 to 64 letters, digits, '-', '_', '.' and ':'")]
    Prefix,
    /// The server cannot be reached, or is still starting. A retry can help.
    #[error("the Redis server cannot be reached: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused a command that the store needs.
    #[error("the Redis server refused: {0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The version of the server is below 6.2.
    #[error("Redis 6.2 or Valkey is needed, not version {version}")]
    TooOld {
        /// The version of the server.
        version: Box<str>,
    },
    /// The server may evict keys that it has acknowledged.
    #[error("`maxmemory-policy` has to be `noeviction`, not `{policy}`")]
    Evicts {
        /// The `maxmemory-policy` of the server.
        policy: Box<str>,
    },
    /// The server is the replica of another server.
    #[error("this Redis server is a replica")]
    Replica,
    /// The server is a node of a cluster.
    #[error("this Redis server is a node of a cluster, which is not supported")]
    Cluster,
    /// The server does not report a setting that the store has to know.
    #[error("the Redis server does not report its `{what}`")]
    Untold {
        /// The missing setting.
        what: &'static str,
    },
    /// The data was written by a later release.
    #[error("the operations are stored in the unknown format `{format}`")]
    Format {
        /// The format of the data.
        format: Box<str>,
    },
}

/// A failure that the store detects itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedisFault {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{0} is damaged")]
    Corrupt(&'static str),
    #[error("{0} bytes are more than the server takes as one value")]
    TooLarge(usize),
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum AnswerError {
    Server(::redis::RedisError),
    Own(RedisFault),
}

impl From<AnswerError> for RedisError {
    fn from(failure: AnswerError) -> Self {
        match failure {
            // A denial is final while connecting. For a server in use a change of passwords may
            // explain the denial.
            AnswerError::Server(error) if is_denied(&error) => return Self::Refused(error.into()),
            other => other.into_store_error(),
        }
        .into()
    }
}

impl From<StoreError> for RedisError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(source) => Self::Refused(source),
            StoreError::Unavailable(source) => Self::Unavailable(source),
            error @ StoreError::TooLarge { .. } => Self::Refused(error.into()),
            other => Self::Unavailable(other.into()),
        }
    }
}

/// The first words of errors that a retry would get again.
const REFUSALS: [&str; 5] = ["WRONGTYPE", "CROSSSLOT", "MOVED", "ASK", "ERR"];

/// The beginnings of transient errors, which Redis 6 puts behind `ERR` in the error of a
/// script.
const PASSING: [&str; 9] = [
    "OOM command not allowed",
    "READONLY ",
    "LOADING ",
    "MISCONF ",
    "MASTERDOWN ",
    "NOREPLICAS ",
    "BUSY ",
    "NOSCRIPT ",
    "max number of clients",
];

impl AnswerError {
    /// Returns whether the server has no room.
    pub(super) fn is_full(&self) -> bool {
        let Self::Server(error) = self else {
            return false;
        };
        server_error(error).is_some_and(|(code, text)| code == "OOM" || text.contains(PASSING[0]))
    }

    /// Returns whether the connection broke.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_connection_dropped())
    }

    /// Converts the error, and decides whether a retry can help.
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::Server(error) if is_refusal(&error) => StoreError::refused(error),
            Self::Server(error) => StoreError::unavailable(error),
            Self::Own(fault @ RedisFault::Late(_)) => StoreError::unavailable(fault),
            Self::Own(RedisFault::TooLarge(length)) => StoreError::too_large(length, LARGEST),
            Self::Own(fault) => StoreError::refused(fault),
        }
    }
}

fn is_refusal(error: &::redis::RedisError) -> bool {
    use ::redis::ErrorKind::{
        Client, InvalidClientConfig, RESP3NotSupported, UnexpectedReturnType,
    };
    match error.kind() {
        Client | InvalidClientConfig | RESP3NotSupported | UnexpectedReturnType => true,
        _ => server_error(error).is_some_and(|(code, text)| {
            REFUSALS.contains(&code.as_str()) && !PASSING.iter().any(|word| text.contains(word))
        }),
    }
}

/// The first words of errors about missing rights.
const DENIALS: [&str; 3] = ["NOPERM", "NOAUTH", "WRONGPASS"];

/// Returns whether the user lacks a right, as far as the server knows at the moment.
fn is_denied(error: &::redis::RedisError) -> bool {
    error.kind() == ::redis::ErrorKind::AuthenticationFailed
        || server_error(error).is_some_and(|(code, _)| DENIALS.contains(&code.as_str()))
}

/// Returns the code and the text of the server's error.
fn server_error(error: &::redis::RedisError) -> Option<(String, String)> {
    let errors = error.clone().into_server_errors()?;
    let (_, first) = errors.first()?;
    let text = first.details().unwrap_or_default();
    Some((first.code().to_owned(), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_above_the_limit_of_the_server_is_refused_with_the_limit() {
        let error = AnswerError::Own(RedisFault::TooLarge(600 << 20)).into_store_error();
        let StoreError::TooLarge { length, limit, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((length, limit), (600 << 20, 512 << 20));
        assert!(!error.is_transient());
    }
}
