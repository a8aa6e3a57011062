//! Operations in Redis or Valkey.

mod answers;
mod builder;
mod checks;
mod connection;
mod engine;
mod error;
mod names;
mod notices;
mod scripts;

use super::durable::Durable;
use crate::operation::RecordedResponse;

pub use builder::RedisBuilder;
pub use engine::Redis;
pub use error::RedisError;

/// Operations in Redis or Valkey.
pub type RedisStore<T = RecordedResponse> = Durable<Redis, T>;

impl RedisStore {
    /// Keeps operations in the server at this URL, under the prefix `operations`.
    ///
    /// # Errors
    /// If the server cannot be reached, or must not be trusted with operations:
    /// see [`RedisError`].
    pub async fn connect(url: &str) -> Result<Self, RedisError> {
        RedisBuilder::new(url).connect().await
    }
}
