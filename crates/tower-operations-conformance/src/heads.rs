//! Law 7: a reader that needs only a short body gets everything else of a long result.

use bytes::Bytes;
use http::Response;
use tower_operations::{
    operation::{BufferedBody, Outcome, RecordedResponse},
    store::{List, ListQuery, Reader, Repository, Watch},
};

use super::subject::{
    HELD, Seen, create, done, in_time, law, new_operation, new_owner, ok, version,
};

/// The lengths of the bodies in bytes. Stores keep long bodies apart in different ways.
const LENGTHS: [usize; 5] = [0, 1, 1000, 20_000, 1_000_000];

pub(super) async fn check<R: Repository<Output = RecordedResponse>>(store: &R) {
    for length in LENGTHS {
        let (whole, sent) = ended(store, length).await;
        let id = whole.operation().id();
        for max_body in limits(length) {
            let reader = Reader::new(whole.owner()).with_max_body(max_body);
            let found = ok(store.get_for(id, reader).await);
            assert_head(found.as_ref(), (&whole, &sent), max_body);
            if let Some(found) = store.get_now_for(id, reader) {
                assert_head(ok(found).as_ref(), (&whole, &sent), max_body);
            }
        }
    }
}

pub(super) async fn check_waiting<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + Watch,
{
    let what = "a wait for a change that was made before";
    for length in LENGTHS {
        let (whole, sent) = ended(store, length).await;
        let (id, since) = (whole.operation().id(), version(&whole).next());
        for max_body in limits(length) {
            let reader = Reader::new(whole.owner()).with_max_body(max_body);
            let wait = store.changed_for(id, since, HELD, reader);
            let found = ok(in_time(5, what, wait).await);
            assert_head(found.as_ref(), (&whole, &sent), max_body);
        }
    }
}

pub(super) async fn check_lists<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    for length in LENGTHS {
        let (whole, sent) = ended(store, length).await;
        for max_body in limits(length) {
            let query = ListQuery::new(whole.owner().cloned(), 9).with_max_body(max_body);
            let page = ok(store.list(&query).await);
            assert_head(page.records.first(), (&whole, &sent), max_body);
        }
    }
}

/// Returns limits that a body of this length is within, and one that it is above, if there is one.
fn limits(length: usize) -> impl Iterator<Item = usize> {
    let above = length.checked_sub(1);
    [usize::MAX, length].into_iter().chain(above)
}

async fn ended<R>(store: &R, length: usize) -> (Seen, RecordedResponse)
where
    R: Repository<Output = RecordedResponse>,
{
    let pending = create(store, new_operation().with_owner(new_owner())).await;
    let body = Bytes::from(vec![b'3'; length]);
    let response = Response::builder()
        .status(299)
        .header("content-type", "application/json")
        .header("x-twice", "a")
        .header("x-twice", "b")
        .body(BufferedBody::from(body));
    let response = RecordedResponse::new(response.expect("a response"));
    let (id, token) = (pending.operation().id(), pending.token());
    let outcome = Outcome::Succeeded(Some(response.clone()));
    let finished = ok(store.finish(id, token, outcome, None).await);
    (done(2, finished, "a finish by the holder"), response)
}

fn assert_head(found: Option<&Seen>, (whole, sent): (&Seen, &RecordedResponse), max_body: usize) {
    let Some(found) = found else {
        panic!("law 8: an operation that has just ended is not there");
    };
    let Some(back) = found.operation().response() else {
        panic!("law 7: a reader of at most {max_body} bytes got no response");
    };
    let length = sent.body_len();
    law!(
        7,
        (back.status(), back.headers(), back.body_len()) == (sent.status(), sent.headers(), length),
        "a reader of at most {max_body} of {length} bytes got {:?}, {:?} and {} bytes",
        back.status(),
        back.headers(),
        back.body_len()
    );
    let is_right = match back.body() {
        Some(body) => Some(body) == sent.body(),
        None => length > max_body,
    };
    law!(
        7,
        is_right,
        "a reader of at most {max_body} of {length} bytes got another body"
    );
    law!(
        7,
        version(found) == version(whole)
            && found.operation().metadata() == whole.operation().metadata(),
        "a reader of at most {max_body} of {length} bytes got {found:?}"
    );
}
