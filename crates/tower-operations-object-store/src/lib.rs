#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod upload;

use std::{ops::Range, sync::Arc, time::SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, path::Path};
use tower_operations::{
    results::{
        ResultChunks, ResultEntries, ResultFuture, ResultKey, ResultStore, ResultUpload,
        StoredResult,
    },
    store::StoreError,
};

use upload::ObjectUpload;

/// The long results of operations, as objects below a prefix. See the [crate](self).
#[derive(Debug, Clone)]
pub struct ObjectResults {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl ObjectResults {
    /// Creates a store of results below `prefix`, which belongs to the operations of one store.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self {
            objects,
            prefix: Path::from(prefix),
        }
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
    fn put<'a>(&'a self, key: &'a ResultKey) -> ResultFuture<'a, Box<dyn ResultUpload>> {
        let upload = ObjectUpload::new(Arc::clone(&self.objects), self.path(key));
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
            let options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
            match self.objects.get_opts(&self.path(key), options).await {
                Ok(found) => {
                    let chunks = found.into_stream().map_err(store_error);
                    Ok(Some(Box::pin(chunks) as ResultChunks))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(store_error(error)),
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
