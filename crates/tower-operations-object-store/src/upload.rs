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
    /// The number of bytes of the parts before.
    uploaded: u64,
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
            uploaded: 0,
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
        if let Err(error) = parts.put_part(part.into()).await {
            // The part has a number that no other part can get.
            self.abort();
            return Err(StoreError::refused(error));
        }
        self.uploaded += length;
        Ok(())
    }

    async fn complete(&mut self) -> StoreResult<()> {
        if let Parts::None = self.parts {
            let body = Bytes::copy_from_slice(&self.next);
            let options = self.attributes.clone().into();
            let put = self.objects.put_opts(&self.path, body.into(), options);
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
            let mut rest = &chunk[..];
            loop {
                let room = PART - self.next.len();
                let (taken, left) = rest.split_at(rest.len().min(room));
                self.next.extend_from_slice(taken);
                rest = left;
                if rest.is_empty() {
                    return Ok(());
                }
                let begun = self.next.len() - taken.len();
                if let Err(error) = self.put_part().await {
                    // Without the begin of this chunk, the same chunk can be written again, unless
                    // a part is lost, which is no transient error.
                    self.next.truncate(begun);
                    return Err(error);
                }
            }
        })
    }

    fn finish(&mut self) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            match self.parts {
                Parts::Complete => Ok(()),
                Parts::Broken => Err(broken()),
                Parts::None | Parts::Some(_) => self.complete().await,
            }
        })
    }
}

impl Drop for ObjectUpload {
    fn drop(&mut self) {
        if let Parts::Some(_) = self.parts {
            self.abort();
        }
    }
}
