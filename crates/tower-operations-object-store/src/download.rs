//! The download of a part of an object.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{GetOptions, GetRange, ObjectStore, Result, path::Path};
use tower_operations::results::ResultChunks;

use super::store_error;

/// A download, which takes as long as its reader.
///
/// `object_store` ends a request after a time-out, 30 seconds by default, whether the storage is slow
/// or the reader. It continues the request for three minutes by default. From then on the download
/// begins another request where the last one ended, provided that the last one brought bytes.
pub(super) struct Download {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    /// The bytes that are still to be read.
    rest: Range<u64>,
    /// The version of the object that is read.
    e_tag: Option<String>,
    chunks: BoxStream<'static, Result<Bytes>>,
    /// Whether the current request has brought bytes.
    has_bytes: bool,
}

impl Download {
    /// Begins a download.
    pub(super) async fn begin(
        objects: Arc<dyn ObjectStore>,
        path: Path,
        range: Range<u64>,
    ) -> Result<Self> {
        let mut download = Self {
            objects,
            path,
            rest: range,
            e_tag: None,
            chunks: stream::empty().boxed(),
            has_bytes: false,
        };
        download.request().await?;
        Ok(download)
    }

    /// Requests the rest.
    async fn request(&mut self) -> Result<()> {
        let options = GetOptions::new()
            .with_range(Some(GetRange::Bounded(self.rest.clone())))
            .with_if_match(self.e_tag.clone());
        let found = self.objects.get_opts(&self.path, options).await?;
        // A weak tag matches nothing.
        self.e_tag = found.meta.e_tag.clone();
        self.e_tag.take_if(|tag| tag.starts_with("W/"));
        self.chunks = found.into_stream();
        self.has_bytes = false;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.chunks.next().await {
                Some(Ok(chunk)) => {
                    self.has_bytes |= !chunk.is_empty();
                    self.rest.start += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Some(Err(error)) if self.has_bytes && !self.rest.is_empty() => {
                    tracing::debug!(path = %self.path, %error, "download continued");
                    self.request().await?;
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(None),
            }
        }
    }

    pub(super) fn into_chunks(self) -> ResultChunks {
        Box::pin(stream::try_unfold(self, async |mut download| {
            let chunk = download.next().await.map_err(store_error)?;
            Ok(chunk.map(|chunk| (chunk, download)))
        }))
    }
}
