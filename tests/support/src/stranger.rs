//! Requests for an operation of another owner, and their cost to the store.

use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, OperationId, Operations, Outcome, RecordedResponse,
    store::{Created, NewOperation, Owner, Repository, Watch, Written},
};

const LARGE: usize = 8 * 1024 * 1024;

/// Larger than the head of any record, and much smaller than the result.
const HEAD: usize = 8 * 1024;

/// The requests of another owner.
const REQUESTS: [(Method, &str); 7] = [
    (Method::GET, ""),
    (Method::HEAD, ""),
    (Method::GET, "?wait=1"),
    (Method::GET, "/events"),
    (Method::GET, "/result"),
    (Method::HEAD, "/result"),
    (Method::DELETE, ""),
];

fn user(parts: &Parts) -> Option<Owner> {
    let user = parts.headers.get("x-user")?;
    Some(Owner::new(user.to_str().unwrap()))
}

/// Asserts that each request of another owner for an operation with a large result is
/// answered with 404, and costs the store as much as a request for an unknown id. The owner
/// of the operation receives the result. `cost` returns the calls since its last use and
/// the number of bytes read.
pub async fn assert_cost_of_an_unknown_id<R, C>(store: R, mut cost: impl FnMut() -> (C, usize))
where
    R: Repository<Output = RecordedResponse> + Watch + Clone,
    C: PartialEq + std::fmt::Debug,
{
    for owner in [Some(Owner::new("ada")), None] {
        let id = create_ended(&store, owner.clone()).await;
        let polls = Operations::new(store.clone()).owner(user).poll_service();
        for (method, suffix) in REQUESTS {
            let mut measure = async |id: &OperationId| {
                cost();
                let request = Request::builder().method(&method).header("x-user", "bob");
                let request = request.uri(format!("/{id}{suffix}")).body(()).unwrap();
                let response = polls.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::NOT_FOUND);
                cost()
            };
            let (unknown, unknown_bytes) = measure(&OperationId::new()).await;
            let (foreign, foreign_bytes) = measure(&id).await;
            assert_eq!(foreign, unknown, "{method} {suffix}");
            assert!(
                foreign_bytes < unknown_bytes + HEAD,
                "{method} {suffix}: {foreign_bytes} bytes, and {unknown_bytes} for an unknown id"
            );
        }
        let mut request = Request::get(format!("/{id}/result"));
        if let Some(owner) = &owner {
            request = request.header("x-user", owner.as_str());
        }
        let response = polls.oneshot(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), LARGE);
    }
}

/// Creates an ended operation of `owner` with a large result.
async fn create_ended<R>(store: &R, owner: Option<Owner>) -> OperationId
where
    R: Repository<Output = RecordedResponse>,
{
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_owner(owner);
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let response = RecordedResponse::new(Response::new(BufferedBody::from(vec![b'a'; LARGE])));
    let outcome = Outcome::Succeeded(Some(response));
    let finished = store.finish(&id, record.token(), outcome, None).await;
    assert!(matches!(finished.unwrap(), Written::Done(_)));
    id
}
