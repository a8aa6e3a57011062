#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod download;
#[cfg(feature = "signed-urls")]
mod signing;
mod upload;

use std::{ops::Range, sync::Arc, time::SystemTime};

use futures_util::{StreamExt, stream};
use http::HeaderMap;
use object_store::{Attributes, ObjectMeta, ObjectStore, path::Path};
use tower_operations::{
    results::{
        ResultChunks, ResultEntries, ResultFuture, ResultKey, ResultStore, ResultUpload,
        StoredResult,
    },
    store::StoreError,
};

use download::Download;
use upload::ObjectUpload;

/// The long results of operations, as objects below a prefix. See the [crate](self).
#[derive(Debug, Clone)]
pub struct ObjectResults {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    #[cfg(feature = "signed-urls")]
    signer: Option<signing::UrlSigner>,
}

impl ObjectResults {
    /// Creates a store of results below `prefix`, which belongs to the operations of one store.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self {
            objects,
            prefix: Path::from(prefix),
            #[cfg(feature = "signed-urls")]
            signer: None,
        }
    }

    /// Answers requests for a result with `303 See Other` and a signed URL of the object, which is
    /// valid for so long, at most 15 minutes. Clients then download from the storage itself. Without
    /// this setting they download through the nodes.
    ///
    /// Everyone who has the URL can download the object until the URL expires. A client must not
    /// send its credentials along: it follows the redirect to another origin. The object has the
    /// `Content-Type`, `Content-Encoding`, `Content-Language` and `Content-Disposition` of the
    /// response, so the storage must support attributes, and no other fields. Its validator is that of
    /// the storage, and there is no `Repr-Digest`.
    ///
    /// The node sends the body itself for a status other than 200, with trailers, if
    /// `Content-Disposition` is not ASCII, in the dialects `OData` and `Fhir`, and where the application
    /// sets `map_replay` or `replay_headers`.
    ///
    /// `signer` signs URLs of the same storage: pass the same `AmazonS3`, for example.
    ///
    /// # Panics
    /// Panics if the time is zero or longer than 15 minutes.
    #[cfg(feature = "signed-urls")]
    #[must_use]
    pub fn signed_urls(
        self,
        signer: Arc<dyn object_store::signer::Signer>,
        valid_for: std::time::Duration,
    ) -> Self {
        Self {
            signer: Some(signing::UrlSigner::new(signer, valid_for)),
            ..self
        }
    }

    /// Returns the attributes of an object. Without signed URLs it needs none, and some storage
    /// has none.
    fn attributes(&self, header: &HeaderMap) -> Attributes {
        #[cfg(feature = "signed-urls")]
        if self.signer.is_some() {
            return signing::attributes(header);
        }
        let _ = header;
        Attributes::new()
    }

    fn path(&self, key: &ResultKey) -> Path {
        let text = key.to_string();
        let parts = text.split('/');
        parts.fold(self.prefix.clone(), Path::join)
    }

    /// Returns the result that an object is, if its name is that of a result.
    fn stored(&self, object: &ObjectMeta) -> Option<StoredResult> {
        let parts: Vec<_> = object.location.prefix_match(&self.prefix)?.collect();
        let [id, token] = &parts[..] else {
            return None;
        };
        // The only character of an id that a path cannot have.
        let id = id.as_ref().replace("%7E", "~");
        let key = format!("{id}/{}", token.as_ref()).parse().ok()?;
        Some(StoredResult::new(
            key,
            SystemTime::from(object.last_modified),
        ))
    }
}

/// Converts an error, which is transient unless a repetition cannot mend it.
fn store_error(error: object_store::Error) -> StoreError {
    use object_store::Error as E;
    match error {
        E::Generic { .. } => StoreError::unavailable(error),
        error => StoreError::refused(error),
    }
}

impl ResultStore for ObjectResults {
    fn put<'a>(
        &'a self,
        key: &'a ResultKey,
        header: &'a HeaderMap,
    ) -> ResultFuture<'a, Box<dyn ResultUpload>> {
        let objects = Arc::clone(&self.objects);
        let upload = ObjectUpload::new(objects, self.path(key), self.attributes(header));
        Box::pin(std::future::ready(Ok(
            Box::new(upload) as Box<dyn ResultUpload>
        )))
    }

    fn get<'a>(
        &'a self,
        key: &'a ResultKey,
        range: Range<u64>,
    ) -> ResultFuture<'a, Option<ResultChunks>> {
        Box::pin(async move {
            let objects = Arc::clone(&self.objects);
            match Download::begin(objects, self.path(key), range).await {
                Ok(download) => Ok(Some(download.into_chunks())),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(store_error(error)),
            }
        })
    }

    #[cfg(feature = "signed-urls")]
    fn signed_url<'a>(&'a self, key: &'a ResultKey) -> ResultFuture<'a, Option<http::Uri>> {
        Box::pin(async move {
            match &self.signer {
                Some(signer) => signer.sign(&self.path(key)).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn delete<'a>(&'a self, keys: &'a [ResultKey]) -> ResultFuture<'a, ()> {
        Box::pin(async move {
            let paths: Vec<_> = keys.iter().map(|key| Ok(self.path(key))).collect();
            let mut deleted = self.objects.delete_stream(stream::iter(paths).boxed());
            while let Some(one) = deleted.next().await {
                match one {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(store_error(error)),
                }
            }
            Ok(())
        })
    }

    fn list(&self) -> ResultEntries<'_> {
        let objects = self.objects.list(Some(&self.prefix));
        Box::pin(objects.filter_map(|object| {
            std::future::ready(match object {
                Ok(object) => self.stored(&object).map(Ok),
                Err(error) => Some(Err(store_error(error))),
            })
        }))
    }
}
