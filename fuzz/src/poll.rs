//! A `PollService` answers any request in any dialect with valid HTTP. No client learns of
//! the operations of another owner.
//!
//! The first line of an input has letters (`world::Choice`), and the rest is a request.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, FailureKind, MemoryStore, OperationId, Outcome, Progress, RecordedResponse,
    operation::Stored,
    store::{Created, NewOperation, Owner, Repository, Store},
};

use crate::{
    answer::{Answer, MARK},
    message,
    world::{self, Choice, owner, run},
};

/// The owner of operations, and an owner without operations.
const ANNA: &str = "anna";
const STRANGER: &str = "stranger";

pub fn check(data: &[u8]) {
    let (letters, text) = message::split_line(data);
    let choice = Choice(letters);
    if let Some(request) = message::request(text) {
        run(check_request(choice, request));
    }
}

async fn check_request(choice: Choice<'_>, mut request: Request<BufferedBody>) {
    let operations = operations(request.body().data());
    let store = MemoryStore::new();
    for operation in &operations {
        operation.put(&store).await;
    }
    insert_etag(&store, &mut request).await;
    let (parts, body) = request.into_parts();
    let repeat = || Request::from_parts(parts.clone(), body.clone());
    let answer = ask(choice, &store, repeat()).await;

    let path = parts.uri.path();
    let named_in_path = operations
        .iter()
        .filter(|operation| operation.is_named_in(path));
    let mut ends: Vec<StatusCode> = named_in_path.filter_map(Operation::status).collect();
    if choice.0.first() == Some(&b'd') && !ends.is_empty() {
        // With `returnInternalServerErrorOnFailure`.
        ends.push(StatusCode::INTERNAL_SERVER_ERROR);
    }
    answer.check(&parts.method, &ends);

    // A failure is not answered as a successful result, even if its problem claims so.
    let is_for_result = path.trim_end_matches('/').ends_with("/result")
        || path.trim_end_matches('/').ends_with("/results");
    let has_status_of_result = choice.0.first().is_some_and(|it| b"pwzacij".contains(it));
    if is_for_result && has_status_of_result && !choice.has(b'Q') && answer.status.is_success() {
        let segments = path.trim_end_matches('/').rsplit('/').nth(1);
        let operation = operations.iter().find(|it| Some(it.id) == segments);
        let failed =
            operation.is_some_and(|it| matches!(it.stage, Status::Ended(Outcome::Failed(_))));
        assert!(!failed || parts.method == Method::OPTIONS, "{answer:?}");
    }

    // An owner without operations gets the same answer as from an empty store.
    let requester = parts.headers.get("x-owner").map(HeaderValue::as_bytes);
    let named = operations
        .iter()
        .filter(|it| it.is_named_in(&parts.uri.to_string()));
    let only_owned = named.clone().count() > 0 && named.clone().all(|it| it.owner.is_some());
    if requester == Some(STRANGER.as_bytes()) || (only_owned && requester != Some(ANNA.as_bytes()))
    {
        let empty = MemoryStore::new();
        if requester != Some(STRANGER.as_bytes()) && path.trim_matches('/').is_empty() {
            // A list contains the operations without an owner.
            return;
        }
        assert_eq!(answer, ask(choice, &empty, repeat()).await);
    }
}

async fn ask(choice: Choice<'_>, store: &MemoryStore, request: Request<BufferedBody>) -> Answer {
    let operations = world::operations(choice, store).owner(owner);
    let mut polls = match choice.has(b'R') {
        true => operations.read_only_poll_service(),
        false => operations.poll_service(),
    };
    if choice.has(b'L') {
        polls = polls.listing();
    }
    if choice.has(b'M') {
        polls = polls.mounted_at("/operations");
    }
    if choice.has(b'T') {
        polls = polls.inline_limit(8);
    }
    if choice.has(b'Q') {
        polls = polls.operation_id(|parts| parts.uri.query().map(Into::into));
    }
    Answer::read(polls.oneshot(request).await.unwrap()).await
}

/// Replaces `{etag}` in fields by the entity tag of the operation that the path names.
async fn insert_etag(store: &MemoryStore, request: &mut Request<BufferedBody>) {
    let mark = b"{etag}";
    let has_mark = |value: &HeaderValue| value.as_bytes().windows(mark.len()).any(|it| it == mark);
    if !request.headers().values().any(has_mark) {
        return;
    }
    let segments = request.uri().path().split('/');
    let mut ids = segments.filter_map(|it| it.split(':').next()?.parse::<OperationId>().ok());
    let Some(id) = ids.next_back() else {
        return;
    };
    let mut poll = Request::get(format!("/{id}"));
    if let Some(owner) = request.headers().get("x-owner") {
        poll = poll.header("x-owner", owner);
    }
    let poll = poll.body(BufferedBody::default()).unwrap();
    let answer = ask(Choice(b"p"), store, poll).await;
    let Some(etag) = answer.headers.get(header::ETAG) else {
        return;
    };
    for value in request.headers_mut().values_mut() {
        if let Ok(text) = value.to_str() {
            let text = text.replace("{etag}", etag.to_str().unwrap());
            *value = HeaderValue::from_str(&text).unwrap();
        }
    }
}

/// An operation in the store.
struct Operation {
    id: &'static str,
    owner: Option<&'static str>,
    stage: Status,
}

enum Status {
    Pending,
    Running,
    Ended(Outcome<RecordedResponse>),
}

/// Returns an operation of each kind, and one with the response in `stored`.
fn operations(stored: &Bytes) -> Vec<Operation> {
    let unowned = |id, stage| Operation {
        id,
        owner: None,
        stage,
    };
    let ended_with = |response| Status::Ended(recorded(response).into_outcome());
    let mut operations = vec![
        unowned("pending", Status::Pending),
        unowned("running", Status::Running),
        unowned(
            "json",
            ended_with(response(201, "application/json", b"{\"a\":1}")),
        ),
        unowned(
            "text",
            ended_with(response(200, "text/plain", "gr\u{fc}n\n".as_bytes())),
        ),
        unowned(
            "binary",
            ended_with(response(200, "application/pdf", b"%PDF \xff")),
        ),
        unowned(
            "untrue",
            ended_with(response(200, "application/json", b"{\"a\":")),
        ),
        unowned("empty", ended_with(response(204, "", b""))),
        unowned("nothing", Status::Ended(Outcome::Succeeded(None))),
        unowned("moved", ended_with(redirect())),
        unowned("unready", ended_with(response(503, "text/html", b"<p>no"))),
        unowned(
            "problem",
            ended_with(response(422, PROBLEM, b"{\"title\":\"No\",\"code\":\"X\"}")),
        ),
        unowned(
            "lying",
            ended_with(response(400, PROBLEM, b"{\"status\":200,\"type\":7}")),
        ),
        unowned("canceled", Status::Ended(Outcome::Canceled)),
        unowned(
            "interrupted",
            Status::Ended(Outcome::failed(FailureKind::Interrupted)),
        ),
        unowned(
            "panicked",
            Status::Ended(Outcome::failed(FailureKind::Panicked)),
        ),
        Operation {
            id: "annas",
            owner: Some(ANNA),
            stage: ended_with(response(200, "application/json", b"\"hers\"")),
        },
        Operation {
            id: "annas-own",
            owner: Some(ANNA),
            stage: Status::Running,
        },
    ];
    if let Ok(recorded) = RecordedResponse::from_bytes(stored.clone())
        // Services answer only with these statuses.
        && (200..600).contains(&recorded.status().as_u16())
    {
        let mut response = recorded.to_response().expect("the body was read");
        response
            .headers_mut()
            .insert(MARK, HeaderValue::from_static("yes"));
        operations.push(unowned("any", ended_with(response)));
    }
    operations
}

const PROBLEM: &str = "application/problem+json";

fn response(status: u16, media_type: &'static str, body: &'static [u8]) -> Response<BufferedBody> {
    let mut response = Response::new(BufferedBody::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert(MARK, HeaderValue::from_static("yes"));
    if !media_type.is_empty() {
        let media_type = HeaderValue::from_static(media_type);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
    }
    response
}

/// Returns a response with fields that would have a meaning in the answer to a poll.
fn redirect() -> Response<BufferedBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let body = BufferedBody::new("moved".into(), Some(trailers));
    let mut response = response(303, "text/plain", b"");
    *response.body_mut() = body;
    for (name, value) in [
        ("location", "../reports/7"),
        ("link", "<next>; rel=next"),
        ("retry-after", "7"),
        ("etag", "\"inner\""),
        ("operation-result", "500"),
        ("content-length", "5"),
        ("content-encoding", "identity"),
        ("set-cookie", "a=b"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn recorded(response: Response<BufferedBody>) -> RecordedResponse {
    RecordedResponse::new(response)
}

impl Operation {
    async fn put(&self, store: &MemoryStore) {
        let id: OperationId = self.id.parse().unwrap();
        let new = NewOperation::new(id.clone())
            .with_owner(self.owner.map(Owner::new))
            .with_method(Method::POST)
            .with_name(Some("render \"it\"\n".into()));
        let Created::New(record) = store.create(new).await.unwrap() else {
            panic!("the id is new");
        };
        let token = record.token();
        let progress = Progress::from_count(1, 3)
            .with_unit("pages")
            .with_message("two\r\nlines \u{1f980}");
        match &self.stage {
            Status::Pending => {}
            Status::Running => {
                store.start(&id, token).await.unwrap();
                store.report(&id, token, progress).await.unwrap();
            }
            Status::Ended(Outcome::Canceled) => {
                let stamp = record.stamp().unwrap();
                store
                    .force_finish(&id, stamp, Outcome::Canceled)
                    .await
                    .unwrap();
            }
            Status::Ended(outcome) => {
                store.start(&id, token).await.unwrap();
                let progress = Some(progress);
                store
                    .finish(&id, token, outcome.clone(), progress)
                    .await
                    .unwrap();
            }
        }
        assert!(store.get(&id).await.unwrap().is_some());
    }

    fn recorded(&self) -> Option<&RecordedResponse> {
        match &self.stage {
            Status::Ended(Outcome::Succeeded(recorded)) => recorded.as_ref(),
            Status::Ended(Outcome::Failed(failure)) => failure.response.as_ref(),
            _ => None,
        }
    }

    /// Returns the status of the outcome.
    fn status(&self) -> Option<StatusCode> {
        match (self.recorded(), &self.stage) {
            (Some(recorded), _) => Some(recorded.status()),
            (None, Status::Ended(Outcome::Failed(failure))) => failure.problem.status(),
            _ => None,
        }
    }

    fn is_named_in(&self, path: &str) -> bool {
        let word = |letter: char| !letter.is_ascii_alphanumeric() && letter != '-';
        path.split(word).any(|word| word == self.id)
    }
}
