use bytes::Bytes;

use crate::{
    results::{ResultFuture, ResultKey},
    store::StoreResult,
};

/// The key management of an application, which wraps the data keys of
/// [`EncryptedResults`](super::EncryptedResults).
///
/// # Semantics
/// * Each data key is fresh and random, and seals one upload.
/// * The wrapped key is stored in front of the body, in the clear. It has at most 4,088 bytes, and
///   everything that the service needs to unwrap it, such as the id of the wrapping key. Wrapping
///   should bind it to the upload: as associated data, or as the encryption context of a service.
/// * A [transient](crate::store::StoreError::is_transient) error says that the same call may succeed
///   later. A wrapping key that is unknown or has been destroyed is a permanent error.
pub trait KeyService: Send + Sync + 'static {
    /// The keys of uploads.
    type Key: DataKey;

    /// Generates the data key of an upload. Returns the key and its wrapped form.
    fn generate_key<'a>(&'a self, upload: &'a ResultKey) -> ResultFuture<'a, (Self::Key, Bytes)>;

    /// Returns the data key of an upload from its wrapped form. Each read calls it, so a service
    /// on the network may want to cache the last keys.
    fn unwrap_key<'a>(
        &'a self,
        upload: &'a ResultKey,
        wrapped: Bytes,
    ) -> ResultFuture<'a, Self::Key>;
}

/// Seals and opens the chunks of one upload, by an AEAD such as AES-256-GCM or ChaCha20-Poly1305.
///
/// A chunk is sealed with its [`ChunkContext::associated_data`] and opened with the same bytes only.
/// Then a chunk that is altered, cut, moved or from another upload is an error.
pub trait DataKey: Send + 'static {
    /// The number of bytes by which a sealed chunk is longer than the plain chunk. It is 16 for the
    /// tag of the usual ciphers, and more if a nonce is stored with it.
    const OVERHEAD: usize;

    /// Replaces a plain chunk of 0 to 65,536 bytes by the sealed chunk. A chunk may be sealed twice,
    /// then with the same plain bytes.
    fn seal(&self, context: &ChunkContext<'_>, chunk: &mut Vec<u8>) -> StoreResult<()>;

    /// Replaces a sealed chunk by the plain chunk. A chunk that is not the one that was sealed with
    /// this context is a [refused](crate::store::StoreError::refused) error.
    fn open(&self, context: &ChunkContext<'_>, chunk: &mut Vec<u8>) -> StoreResult<()>;
}

/// The place of a chunk in an upload.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ChunkContext<'a> {
    /// The upload.
    pub upload: &'a ResultKey,
    /// The number of chunks before this one.
    pub index: u64,
    /// Whether the chunk is the last one, which has fewer than 65,536 plain bytes.
    pub is_last: bool,
}

impl<'a> ChunkContext<'a> {
    /// Returns the place of a chunk.
    #[must_use]
    pub fn new(upload: &'a ResultKey, index: u64, is_last: bool) -> Self {
        Self {
            upload,
            index,
            is_last,
        }
    }

    /// Returns a nonce of 96 bits that no other chunk of the upload has: three zero bytes, the index
    /// in big-endian order, and 1 for the last chunk or else 0. It is safe only with a data key that
    /// seals one upload alone.
    #[must_use]
    pub fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.index.to_be_bytes());
        nonce[11] = self.is_last.into();
        nonce
    }

    /// Returns the place as bytes that no other chunk of any upload has: the nonce, and the text of the
    /// [`ResultKey`].
    #[must_use]
    pub fn associated_data(&self) -> Vec<u8> {
        let mut data = self.nonce().to_vec();
        data.extend_from_slice(self.upload.to_string().as_bytes());
        data
    }
}
