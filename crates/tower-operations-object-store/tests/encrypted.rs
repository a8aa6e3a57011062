//! Encrypted results in memory, in a folder and in a bucket.

use std::sync::Arc;

use object_store::{local::LocalFileSystem, memory::InMemory};
use test_support::{encryption::TestKeys, private::Folder, s3::S3Server};
use tower_operations::results::EncryptedResults;
use tower_operations_conformance as conformance;
use tower_operations_object_store::ObjectResults;

fn encrypted(results: ObjectResults) -> EncryptedResults<ObjectResults, TestKeys> {
    EncryptedResults::new(results, TestKeys::default())
}

#[tokio::test]
async fn encrypted_objects_keep_the_promises_of_a_result_store() {
    let memory = ObjectResults::new(Arc::new(InMemory::new()), "results");
    conformance::results(&encrypted(memory)).await;
    let test = Folder::new("objects-encrypted");
    let folder = LocalFileSystem::new_with_prefix(test.path()).unwrap();
    let folder = ObjectResults::new(Arc::new(folder), "results");
    conformance::results(&encrypted(folder)).await;
    let server = S3Server::start();
    let bucket = ObjectResults::new(server.bucket(), "results");
    conformance::results(&encrypted(bucket)).await;
}
