//! A result store in memory, which fails on demand.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Uri};
use tower_operations::{
    results::{
        ResultChunks, ResultEntries, ResultFuture, ResultKey, ResultStore, ResultUpload,
        StoredResult,
    },
    store::{StoreError, StoreResult},
};

/// The length of the chunks that are read, in bytes.
const CHUNK: usize = 10_000;

/// Clones share the uploads.
#[derive(Clone, Default)]
pub struct MemoryResults(Arc<Inside>);

#[derive(Default)]
struct Inside {
    stored: Mutex<BTreeMap<String, (Bytes, SystemTime)>>,
    /// The number of calls that fail from now on, and whether a repetition may succeed.
    failures: AtomicUsize,
    /// The number of calls that succeed before.
    successes: AtomicUsize,
    is_refusing: Mutex<bool>,
    /// Whether URLs are signed.
    signs: AtomicBool,
    /// The header of the last upload.
    header: Mutex<HeaderMap>,
    uploads: AtomicUsize,
    /// The number of bytes that each upload with a chunk says it has in memory.
    buffered: AtomicUsize,
    longest_chunk: AtomicUsize,
    reads: AtomicUsize,
}

impl MemoryResults {
    /// Makes the next calls of uploads and reads fail transiently.
    pub fn fail(&self, calls: usize) {
        self.0.failures.store(calls, SeqCst);
    }

    /// Makes all calls of uploads and reads but the next ones fail transiently.
    pub fn fail_after(&self, calls: usize) {
        self.0.successes.store(calls, SeqCst);
        self.fail(usize::MAX);
    }

    /// Makes every call of uploads and reads fail for good.
    pub fn refuse(&self) {
        *self.0.is_refusing.lock().unwrap() = true;
    }

    /// Makes the store sign URLs.
    pub fn sign(&self) {
        self.0.signs.store(true, SeqCst);
    }

    /// Makes each upload say, from its first chunk on, that it has so many bytes in memory.
    pub fn buffer(&self, bytes: usize) {
        self.0.buffered.store(bytes, SeqCst);
    }

    /// Returns the header of the upload that was begun last.
    pub fn header(&self) -> HeaderMap {
        self.0.header.lock().unwrap().clone()
    }

    /// Returns the keys of the finished uploads.
    pub fn keys(&self) -> Vec<String> {
        self.0.stored.lock().unwrap().keys().cloned().collect()
    }

    /// Returns the number of uploads that are in progress.
    pub fn uploads(&self) -> usize {
        self.0.uploads.load(SeqCst)
    }

    /// Returns the number of bytes that were read since the last call.
    pub fn read(&self) -> usize {
        self.0.reads.swap(0, SeqCst)
    }

    /// Returns the length of the longest chunk that was written, in bytes.
    pub fn longest_chunk(&self) -> usize {
        self.0.longest_chunk.load(SeqCst)
    }

    /// Adds an upload that was finished at this time.
    pub fn insert(&self, key: &ResultKey, body: impl Into<Bytes>, at: SystemTime) {
        let mut stored = self.0.stored.lock().unwrap();
        stored.insert(key.to_string(), (body.into(), at));
    }

    /// Changes the only upload.
    pub fn change(&self, change: impl FnOnce(Bytes) -> Bytes) {
        let mut stored = self.0.stored.lock().unwrap();
        assert_eq!(stored.len(), 1);
        let (body, _) = stored.values_mut().next().unwrap();
        *body = change(std::mem::take(body));
    }

    /// Removes every upload.
    pub fn clear(&self) {
        self.0.stored.lock().unwrap().clear();
    }

    fn call(&self) -> StoreResult<()> {
        if *self.0.is_refusing.lock().unwrap() {
            return Err(StoreError::refused("no room"));
        }
        let one_less = |calls: usize| calls.checked_sub(1);
        let successes = &self.0.successes;
        if successes.fetch_update(SeqCst, SeqCst, one_less).is_ok() {
            return Ok(());
        }
        match self.0.failures.fetch_update(SeqCst, SeqCst, one_less) {
            Ok(_) => Err(StoreError::unavailable("away")),
            Err(_) => Ok(()),
        }
    }
}

struct MemoryUpload {
    results: MemoryResults,
    key: ResultKey,
    body: Vec<u8>,
}

impl Drop for MemoryUpload {
    fn drop(&mut self) {
        self.results.0.uploads.fetch_sub(1, SeqCst);
    }
}

impl ResultStore for MemoryResults {
    fn put<'a>(
        &'a self,
        key: &'a ResultKey,
        header: &'a HeaderMap,
    ) -> ResultFuture<'a, Box<dyn ResultUpload>> {
        Box::pin(async move {
            self.call()?;
            self.0.header.lock().unwrap().clone_from(header);
            self.0.uploads.fetch_add(1, SeqCst);
            let upload = MemoryUpload {
                results: self.clone(),
                key: key.clone(),
                body: Vec::new(),
            };
            Ok(Box::new(upload) as Box<dyn ResultUpload>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a ResultKey,
        range: Range<u64>,
    ) -> ResultFuture<'a, Option<ResultChunks>> {
        Box::pin(async move {
            self.call()?;
            let stored = self.0.stored.lock().unwrap();
            let Some((body, _)) = stored.get(&key.to_string()) else {
                return Ok(None);
            };
            let end = body.len().min(range.end as usize);
            let part = body.slice((range.start as usize).min(end)..end);
            let begins = (0..part.len()).step_by(CHUNK);
            let chunks: Vec<_> = begins
                .map(|begin| part.slice(begin..part.len().min(begin + CHUNK)))
                .collect();
            let inside = Arc::clone(&self.0);
            let chunks = stream::iter(chunks).map(move |chunk| {
                inside.reads.fetch_add(chunk.len(), SeqCst);
                Ok(chunk)
            });
            Ok(Some(Box::pin(chunks) as ResultChunks))
        })
    }

    fn signed_url<'a>(&'a self, key: &'a ResultKey) -> ResultFuture<'a, Option<Uri>> {
        Box::pin(async move {
            if !self.0.signs.load(SeqCst) {
                return Ok(None);
            }
            self.call()?;
            let url = format!("https://storage.example/{key}?signature=abc");
            Ok(Some(url.parse().unwrap()))
        })
    }

    fn delete<'a>(&'a self, keys: &'a [ResultKey]) -> ResultFuture<'a, ()> {
        Box::pin(async move {
            let mut stored = self.0.stored.lock().unwrap();
            for key in keys {
                stored.remove(&key.to_string());
            }
            Ok(())
        })
    }

    fn list(&self) -> ResultEntries<'_> {
        let stored = self.0.stored.lock().unwrap();
        let entries = stored.iter();
        let entries: Vec<_> = entries
            .map(|(key, (_, at))| Ok(StoredResult::new(key.parse().unwrap(), *at)))
            .collect();
        Box::pin(stream::iter(entries))
    }
}

impl ResultUpload for MemoryUpload {
    fn write(&mut self, chunk: Bytes) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            self.results.call()?;
            let longest = &self.results.0.longest_chunk;
            longest.fetch_max(chunk.len(), SeqCst);
            self.body.extend_from_slice(&chunk);
            Ok(())
        })
    }

    fn finish(&mut self) -> ResultFuture<'_, ()> {
        Box::pin(async {
            self.results.call()?;
            let body = std::mem::take(&mut self.body);
            self.results.insert(&self.key, body, SystemTime::now());
            Ok(())
        })
    }

    fn buffered(&self) -> usize {
        match self.body.is_empty() {
            true => 0,
            false => self.results.0.buffered.load(SeqCst),
        }
    }
}
