//! Stores for long results, apart from the records of their operations.
//!
//! Without a result store, the body of a response is in memory until it is recorded, and in the
//! record's row afterwards. With one, a body above a threshold goes to the result store chunk by
//! chunk while the service produces it, and comes back the same way:
//! [`Operations::result_store`](crate::Operations::result_store).
//!
//! The body of a request that is stored for a rerun, or goes through a queue, is in the result store
//! too if it is above the threshold. It is uploaded before the operation is created, and read before
//! the request runs elsewhere.
//!
//! An upload ends before its operation does. The record then names the upload by its
//! [`ResultKey`], and has the length and the SHA-256 of the body. The key has the fencing token of
//! the holder that uploaded it, so a holder that lost its operation meanwhile leaves an upload
//! that no record names. The [`Recovery`](crate::Recovery) deletes such uploads, and those of
//! operations that were deleted or have expired.
//!
//! [`EncryptedResults`] encrypts what a result store has, with keys of the application.

mod encryption;
mod key;
mod store;
mod stored_body;

pub use encryption::{ChunkContext, DataKey, EncryptedResults, KeyService};
pub use key::{InvalidResultKey, ResultKey};
pub(crate) use store::ResultStorage;
pub use store::{
    ResultChunks, ResultEntries, ResultFuture, ResultStore, ResultUpload, StoredResult,
};
pub(crate) use stored_body::StoredBody;
