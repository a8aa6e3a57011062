//! Checks of result stores.

use std::{future::poll_fn, ops::Range, time::SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use tower_operations::{
    OperationId,
    results::{ResultChunks, ResultKey, ResultStore, ResultUpload, StoredResult},
    store::FencingToken,
};

use super::subject::{law, ok};

/// The lengths of the bodies in bytes. Stores keep long bodies in parts.
const LENGTHS: [usize; 6] = [1, 1000, 65_536, 1_000_000, 8 * 1024 * 1024, 17_000_001];

/// The length of the chunks that are written, in bytes.
const CHUNK: usize = 300_000;

/// Checks that an upload is visible once it is finished, as a whole, and comes back byte for byte.
///
/// # Panics
/// Panics when a promise of [`ResultStore`] is broken.
pub async fn results(store: &impl ResultStore) {
    for length in LENGTHS {
        an_upload_comes_back(store, length).await;
    }
    uploads_are_invisible_until_they_are_finished(store).await;
    keys_are_told_apart(store).await;
    uploads_are_listed_and_deleted(store).await;
}

/// Returns bytes that depend on their place and on `seed`.
fn content(seed: usize, length: usize) -> Bytes {
    let byte = |index: usize| (index * 31 + index / 251 * 7 + seed) as u8;
    (0..length).map(byte).collect()
}

fn new_key() -> ResultKey {
    ResultKey::new(OperationId::new(), FencingToken::random())
}

async fn write(upload: &mut dyn ResultUpload, body: &Bytes) {
    for begin in (0..body.len()).step_by(CHUNK) {
        let chunk = body.slice(begin..body.len().min(begin + CHUNK));
        ok(upload.write(chunk).await);
    }
}

async fn put(store: &impl ResultStore, key: &ResultKey, body: &Bytes) {
    let mut upload = ok(store.put(key, &HeaderMap::new()).await);
    write(&mut *upload, body).await;
    ok(upload.finish().await);
}

async fn read(mut chunks: ResultChunks) -> Bytes {
    let mut body = Vec::new();
    while let Some(chunk) = poll_fn(|context| chunks.as_mut().poll_next(context)).await {
        body.extend_from_slice(&ok(chunk));
    }
    body.into()
}

async fn get(store: &impl ResultStore, key: &ResultKey, range: Range<u64>) -> Option<Bytes> {
    match ok(store.get(key, range).await) {
        Some(chunks) => Some(read(chunks).await),
        None => None,
    }
}

async fn listed(store: &impl ResultStore) -> Vec<StoredResult> {
    let mut entries = store.list();
    let mut listed = Vec::new();
    while let Some(entry) = poll_fn(|context| entries.as_mut().poll_next(context)).await {
        listed.push(ok(entry));
    }
    listed
}

async fn an_upload_comes_back(store: &impl ResultStore, length: usize) {
    let (key, body, end) = (new_key(), content(1, length), length as u64);
    put(store, &key, &body).await;
    let ranges = [
        0..end,
        0..1,
        end - 1..end,
        end / 3..end / 3 + end.div_ceil(3),
        // Past the end of the upload.
        end / 2..end + 1000,
    ];
    for range in ranges {
        let part = get(store, &key, range.clone()).await;
        let expected = body.slice(range.start as usize..range.end.min(end) as usize);
        law!(
            7,
            part.as_ref() == Some(&expected),
            "{range:?} of {length} bytes came back as {:?} bytes or as others",
            part.map(|part| part.len())
        );
    }
}

async fn uploads_are_invisible_until_they_are_finished(store: &impl ResultStore) {
    let body = content(2, 20_000_000);
    let (dropped, finished) = (new_key(), new_key());
    for key in [&dropped, &finished] {
        let mut upload = ok(store.put(key, &HeaderMap::new()).await);
        write(&mut *upload, &body).await;
        let found = get(store, key, 0..1).await;
        law!(7, found.is_none(), "an unfinished upload is visible");
        let is_listed = listed(store).await.iter().any(|entry| entry.key == *key);
        law!(7, !is_listed, "an unfinished upload is listed");
        if key == &finished {
            ok(upload.finish().await);
        }
    }
    let found = get(store, &dropped, 0..1).await;
    law!(7, found.is_none(), "a dropped upload is visible");
    let found = get(store, &finished, 0..20_000_000).await;
    law!(
        7,
        found == Some(body),
        "a finished upload is not there as a whole"
    );
}

async fn keys_are_told_apart(store: &impl ResultStore) {
    let id = |text: &str| text.parse::<OperationId>().expect("a valid id");
    let token = FencingToken::from_number;
    let keys = [
        ResultKey::new(id("a"), token(1)),
        ResultKey::new(id("a"), token(16)),
        ResultKey::new(id("A"), token(1)),
        ResultKey::new(id("a~b.c_d-e"), token(1)),
        ResultKey::new(id("a~"), token(u64::MAX)),
        ResultKey::new(id("..."), token(1)),
        ResultKey::of_request(id("a"), token(1)),
        ResultKey::of_request(id("a~"), token(u64::MAX)),
    ];
    for (seed, key) in keys.iter().enumerate() {
        put(store, key, &content(seed, 100)).await;
    }
    for (seed, key) in keys.iter().enumerate() {
        let found = get(store, key, 0..100).await;
        law!(7, found == Some(content(seed, 100)), "{key} has {found:?}");
    }
    let listed = listed(store).await;
    for key in &keys {
        let times = listed.iter().filter(|entry| entry.key == *key).count();
        law!(7, times == 1, "{key} is listed {times} times");
    }
}

async fn uploads_are_listed_and_deleted(store: &impl ResultStore) {
    let begun = SystemTime::now();
    let keys: Vec<_> = (0..20).map(|_| new_key()).collect();
    for key in &keys {
        put(store, key, &content(3, 10)).await;
    }
    let (deleted, kept) = keys.split_at(10);
    let absent = [&[new_key()], deleted].concat();
    for _ in 0..2 {
        ok(store.delete(&absent).await);
    }
    let listed = listed(store).await;
    for key in deleted {
        let is_listed = listed.iter().any(|entry| entry.key == *key);
        let found = get(store, key, 0..10).await;
        law!(
            8,
            !is_listed && found.is_none(),
            "the deleted {key} is there"
        );
    }
    for key in kept {
        let Some(entry) = listed.iter().find(|entry| entry.key == *key) else {
            panic!("law 8: {key} is not listed");
        };
        let age = entry.finished_at.duration_since(begun);
        let lag = begun.duration_since(entry.finished_at).unwrap_or_default();
        law!(
            8,
            age.unwrap_or_default().as_secs() < 3600 && lag.as_secs() < 60,
            "{key} was finished at {:?}",
            entry.finished_at
        );
    }
}
