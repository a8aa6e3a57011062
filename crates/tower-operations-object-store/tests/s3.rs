//! Results in a bucket, through a server for S3 that others wrote.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::HeaderMap;
use object_store::{ClientOptions, RetryConfig};
use test_support::s3::S3Server;
use tokio::time::{Instant, sleep};
use tower_operations::{
    OperationId,
    results::{ResultKey, ResultStore},
    store::FencingToken,
};
use tower_operations_conformance as conformance;
use tower_operations_object_store::ObjectResults;

const MIB: usize = 1024 * 1024;

fn new_key() -> ResultKey {
    ResultKey::new(OperationId::new(), FencingToken::random())
}

fn content(length: usize) -> Bytes {
    (0..length).map(|index| (index % 251) as u8).collect()
}

async fn put(results: &ObjectResults, key: &ResultKey, body: &Bytes) {
    let mut upload = results.put(key, &HeaderMap::new()).await.unwrap();
    for begin in (0..body.len()).step_by(MIB) {
        let chunk = body.slice(begin..body.len().min(begin + MIB));
        upload.write(chunk).await.unwrap();
    }
    upload.finish().await.unwrap();
}

/// Returns the requests among these that have all of these texts.
fn count(requests: &[String], texts: &[&str]) -> usize {
    let has_all = |request: &&String| texts.iter().all(|text| request.contains(text));
    requests.iter().filter(has_all).count()
}

#[tokio::test]
async fn buckets_keep_the_promises_of_a_result_store() {
    let server = S3Server::start();
    for prefix in ["results", "a/b"] {
        conformance::results(&ObjectResults::new(server.bucket(), prefix)).await;
    }
    let begun = Instant::now();
    while !server.unfinished_uploads().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_long_body_is_a_multipart_upload_and_ranges_are_read_alone() {
    let server = S3Server::start();
    let results = ObjectResults::new(server.bucket(), "results");
    let (key, body) = (new_key(), content(27 * MIB + 5));
    put(&results, &key, &body).await;
    let requests = server.requests();
    assert_eq!(count(&requests, &["POST", "?uploads"]), 1, "{requests:?}");
    assert_eq!(count(&requests, &["PUT", "partNumber="]), 4, "{requests:?}");
    assert_eq!(count(&requests, &["POST", "?uploadId="]), 1, "{requests:?}");
    assert!(server.unfinished_uploads().is_empty());

    let part = 8 * MIB as u64;
    for range in [part - 1..part + 1, 0..1, 3 * part..27 * MIB as u64 + 5] {
        let mut chunks = results.get(&key, range.clone()).await.unwrap().unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = chunks.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert!(read == body[range.start as usize..range.end as usize]);
    }
    assert_eq!(count(&server.requests(), &["GET"]), 3);
}

#[tokio::test]
async fn dropped_uploads_leave_no_parts() {
    let server = S3Server::start();
    let results = ObjectResults::new(server.bucket(), "results");
    let mut upload = results.put(&new_key(), &HeaderMap::new()).await.unwrap();
    for _ in 0..20 {
        upload.write(content(MIB)).await.unwrap();
    }
    // Two parts, and the record of the upload.
    assert_eq!(server.unfinished_uploads().len(), 4);
    drop(upload);
    let begun = Instant::now();
    while !server.unfinished_uploads().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(10)).await;
    }
    let requests = server.requests();
    assert_eq!(
        count(&requests, &["DELETE", "uploadId="]),
        1,
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_call_that_is_dropped_is_repeated_or_breaks_the_upload() {
    let server = S3Server::start();
    let results = ObjectResults::new(server.bucket(), "results");
    let (key, body) = (new_key(), content(11 * MIB));
    let mut upload = results.put(&key, &HeaderMap::new()).await.unwrap();
    upload.write(body.slice(..7 * MIB)).await.unwrap();
    // Dropped while the multipart upload begins: no byte is lost, and none is there twice.
    let next = body.slice(7 * MIB..);
    assert!(upload.write(next.clone()).now_or_never().is_none());
    upload.write(next).await.unwrap();
    upload.finish().await.unwrap();
    let chunks = results.get(&key, 0..11 * MIB as u64).await.unwrap();
    let chunks: Vec<_> = chunks.unwrap().map(Result::unwrap).collect().await;
    assert!(chunks.concat() == body);

    // Dropped while a part is on its way: it cannot be sent again.
    let mut upload = results.put(&new_key(), &HeaderMap::new()).await.unwrap();
    upload.write(content(9 * MIB)).await.unwrap();
    let next = content(8 * MIB);
    assert!(upload.write(next.clone()).now_or_never().is_none());
    for _ in 0..2 {
        assert!(!upload.write(next.clone()).await.unwrap_err().is_transient());
    }
    assert!(!upload.finish().await.unwrap_err().is_transient());
    assert_eq!(results.list().count().await, 1);
}

#[tokio::test]
async fn uploads_are_deleted_in_batches_and_listed_in_pages() {
    const OBJECTS: usize = 1100;
    let server = S3Server::start();
    let results = ObjectResults::new(server.bucket(), "results");
    let keys: Vec<_> = (0..OBJECTS).map(|_| new_key()).collect();
    let puts = futures_util::stream::iter(&keys).for_each_concurrent(16, async |key| {
        put(&results, key, &content(10)).await;
    });
    puts.await;
    server.requests();
    let mut listed: Vec<_> = results
        .list()
        .map(|entry| entry.unwrap().key)
        .collect()
        .await;
    listed.sort_unstable();
    let mut expected = keys.clone();
    expected.sort_unstable();
    assert!(listed == expected, "{} are listed", listed.len());
    assert_eq!(count(&server.requests(), &["GET", "list-type=2"]), 2);

    results.delete(&keys).await.unwrap();
    let requests = server.requests();
    assert_eq!(count(&requests, &["POST", "?delete"]), 2, "{requests:?}");
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(results.list().count().await, 0);
}

#[tokio::test]
async fn wrong_credentials_are_a_permanent_error() {
    let server = S3Server::start();
    let client = server.client().with_secret_access_key("wrong");
    let results = ObjectResults::new(Arc::new(client.build().unwrap()), "results");
    let mut upload = results.put(&new_key(), &HeaderMap::new()).await.unwrap();
    upload.write(content(10)).await.unwrap();
    let error = upload.finish().await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(results.get(&new_key(), 0..1).await.is_err());
}

#[tokio::test]
async fn a_download_takes_as_long_as_its_reader() {
    let server = S3Server::start();
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let client = server
        .client()
        .with_client_options(ClientOptions::new().with_timeout(Duration::from_secs(1)))
        .with_allow_http(true)
        .with_retry(retry);
    let results = ObjectResults::new(Arc::new(client.build().unwrap()), "results");
    // Much more than the buffers of the sockets take.
    let (key, body) = (new_key(), content(64 * MIB));
    put(&ObjectResults::new(server.bucket(), "results"), &key, &body).await;
    server.requests();
    let range = 1..body.len() as u64 - 1;
    let mut chunks = results.get(&key, range.clone()).await.unwrap().unwrap();
    let (mut read, mut pauses) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        read.extend_from_slice(&chunk.unwrap());
        if read.len() > (pauses + 1) * 16 * MIB {
            pauses += 1;
            sleep(Duration::from_millis(1100)).await;
        }
    }
    assert!(read == body[1..body.len() - 1]);
    let requests = count(&server.requests(), &["GET"]);
    assert!((2..=6).contains(&requests), "{requests} requests");
}

#[tokio::test]
async fn a_download_ends_with_an_error_if_its_object_has_gone() {
    let server = S3Server::start();
    let client = server
        .client()
        .with_client_options(ClientOptions::new().with_timeout(Duration::from_millis(500)))
        .with_allow_http(true);
    let results = ObjectResults::new(Arc::new(client.build().unwrap()), "results");
    let (key, body) = (new_key(), content(64 * MIB));
    put(&ObjectResults::new(server.bucket(), "results"), &key, &body).await;
    let range = 0..body.len() as u64;
    let mut chunks = results.get(&key, range).await.unwrap().unwrap();
    chunks.next().await.unwrap().unwrap();
    results.delete(std::slice::from_ref(&key)).await.unwrap();
    sleep(Duration::from_millis(600)).await;
    let mut length = 0;
    let error = loop {
        match chunks.next().await.expect("the body is not whole") {
            Ok(chunk) => length += chunk.len(),
            Err(error) => break error,
        }
    };
    assert!(length < body.len() && !error.is_transient(), "{error}");
}

/// The server checks the signature, and sends the fields that the object has.
#[cfg(feature = "signed-urls")]
#[tokio::test]
async fn a_signed_url_downloads_one_object_without_credentials() {
    let server = S3Server::start();
    let results = ObjectResults::new(server.bucket(), "results");
    let results = results.signed_urls(server.bucket(), Duration::from_secs(60));
    let (key, body) = (new_key(), content(9 * MIB));
    let mut header = HeaderMap::new();
    header.insert("content-type", "application/pdf".parse().unwrap());
    header.insert("x-name", "q3".parse().unwrap());
    let mut upload = results.put(&key, &header).await.unwrap();
    upload.write(body.clone()).await.unwrap();
    upload.finish().await.unwrap();

    let url = results.signed_url(&key).await.unwrap().unwrap();
    let target = url.path_and_query().unwrap().as_str();
    let client = test_support::client::Client::new(server.endpoint());
    let answer = client.get(target).await;
    assert_eq!(answer.status(), http::StatusCode::OK);
    assert!(*answer.body() == body);
    assert_eq!(answer.header("content-type"), "application/pdf");
    let other = target.replace(&key.to_string(), &new_key().to_string());
    assert_ne!(other, target);
    let answer = client.get(&other).await;
    assert_eq!(answer.status(), http::StatusCode::FORBIDDEN);
}
