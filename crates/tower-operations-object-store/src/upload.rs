//! The upload of one object.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use tokio::runtime::Handle;
use tower_operations::{
    results::{ResultFuture, ResultUpload},
    store::{StoreError, StoreResult},
};

use super::store_error;

/// The length of a part in bytes. S3 takes 10,000 parts of at least 5 MiB.
const PART: usize = 8 * 1024 * 1024;

/// An upload, which is a multipart upload once it has more than one part.
pub(super) struct ObjectUpload {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    /// The chunks of the next part, and their length in bytes.
    chunks: Vec<Bytes>,
    length: usize,
    parts: Parts,
}

enum Parts {
    /// Everything is in the chunks.
    None,
    Some(Box<dyn MultipartUpload>),
    /// A part was lost, so the upload cannot be completed.
    Broken,
    /// The object is complete.
    Complete,
}

impl ObjectUpload {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self {
            objects,
            path,
            chunks: Vec::new(),
            length: 0,
            parts: Parts::None,
        }
    }

    fn payload(&self) -> PutPayload {
        self.chunks.iter().cloned().collect()
    }

    /// Uploads the chunks so far as a part.
    async fn put_part(&mut self) -> StoreResult<()> {
        if let Parts::None = self.parts {
            let begun = self.objects.put_multipart(&self.path).await;
            self.parts = Parts::Some(begun.map_err(store_error)?);
        }
        let payload = self.payload();
        let Parts::Some(parts) = &mut self.parts else {
            return Err(broken());
        };
        if let Err(error) = parts.put_part(payload).await {
            // The part has a number that no other part can get.
            self.abort();
            return Err(StoreError::refused(error));
        }
        self.chunks.clear();
        self.length = 0;
        Ok(())
    }

    async fn complete(&mut self) -> StoreResult<()> {
        if let Parts::None = self.parts {
            let put = self.objects.put(&self.path, self.payload()).await;
            put.map_err(store_error)?;
        } else {
            if self.length > 0 {
                self.put_part().await?;
            }
            let Parts::Some(parts) = &mut self.parts else {
                return Err(broken());
            };
            parts.complete().await.map_err(store_error)?;
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

fn broken() -> StoreError {
    StoreError::refused("a part of the upload was lost")
}

impl ResultUpload for ObjectUpload {
    fn write(&mut self, chunk: Bytes) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            // A full part is uploaded before the chunk is taken, so that the same chunk can be
            // written again after an error.
            if self.length >= PART {
                self.put_part().await?;
            }
            self.length += chunk.len();
            self.chunks.push(chunk);
            Ok(())
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
