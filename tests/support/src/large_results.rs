//! Requests of the owner of large results, and their cost to the store.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, OperationId, Operations, Outcome, RecordedResponse,
    dialect::{DurableFunctions, Google},
    store::{Created, List, NewOperation, Repository, Watch, Written},
};

const LARGE: usize = 8 * 1024 * 1024;

const OPERATIONS: usize = 100;

/// More than the head of an operation takes, and much less than a result, in bytes.
const HEAD: usize = 64 * 1024;

/// More than the heads of all operations take, and less than a result.
const LIST: usize = 1024 * 1024;

/// Asserts that lists and polls of operations with large results read only heads, and that a
/// request for a result reads it. `cost` returns the calls since its last use and the number of
/// bytes read.
pub async fn assert_only_heads_are_read<R, C>(store: R, mut cost: impl FnMut() -> (Vec<C>, usize))
where
    R: Repository<Output = RecordedResponse> + Watch + List + Clone,
    C: std::fmt::Debug,
{
    let small = create_ended(&store, 100).await;
    let mut all = Vec::new();
    for _ in 0..OPERATIONS {
        all.push(create_ended(&store, LARGE).await.to_string());
    }
    let large = &all[0];
    let operations = Operations::new(store.clone());
    let plain = operations.poll_service().listing();
    let google = operations.clone().dialect(Google::default());
    let durable = operations.clone().dialect(DurableFunctions::default());
    let google = google.poll_service().listing();
    let durable = durable.poll_service().listing();
    let lists = [(&plain, "limit"), (&google, "pageSize"), (&durable, "top")];
    let lists = lists.map(|(polls, parameter)| {
        let path = format!("/?{parameter}={OPERATIONS}");
        (polls, path, None, LIST)
    });
    let others = [
        (&plain, format!("/{large}"), None, HEAD),
        (&google, format!("/{large}"), None, HEAD),
        (&durable, format!("/{large}"), None, HEAD),
        (&plain, format!("/{large}?wait=1"), None, HEAD),
        (&plain, format!("/{large}/events"), None, HEAD),
        (&plain, format!("/{small}"), None, HEAD),
        (&plain, format!("/{small}/result"), Some(100), HEAD),
        (&plain, format!("/{large}/result"), Some(LARGE), 2 * LARGE),
    ];
    // The first page that another one follows reads the secret of cursors.
    let page = Request::get("/?limit=1").body(()).unwrap();
    let page = plain.clone().oneshot(page).await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    for (polls, path, length, reads) in lists.into_iter().chain(others) {
        cost();
        let request = Request::get(&*path).body(()).unwrap();
        let response = polls.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let (calls, bytes) = cost();
        assert!(bytes < reads && body.len() < reads, "{path}: {bytes} bytes");
        assert!(calls.len() <= 1, "{path}: {calls:?}");
        if reads == LIST {
            let text = String::from_utf8_lossy(&body);
            let missing = all.iter().find(|id| !text.contains(id.as_str()));
            assert_eq!(missing, None, "{path}");
        }
        if let Some(length) = length {
            assert_eq!(body, vec![b'a'; length], "{path}");
        }
    }
}

async fn create_ended<R>(store: &R, length: usize) -> OperationId
where
    R: Repository<Output = RecordedResponse>,
{
    let id = OperationId::new();
    let new = NewOperation::new(id.clone());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let body = BufferedBody::from(Bytes::from(vec![b'a'; length]));
    let outcome = Outcome::Succeeded(Some(RecordedResponse::new(Response::new(body))));
    let finished = store.finish(&id, record.token(), outcome, None).await;
    assert!(matches!(finished.unwrap(), Written::Done(_)));
    id
}
