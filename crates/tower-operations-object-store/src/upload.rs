//! The upload of one object.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::{Attributes, MultipartUpload, ObjectStore, ObjectStoreExt, path::Path};
use tokio::runtime::Handle;
use tower_operations::{
    results::{ResultFuture, ResultUpload},
    store::{StoreError, StoreResult},
};

use super::store_error;

/// The length of each part but the last, in bytes. Some stores need parts of one length. S3 takes
/// 10,000 parts of at least 5 MiB.
const PART: usize = 8 * 1024 * 1024;

/// An upload, which is a multipart upload once it has more than one part.
pub(super) struct ObjectUpload {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    attributes: Attributes,
    /// The begin of the next part. Chunks are copied, since many short ones would take more memory
    /// than their bytes.
    next: BytesMut,
    /// A body of a single part, once it is complete. It stays until it is put, so that a call which
    /// fails or is dropped can be repeated.
    whole: Bytes,
    /// The number of bytes that were taken from a chunk whose write has not succeeded.
    taken: usize,
    /// The number of bytes of the parts before.
    uploaded: u64,
    /// Whether a part is on its way. It stays so if the call is dropped meanwhile.
    is_uploading: bool,
    parts: Parts,
}

enum Parts {
    /// Everything is in the next part.
    None,
    Some(Box<dyn MultipartUpload>),
    /// The upload cannot be completed any more.
    Broken,
    /// The object is complete.
    Complete,
}

impl ObjectUpload {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, path: Path, attributes: Attributes) -> Self {
        Self {
            objects,
            path,
            attributes,
            next: BytesMut::new(),
            whole: Bytes::new(),
            taken: 0,
            uploaded: 0,
            is_uploading: false,
            parts: Parts::None,
        }
    }

    /// Uploads the next part.
    async fn put_part(&mut self) -> StoreResult<()> {
        if let Parts::None = self.parts {
            let options = self.attributes.clone().into();
            let begun = self.objects.put_multipart_opts(&self.path, options).await;
            self.parts = Parts::Some(begun.map_err(store_error)?);
        }
        let Parts::Some(parts) = &mut self.parts else {
            return Err(broken());
        };
        let part = self.next.split().freeze();
        let length = part.len() as u64;
        self.is_uploading = true;
        let put = parts.put_part(part.into()).await;
        self.is_uploading = false;
        if let Err(error) = put {
            // The part has a number that no other part can get.
            self.abort();
            return Err(StoreError::refused(error));
        }
        self.uploaded += length;
        Ok(())
    }

    /// Returns an error if a part is lost.
    fn check(&mut self) -> StoreResult<()> {
        if self.is_uploading {
            self.abort();
        }
        match self.parts {
            Parts::Broken => Err(broken()),
            Parts::None | Parts::Some(_) | Parts::Complete => Ok(()),
        }
    }

    async fn complete(&mut self) -> StoreResult<()> {
        if let Parts::None = self.parts {
            if self.whole.is_empty() {
                self.whole = self.next.split().freeze();
            }
            let body = self.whole.clone().into();
            let options = self.attributes.clone().into();
            let put = self.objects.put_opts(&self.path, body, options);
            put.await.map_err(store_error)?;
        } else {
            if !self.next.is_empty() {
                self.put_part().await?;
            }
            let Parts::Some(parts) = &mut self.parts else {
                return Err(broken());
            };
            if let Err(error) = parts.complete().await
                && !is_there(Arc::clone(&self.objects), self.path.clone(), self.uploaded).await
            {
                self.abort();
                return Err(StoreError::refused(error));
            }
        }
        self.parts = Parts::Complete;
        Ok(())
    }

    /// Deletes the parts that were uploaded, in the background.
    fn abort(&mut self) {
        let Parts::Some(mut parts) = std::mem::replace(&mut self.parts, Parts::Broken) else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let path = self.path.clone();
        runtime.spawn(async move {
            if let Err(error) = parts.abort().await {
                tracing::warn!(%path, %error, "upload not aborted");
            }
        });
    }
}

/// Returns whether an object of this length is there although its completion has failed: the answer
/// may have been lost.
async fn is_there(objects: Arc<dyn ObjectStore>, path: Path, length: u64) -> bool {
    let found = objects.head(&path).await;
    found.is_ok_and(|object| object.size == length)
}

fn broken() -> StoreError {
    StoreError::refused("the upload is broken")
}

impl ResultUpload for ObjectUpload {
    fn write(&mut self, chunk: Bytes) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            self.check()?;
            loop {
                let rest = &chunk[self.taken..];
                if rest.is_empty() {
                    self.taken = 0;
                    return Ok(());
                }
                if self.next.len() == PART {
                    self.put_part().await?;
                }
                let count = rest.len().min(PART - self.next.len());
                self.next.extend_from_slice(&rest[..count]);
                self.taken += count;
            }
        })
    }

    fn finish(&mut self) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            self.check()?;
            match self.parts {
                Parts::Complete => Ok(()),
                _ => self.complete().await,
            }
        })
    }

    fn buffered(&self) -> usize {
        self.next.len() + self.whole.len()
    }
}

impl Drop for ObjectUpload {
    fn drop(&mut self) {
        if let Parts::Some(_) = self.parts {
            self.abort();
        }
    }
}
