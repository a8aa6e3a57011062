//! The begin of an encrypted upload: its format, and its wrapped key.

use bytes::Bytes;

use crate::store::{StoreError, StoreResult};

/// The length of every header in bytes, so that the places of the chunks follow from their indices.
pub(super) const HEADER: usize = 4096;

/// The format of this version.
const MAGIC: &[u8; 4] = b"tor1";

/// The place of the length of the wrapped key, a number of 32 bits in big-endian order.
const LENGTH: std::ops::Range<usize> = 4..8;

/// Returns a header with this wrapped key. The rest of the header is zero.
pub(super) fn encode(wrapped: &[u8]) -> StoreResult<Bytes> {
    let end = LENGTH.end + wrapped.len();
    if end > HEADER {
        return Err(StoreError::refused("the wrapped key is too long"));
    }
    let mut header = vec![0; HEADER];
    header[..LENGTH.start].copy_from_slice(MAGIC);
    header[LENGTH].copy_from_slice(&(wrapped.len() as u32).to_be_bytes());
    header[LENGTH.end..end].copy_from_slice(wrapped);
    Ok(header.into())
}

/// Returns the wrapped key of a header.
pub(super) fn decode(header: &[u8]) -> StoreResult<Bytes> {
    let wrapped = || {
        let rest = header.strip_prefix(MAGIC)?;
        let (length, rest) = rest.split_first_chunk()?;
        rest.get(..u32::from_be_bytes(*length) as usize)
    };
    match wrapped() {
        Some(wrapped) if header.len() == HEADER => Ok(Bytes::copy_from_slice(wrapped)),
        _ => Err(StoreError::refused("the result is not encrypted, or cut")),
    }
}
