//! Encryption of results with keys of the application.

mod download;
mod header;
mod key_service;
mod store;
mod upload;

pub use key_service::{ChunkContext, DataKey, KeyService};
pub use store::EncryptedResults;

/// The length of the plain bytes of each chunk but the last, which is shorter, in bytes.
const CHUNK: usize = 64 * 1024;
