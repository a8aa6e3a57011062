//! Signed URLs of objects.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, Method};
use object_store::{Attribute, ObjectStoreExt, memory::InMemory, path::Path, signer::Signer};
use tower_operations::{
    OperationId,
    results::{ResultKey, ResultStore},
    store::FencingToken,
};
use tower_operations_conformance as conformance;
use tower_operations_object_store::ObjectResults;
use url::Url;

/// Signs URLs, and remembers the arguments.
#[derive(Debug, Default)]
struct Recording(Mutex<Vec<(Method, String, Duration)>>);

#[async_trait::async_trait]
impl Signer for Recording {
    async fn signed_url(
        &self,
        method: Method,
        path: &Path,
        valid_for: Duration,
    ) -> object_store::Result<Url> {
        let asked = (method, path.to_string(), valid_for);
        self.0.lock().unwrap().push(asked);
        Ok(Url::parse(&format!("https://storage.example/{path}?signature=abc")).unwrap())
    }
}

fn key() -> ResultKey {
    ResultKey::new(OperationId::new(), FencingToken::from_number(7))
}

#[tokio::test]
async fn a_url_is_signed_for_one_object_and_a_short_time() {
    let signer = Arc::new(Recording::default());
    let five_minutes = Duration::from_secs(300);
    let results = ObjectResults::new(Arc::new(InMemory::new()), "results")
        .signed_urls(signer.clone(), five_minutes);
    let key = key();
    let url = results.signed_url(&key).await.unwrap().unwrap();
    let expected = format!("https://storage.example/results/{key}?signature=abc");
    assert_eq!(url.to_string(), expected);
    let asked = std::mem::take(&mut *signer.0.lock().unwrap());
    assert_eq!(
        asked,
        [(Method::GET, format!("results/{key}"), five_minutes)]
    );
}

#[tokio::test]
async fn without_the_setting_nothing_is_signed() {
    let results = ObjectResults::new(Arc::new(InMemory::new()), "results");
    assert_eq!(results.signed_url(&key()).await.unwrap(), None);
}

#[test]
fn a_url_is_valid_for_at_most_15_minutes() {
    for (seconds, is_allowed) in [(0, false), (1, true), (900, true), (901, false)] {
        let tried = std::panic::catch_unwind(|| {
            let results = ObjectResults::new(Arc::new(InMemory::new()), "results");
            let valid_for = Duration::from_secs(seconds);
            results.signed_urls(Arc::new(Recording::default()), valid_for)
        });
        assert_eq!(tried.is_ok(), is_allowed, "{seconds}");
    }
}

#[tokio::test]
async fn objects_with_signed_urls_have_the_fields_of_their_response() {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/pdf"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-disposition", "attachment; filename=q3.pdf"),
    ] {
        fields.insert(name, value.parse().unwrap());
    }
    for is_signed in [true, false] {
        for length in [10, 20_000_000] {
            let objects = Arc::new(InMemory::new());
            let mut results = ObjectResults::new(objects.clone(), "results");
            if is_signed {
                let signer = Arc::new(Recording::default());
                results = results.signed_urls(signer, Duration::from_secs(60));
            }
            let key = key();
            let mut upload = results.put(&key, &fields).await.unwrap();
            upload.write(vec![7; length].into()).await.unwrap();
            upload.finish().await.unwrap();
            let path = Path::from(format!("results/{key}"));
            let stored = objects.get(&path).await.unwrap();
            let of = |attribute| stored.attributes.get(&attribute).map(AsRef::as_ref);
            assert_eq!(stored.attributes.len(), if is_signed { 4 } else { 0 });
            assert_eq!(
                of(Attribute::ContentType),
                is_signed.then_some("application/pdf")
            );
            assert_eq!(of(Attribute::ContentEncoding), is_signed.then_some("gzip"));
        }
    }
}

#[tokio::test]
async fn signing_changes_no_promise_of_a_result_store() {
    let results = ObjectResults::new(Arc::new(InMemory::new()), "results");
    let signer = Arc::new(Recording::default());
    conformance::results(&results.signed_urls(signer, Duration::from_secs(60))).await;
}
