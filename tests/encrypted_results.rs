//! Results that are encrypted with keys of the application.

use std::{convert::Infallible, ops::Range, time::SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use test_support::{encryption::TestKeys, results::MemoryResults};
use tower::{Layer, ServiceExt, service_fn};
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, RequestBody,
    results::{
        ChunkContext, EncryptedResults, ResultEntries, ResultFuture, ResultKey, ResultStore,
        ResultUpload,
    },
    store::{FencingToken, StoreError, StoreResult},
};

/// The length of the plain bytes of a chunk.
const CHUNK: usize = 65_536;

/// The length of a sealed chunk.
const SEALED: usize = CHUNK + 16;

const HEADER: usize = 4096;

type Encrypted = EncryptedResults<MemoryResults, TestKeys>;

fn stores() -> (MemoryResults, TestKeys, Encrypted) {
    let (memory, keys) = (MemoryResults::default(), TestKeys::default());
    let encrypted = EncryptedResults::new(memory.clone(), keys.clone());
    (memory, keys, encrypted)
}

fn new_key() -> ResultKey {
    ResultKey::new(OperationId::new(), FencingToken::random())
}

fn content(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 % 251) as u8).collect()
}

async fn put(results: &impl ResultStore, key: &ResultKey, body: &Bytes) {
    let mut upload = results.put(key, &HeaderMap::new()).await.unwrap();
    for chunk in body.chunks(50_000) {
        upload.write(body.slice_ref(chunk)).await.unwrap();
    }
    upload.finish().await.unwrap();
}

/// Reads a range. Returns the bytes, and the error with which the read ended.
async fn read(
    results: &impl ResultStore,
    key: &ResultKey,
    range: Range<u64>,
) -> (Vec<u8>, StoreResult<()>) {
    let mut read = Vec::new();
    let mut chunks = match results.get(key, range).await {
        Ok(chunks) => chunks.expect("the upload is there"),
        Err(error) => return (read, Err(error)),
    };
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => read.extend_from_slice(&chunk),
            Err(error) => {
                assert!(chunks.next().await.is_none(), "the stream goes on");
                return (read, Err(error));
            }
        }
    }
    (read, Ok(()))
}

/// Returns the bytes of the only upload as they are stored.
fn stored(memory: &MemoryResults) -> Bytes {
    let mut stored = Bytes::new();
    memory.change(|bytes| {
        stored = bytes.clone();
        bytes
    });
    stored
}

fn source(error: &StoreError) -> String {
    std::error::Error::source(error).unwrap().to_string()
}

#[tokio::test]
async fn an_upload_counts_its_chunk_and_the_bytes_of_the_other_store() {
    let (memory, _, encrypted) = stores();
    memory.buffer(1_000_000);
    let mut upload = encrypted.put(&new_key(), &HeaderMap::new()).await.unwrap();
    assert_eq!(upload.buffered(), HEADER, "the header is not written yet");
    upload.write(content(100)).await.unwrap();
    assert_eq!(upload.buffered(), 1_000_100);
    upload.write(content(CHUNK)).await.unwrap();
    assert_eq!(upload.buffered(), 1_000_100);
    memory.fail(1);
    upload.write(content(CHUNK - 100)).await.unwrap_err();
    assert_eq!(upload.buffered(), 1_000_000 + CHUNK + 16);
}

#[tokio::test]
async fn every_range_around_the_edges_of_chunks_is_read() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
        let (memory, keys, encrypted) = stores();
        let (key, body) = (new_key(), content(length));
        put(&encrypted, &key, &body).await;
        let chunks = length / CHUNK + 1;
        assert_eq!(stored(&memory).len(), HEADER + length + 16 * chunks);
        let edges = (0..=chunks).map(|index| index * CHUNK);
        let mut points: Vec<_> = edges
            .flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1])
            .chain([length.saturating_sub(1), length])
            .filter(|point| *point <= length)
            .collect();
        points.sort_unstable();
        points.dedup();
        for &start in &points {
            for &end in points.iter().filter(|end| **end >= start) {
                let (bytes, ended) = read(&encrypted, &key, start as u64..end as u64).await;
                ended.unwrap();
                assert!(bytes == body[start..end], "{start}..{end} of {length}");
                let spanned = end.div_ceil(CHUNK).saturating_sub(start / CHUNK);
                assert!(memory.read() <= HEADER + spanned * SEALED + 10_000);
                assert_eq!(keys.unwrapped(), 1);
            }
            if start < length {
                let past = start as u64..(length + 2 * CHUNK) as u64;
                let (bytes, ended) = read(&encrypted, &key, past).await;
                ended.unwrap();
                assert!(bytes == body[start..], "{start} and past {length}");
                memory.read();
                keys.unwrapped();
            }
        }
    }
}

#[tokio::test]
async fn nothing_plain_is_stored_and_no_two_uploads_are_alike() {
    let (memory, _, encrypted) = stores();
    let body = content(CHUNK);
    let mut stored_before = Bytes::new();
    let key = new_key();
    for _ in 0..2 {
        put(&encrypted, &key, &body).await;
        let stored = stored(&memory);
        let has_plain = stored.windows(8).any(|window| window == &body[..8]);
        assert!(!has_plain && stored != stored_before);
        stored_before = stored;
    }
}

#[tokio::test]
async fn damaged_uploads_are_permanent_errors() {
    let length = 3 * CHUNK + 100;
    let body = content(length);
    let place = |index: usize| HEADER + index * SEALED;
    let altered = [0, 5, 8, 20, 60]
        .into_iter()
        .chain((0..4).flat_map(|index| {
            let begin = place(index);
            [begin, begin + 50, begin + 100, begin + 115]
        }));
    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let mut damages: Vec<(String, Damage)> = Vec::new();
    for at in altered {
        let alter: Damage = Box::new(move |bytes| bytes[at] ^= 1);
        damages.push((format!("altered at {at}"), alter));
    }
    for left in [
        0,
        3,
        HEADER - 1,
        HEADER,
        place(0) + 1,
        place(1),
        place(2) - 1,
        place(2) + 15,
    ]
    .into_iter()
    .chain([place(3), place(3) + 15, place(3) + 16, place(3) + 115])
    {
        let cut: Damage = Box::new(move |bytes| bytes.truncate(left));
        damages.push((format!("cut to {left}"), cut));
    }
    let swap: Damage = Box::new(move |bytes| {
        let (first, second) = bytes[place(0)..place(2)].split_at_mut(SEALED);
        first.swap_with_slice(second);
    });
    damages.push(("swapped".into(), swap));
    let remove: Damage = Box::new(move |bytes| drop(bytes.drain(place(1)..place(2))));
    damages.push(("a chunk removed".into(), remove));
    let repeat: Damage = Box::new(move |bytes| {
        let chunk = bytes[place(0)..place(1)].to_vec();
        bytes.splice(place(1)..place(1), chunk);
    });
    damages.push(("a chunk repeated".into(), repeat));
    damages.push(("longer".into(), Box::new(|bytes| bytes.push(0))));

    for (name, damage) in damages {
        let (memory, _, encrypted) = stores();
        let key = new_key();
        put(&encrypted, &key, &body).await;
        memory.change(|bytes| {
            let mut bytes = bytes.to_vec();
            damage(&mut bytes);
            bytes.into()
        });
        let (bytes, ended) = read(&encrypted, &key, 0..length as u64).await;
        let error = ended.expect_err(&name);
        assert!(!error.is_transient(), "{name}: {error}");
        assert!(body.starts_with(&bytes), "{name}: other bytes were read");
        // Ranges end with an error or have the right bytes.
        for start in [0, CHUNK, 2 * CHUNK, 3 * CHUNK] {
            let range = start as u64..start as u64 + 90;
            let (bytes, ended) = read(&encrypted, &key, range).await;
            let expected = &body[start..start + 90];
            match ended {
                Ok(()) => assert!(bytes == expected, "{name}: other bytes were read"),
                Err(_) => assert!(bytes.is_empty(), "{name}"),
            }
        }
    }
}

#[tokio::test]
async fn the_upload_of_another_operation_is_not_opened() {
    let (memory, _, encrypted) = stores();
    let (key, other) = (new_key(), new_key());
    put(&encrypted, &key, &content(100)).await;
    memory.insert(&other, stored(&memory), SystemTime::now());
    let (bytes, ended) = read(&encrypted, &other, 0..100).await;
    assert_eq!(source(&ended.unwrap_err()), "key not unwrapped");
    assert!(bytes.is_empty());
    let plain = new_key();
    memory.insert(&plain, content(CHUNK), SystemTime::now());
    let (_, ended) = read(&encrypted, &plain, 0..100).await;
    let error = ended.unwrap_err();
    assert!(source(&error).contains("not encrypted") && !error.is_transient());
    assert!(encrypted.get(&new_key(), 0..1).await.unwrap().is_none());
    let not_there = encrypted.get(&new_key(), 100_000..100_001).await;
    assert!(not_there.unwrap().is_none());
}

#[tokio::test]
async fn wrapping_keys_rotate_and_unknown_ones_are_permanent_errors() {
    let (memory, keys, encrypted) = stores();
    let uploads = [new_key(), new_key()];
    for (number, key) in uploads.iter().enumerate() {
        keys.use_key(number as u8);
        put(&encrypted, key, &content(100)).await;
    }
    for key in &uploads {
        let (bytes, ended) = read(&encrypted, key, 0..100).await;
        ended.unwrap();
        assert_eq!(bytes, content(100));
    }
    encrypted.delete(&uploads[..1]).await.unwrap();
    let listed: Vec<_> = encrypted
        .list()
        .map(|entry| entry.unwrap().key)
        .collect()
        .await;
    assert_eq!(listed, uploads[1..]);
    // The first byte of the wrapped key is the number of the wrapping key.
    for (number, expected) in [(7, "no wrapping key 7"), (0, "key not unwrapped")] {
        memory.change(|bytes| {
            let mut bytes = bytes.to_vec();
            bytes[8] = number;
            bytes.into()
        });
        let (_, ended) = read(&encrypted, &uploads[1], 0..100).await;
        let error = ended.unwrap_err();
        assert_eq!(source(&error), expected);
        assert!(!error.is_transient());
    }
    keys.use_key(7);
    let refused = encrypted
        .put(&new_key(), &HeaderMap::new())
        .await
        .err()
        .unwrap();
    assert!(!refused.is_transient());
}

#[tokio::test]
async fn a_key_service_that_is_away_is_a_transient_error() {
    let (_, keys, encrypted) = stores();
    let key = new_key();
    keys.fail(1);
    assert!(
        encrypted
            .put(&key, &HeaderMap::new())
            .await
            .err()
            .unwrap()
            .is_transient()
    );
    put(&encrypted, &key, &content(100)).await;
    keys.fail(1);
    assert!(
        encrypted
            .get(&key, 0..100)
            .await
            .err()
            .unwrap()
            .is_transient()
    );
    read(&encrypted, &key, 0..100).await.1.unwrap();
}

/// A result store whose calls of uploads are pending once before they do anything.
struct Pausing(MemoryResults);

struct PausingUpload(Box<dyn ResultUpload>);

impl ResultUpload for PausingUpload {
    fn write(&mut self, chunk: Bytes) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.0.write(chunk).await
        })
    }

    fn finish(&mut self) -> ResultFuture<'_, ()> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.0.finish().await
        })
    }
}

impl ResultStore for Pausing {
    fn put<'a>(
        &'a self,
        key: &'a ResultKey,
        header: &'a HeaderMap,
    ) -> ResultFuture<'a, Box<dyn ResultUpload>> {
        Box::pin(async move {
            let upload = PausingUpload(self.0.put(key, header).await?);
            Ok(Box::new(upload) as Box<dyn ResultUpload>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a ResultKey,
        range: Range<u64>,
    ) -> ResultFuture<'a, Option<tower_operations::results::ResultChunks>> {
        self.0.get(key, range)
    }

    fn delete<'a>(&'a self, keys: &'a [ResultKey]) -> ResultFuture<'a, ()> {
        self.0.delete(keys)
    }

    fn list(&self) -> ResultEntries<'_> {
        self.0.list()
    }
}

#[tokio::test]
async fn calls_that_fail_or_are_dropped_are_repeated() {
    let memory = MemoryResults::default();
    let encrypted = EncryptedResults::new(Pausing(memory.clone()), TestKeys::default());
    let (key, body) = (new_key(), content(5 * CHUNK));
    let mut upload = encrypted.put(&key, &HeaderMap::new()).await.unwrap();
    for (number, chunk) in body.chunks(150_000).enumerate() {
        let chunk = body.slice_ref(chunk);
        // Each repetition gets a little further.
        for _ in 0..number {
            assert!(upload.write(chunk.clone()).now_or_never().is_none());
        }
        memory.fail(number);
        while let Err(error) = upload.write(chunk.clone()).await {
            assert!(error.is_transient(), "{error}");
        }
    }
    assert!(upload.finish().now_or_never().is_none());
    memory.fail(2);
    for _ in 0..2 {
        assert!(upload.finish().await.unwrap_err().is_transient());
    }
    upload.finish().await.unwrap();
    let (bytes, ended) = read(&encrypted, &key, 0..body.len() as u64).await;
    ended.unwrap();
    assert!(bytes == body);
}

#[tokio::test]
async fn a_dropped_upload_is_aborted() {
    let (memory, _, encrypted) = stores();
    let mut upload = encrypted.put(&new_key(), &HeaderMap::new()).await.unwrap();
    upload.write(content(3 * CHUNK)).await.unwrap();
    assert!(memory.longest_chunk() <= SEALED);
    assert_eq!(memory.uploads(), 1);
    drop(upload);
    assert_eq!(memory.uploads(), 0);
    assert!(memory.keys().is_empty());
}

#[test]
fn contexts_differ_in_nonce_and_associated_data() {
    let keys = [new_key(), new_key()];
    let mut seen = std::collections::BTreeSet::new();
    for upload in &keys {
        for index in [0, 1, 255, 256, u64::MAX] {
            for is_last in [false, true] {
                let context = ChunkContext::new(upload, index, is_last);
                assert!(context.associated_data().starts_with(&context.nonce()));
                assert!(seen.insert(context.associated_data()));
            }
        }
    }
    let nonce = ChunkContext::new(&keys[0], 258, true).nonce();
    assert_eq!(nonce, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1]);
}

/// The result that a client reads is plain, and the stored one is not.
#[tokio::test]
async fn an_encrypted_result_is_read_back_whole_and_by_a_range() {
    let (memory, _, encrypted) = stores();
    let operations = Operations::new(MemoryStore::new()).result_store(encrypted);
    let body = content(300_000);
    let sent = body.clone();
    let service = service_fn(move |_: Request<RequestBody<BufferedBody>>| {
        let response = Response::new(BufferedBody::from(sent.clone()));
        async move { Ok::<_, Infallible>(response) }
    });
    let request = Request::post("/reports").body(BufferedBody::default());
    let accepted = operations.layer().layer(service).oneshot(request.unwrap());
    let accepted = accepted.await.unwrap();
    let id = accepted.extensions().get::<OperationId>().unwrap().clone();
    for (range, expected) in [
        ("bytes=0-", body.clone()),
        ("bytes=70000-140000", body.slice(70_000..140_001)),
    ] {
        let request = Request::get(format!("/{id}/result?wait=20")).header("range", range);
        let response = operations.poll_service().oneshot(request.body(()).unwrap());
        let read = response.await.unwrap().into_body().collect().await.unwrap();
        assert!(read.to_bytes() == expected);
    }
    let stored = stored(&memory);
    assert!(!stored.windows(100).any(|at| *at == body[..100]));
}
