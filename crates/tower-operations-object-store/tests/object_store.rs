//! Results in a folder and in memory.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, memory::InMemory};
use test_support::private::Folder;
use tower_operations::{
    OperationId,
    results::{ResultKey, ResultStore},
    store::FencingToken,
};
use tower_operations_conformance as conformance;
use tower_operations_object_store::ObjectResults;

fn folder(path: &Path) -> Arc<LocalFileSystem> {
    Arc::new(LocalFileSystem::new_with_prefix(path).unwrap())
}

/// Returns the files below a folder.
fn files(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

#[tokio::test]
async fn objects_keep_the_promises_of_a_result_store() {
    let test = Folder::new("objects");
    std::fs::create_dir_all(test.join("there")).unwrap();
    for prefix in ["results", "a/b", ""] {
        conformance::results(&ObjectResults::new(Arc::new(InMemory::new()), prefix)).await;
    }
    conformance::results(&ObjectResults::new(folder(&test.join("there")), "results")).await;
}

#[tokio::test]
async fn dropped_uploads_leave_nothing() {
    let test = Folder::new("objects-dropped");
    let path = test.join("there");
    std::fs::create_dir_all(&path).unwrap();
    let results = ObjectResults::new(folder(&path), "results");
    let key = ResultKey::new(OperationId::new(), FencingToken::from_number(1));
    let mut upload = results.put(&key, &HeaderMap::new()).await.unwrap();
    for _ in 0..20 {
        upload.write(Bytes::from(vec![7; 1 << 20])).await.unwrap();
    }
    let staged = files(&path);
    assert!(staged.len() == 1 && staged[0].contains('#'), "{staged:?}");
    drop(upload);
    let begun = tokio::time::Instant::now();
    while !files(&path).is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            files(&path)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn chunks_of_any_length_become_parts_of_one_length() {
    let objects = Arc::new(InMemory::new());
    let results = ObjectResults::new(objects.clone(), "results");
    let body: Bytes = (0..20_000_000_u32)
        .map(|index| (index % 251) as u8)
        .collect();
    for length in [1_000, 8 * 1024 * 1024, 19_999_999] {
        let key = ResultKey::new(OperationId::new(), FencingToken::from_number(1));
        let mut upload = results.put(&key, &HeaderMap::new()).await.unwrap();
        for begin in (0..body.len()).step_by(length) {
            let chunk = body.slice(begin..body.len().min(begin + length));
            upload.write(chunk).await.unwrap();
        }
        for _ in 0..2 {
            upload.finish().await.unwrap();
        }
        let path = format!("results/{key}").into();
        let stored = objects.get(&path).await.unwrap().bytes().await.unwrap();
        assert!(stored == body, "{length}");
    }
}

#[tokio::test]
async fn an_upload_has_at_most_one_part_in_memory() {
    const MIB: usize = 1 << 20;
    let results = ObjectResults::new(Arc::new(InMemory::new()), "results");
    let key = ResultKey::new(OperationId::new(), FencingToken::from_number(1));
    let mut upload = results.put(&key, &HeaderMap::new()).await.unwrap();
    assert_eq!(upload.buffered(), 0);
    for (chunk, buffered) in [(1, 1), (7, 8), (1, 1), (17, 2)] {
        let chunk = Bytes::from(vec![7; chunk * MIB]);
        upload.write(chunk).await.unwrap();
        assert_eq!(upload.buffered(), buffered * MIB);
    }
    upload.finish().await.unwrap();
    assert_eq!(upload.buffered(), 0);
}

#[tokio::test]
async fn objects_of_others_are_not_listed() {
    let objects = Arc::new(InMemory::new());
    let results = ObjectResults::new(objects.clone(), "results");
    for name in [
        "results/readme.txt",
        "results/a/b/c",
        "results/a/7",
        "elsewhere/a/b",
    ] {
        objects.put(&name.into(), "text".into()).await.unwrap();
    }
    let objects: Arc<dyn ObjectStore> = objects;
    let there = objects.list(None);
    assert_eq!(futures_util::StreamExt::count(there).await, 4);
    assert_eq!(futures_util::StreamExt::count(results.list()).await, 0);
}
