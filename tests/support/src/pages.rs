//! Lists of operations with large results, and the cost of a page to the store.

use http::Response;
use tower_operations::{
    BufferedBody, OperationId, Outcome, RecordedResponse,
    store::{Created, List, ListQuery, NewOperation, Owner, Repository, Written},
};

const RESULT: usize = 256 * 1024;

/// Lists twenty results of 5 MiB in total in pages of 1 MiB. Asserts that a page ends with
/// the result that reaches 1 MiB, that no more is read, and that the pages contain every
/// operation. `answered` returns the number of bytes read since its last use.
pub async fn assert_large_results_end_a_page<R>(store: R, mut answered: impl FnMut() -> usize)
where
    R: Repository<Output = RecordedResponse> + List,
{
    for owner in [Some(Owner::new("ada")), None] {
        let mut created = Vec::new();
        for _ in 0..20 {
            created.insert(0, create_ended(&store, owner.clone()).await);
        }
        let mut listed = Vec::new();
        let mut query = ListQuery::new(owner, 20).with_max_bytes(1024 * 1024);
        loop {
            answered();
            let page = store.list(&query).await.unwrap();
            let bytes = answered();
            assert!(bytes < 6 * RESULT, "{bytes} bytes were read for a page");
            assert!((1..=4).contains(&page.records.len()));
            for record in &page.records {
                let response = record.operation().response().unwrap();
                assert_eq!(response.body_len(), RESULT);
                listed.push(record.operation().id().clone());
            }
            match page.next {
                Some(next) => query = query.with_after(next),
                None => break,
            }
        }
        assert_eq!(listed, created);
    }
}

async fn create_ended<R>(store: &R, owner: Option<Owner>) -> OperationId
where
    R: Repository<Output = RecordedResponse>,
{
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_owner(owner);
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let response = RecordedResponse::new(Response::new(BufferedBody::from(vec![b'a'; RESULT])));
    let outcome = Outcome::Succeeded(Some(response));
    let finished = store.finish(&id, record.token(), outcome, None).await;
    assert!(matches!(finished.unwrap(), Written::Done(_)));
    id
}
