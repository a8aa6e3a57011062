//! The stored data of an idempotency key.

use bytes::Bytes;

/// The stored data of a key.
#[derive(Debug)]
#[non_exhaustive]
pub struct KeyCell {
    /// The digest of the request that came with the key.
    pub fingerprint: [u8; 32],
    /// The state of the key.
    pub state: KeyState,
}

impl KeyCell {
    /// Returns the data of a key in this state.
    #[must_use]
    pub fn new(fingerprint: [u8; 32], state: KeyState) -> Self {
        Self { fingerprint, state }
    }
}

/// The state of a key.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyState {
    /// The key is reserved by a request that is being answered.
    Reserved,
    /// The key belongs to an operation that has not expired. This is the head of the operation;
    /// its result is not read.
    Operation(Bytes),
    /// The operation of the key was deleted. This is the head that remains.
    Deleted(Bytes),
    /// The key has an early answer. The bytes may be empty for a request with another
    /// fingerprint.
    Answer(Bytes),
}
