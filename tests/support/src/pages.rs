//! A list of operations with large results, and what a page of it costs the store.

use http::Response;
use tower_operations::{
    BufferedBody, OperationId, Outcome, RecordedResponse,
    store::{Created, List, ListQuery, NewOperation, Owner, Repository, Written},
};

const RESULT: usize = 256 * 1024;

/// Of twenty operations whose results have 5 MiB in all, a page that ends at 1 MiB has as
/// many as reach it, and no more is read. The pages together have all. `answered` says how
/// many bytes were read since the last call.
pub async fn end_early<R>(store: R, mut answered: impl FnMut() -> usize)
where
    R: Repository<Output = RecordedResponse> + List,
{
    for owner in [Some(Owner::new("ada")), None] {
        let mut made = Vec::new();
        for _ in 0..20 {
            made.insert(0, ended(&store, owner.clone()).await);
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
                assert_eq!(response.body().len(), RESULT);
                listed.push(record.operation().id().clone());
            }
            match page.next {
                Some(next) => query = query.with_after(next),
                None => break,
            }
        }
        assert_eq!(listed, made);
    }
}

async fn ended<R>(store: &R, owner: Option<Owner>) -> OperationId
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
