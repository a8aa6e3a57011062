//! Signed URLs, by which clients download from the storage itself.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderMap, Method, Uri,
    header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE},
};
use object_store::{Attribute, Attributes, path::Path, signer::Signer};
use tower_operations::store::{StoreError, StoreResult};

use super::store_error;

/// The longest time for which a URL is valid.
const LONGEST: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Clone)]
pub(super) struct UrlSigner {
    signer: Arc<dyn Signer>,
    valid_for: Duration,
}

impl UrlSigner {
    pub(super) fn new(signer: Arc<dyn Signer>, valid_for: Duration) -> Self {
        assert!(
            !valid_for.is_zero() && valid_for <= LONGEST,
            "a signed URL is valid for at most 15 minutes"
        );
        Self { signer, valid_for }
    }

    /// Returns a URL by which everyone can download an object for a while.
    pub(super) async fn sign(&self, path: &Path) -> StoreResult<Uri> {
        let signed = self.signer.signed_url(Method::GET, path, self.valid_for);
        let url = signed.await.map_err(store_error)?;
        url.as_str().parse().map_err(StoreError::refused)
    }
}

/// Returns the attributes by which a download has the fields that describe the content of a response
/// (RFC 9110, section 8; RFC 6266).
pub(super) fn attributes(header: &HeaderMap) -> Attributes {
    let named = [
        (CONTENT_TYPE, Attribute::ContentType),
        (CONTENT_ENCODING, Attribute::ContentEncoding),
        (CONTENT_LANGUAGE, Attribute::ContentLanguage),
        (CONTENT_DISPOSITION, Attribute::ContentDisposition),
    ];
    let present = named.into_iter().filter_map(|(name, attribute)| {
        let value = header.get(name)?.to_str().ok()?;
        Some((attribute, value.to_owned()))
    });
    present.collect()
}
