//! Whatever is asked of a `PollService`, in whichever dialect: it answers, and what it
//! answers is HTTP. Nobody learns of what is somebody else's.
//!
//! An input's first line has letters (`world::Choice`), the rest is a request.

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

/// Its owner, and one who has nothing.
const ANNA: &str = "anna";
const STRANGER: &str = "stranger";

pub fn check(data: &[u8]) {
    let (letters, text) = message::split_line(data);
    let choice = Choice(letters);
    if let Some(request) = message::request(text) {
        run(answered(choice, request));
    }
}

async fn answered(choice: Choice<'_>, mut request: Request<BufferedBody>) {
    let operations = operations(request.body().data());
    let store = MemoryStore::new();
    for operation in &operations {
        operation.put(&store).await;
    }
    fill_in(&store, &mut request).await;
    let (parts, body) = request.into_parts();
    let again = || Request::from_parts(parts.clone(), body.clone());
    let answer = ask(choice, &store, again()).await;

    let path = parts.uri.path();
    let asked = operations
        .iter()
        .filter(|operation| operation.is_named_in(path));
    let mut ends: Vec<StatusCode> = asked.filter_map(Operation::status).collect();
    if choice.0.first() == Some(&b'd') && !ends.is_empty() {
        // With `returnInternalServerErrorOnFailure`.
        ends.push(StatusCode::INTERNAL_SERVER_ERROR);
    }
    answer.check(&parts.method, &ends);

    // Where a result is asked for, a failure is none, whatever its problem says of itself.
    let asks_result = path.trim_end_matches('/').ends_with("/result")
        || path.trim_end_matches('/').ends_with("/results");
    let says_by_status = choice.0.first().is_some_and(|it| b"pwzacij".contains(it));
    if asks_result && says_by_status && !choice.has(b'Q') && answer.status.is_success() {
        let segments = path.trim_end_matches('/').rsplit('/').nth(1);
        let of = operations.iter().find(|it| Some(it.id) == segments);
        let failed = of.is_some_and(|it| matches!(it.stage, Status::Ended(Outcome::Failed(_))));
        assert!(!failed || parts.method == Method::OPTIONS, "{answer:?}");
    }

    // Who owns nothing sees what there would be if there were nothing.
    let who = parts.headers.get("x-owner").map(HeaderValue::as_bytes);
    let named = operations
        .iter()
        .filter(|it| it.is_named_in(&parts.uri.to_string()));
    let only_hers = named.clone().count() > 0 && named.clone().all(|it| it.owner.is_some());
    if who == Some(STRANGER.as_bytes()) || (only_hers && who != Some(ANNA.as_bytes())) {
        let nothing = MemoryStore::new();
        if who != Some(STRANGER.as_bytes()) && path.trim_matches('/').is_empty() {
            // A list, which has what is nobody's.
            return;
        }
        assert_eq!(answer, ask(choice, &nothing, again()).await);
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

/// `{etag}` in a field stands for the entity tag of the operation that the path names.
async fn fill_in(store: &MemoryStore, request: &mut Request<BufferedBody>) {
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

/// An operation that there is.
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

/// One of each kind, and one whose response is what `stored` says.
fn operations(stored: &Bytes) -> Vec<Operation> {
    let nobodys = |id, stage| Operation {
        id,
        owner: None,
        stage,
    };
    let responded = |response| Status::Ended(recorded(response).into_outcome());
    let mut operations = vec![
        nobodys("pending", Status::Pending),
        nobodys("running", Status::Running),
        nobodys(
            "json",
            responded(response(201, "application/json", b"{\"a\":1}")),
        ),
        nobodys(
            "text",
            responded(response(200, "text/plain", "gr\u{fc}n\n".as_bytes())),
        ),
        nobodys(
            "binary",
            responded(response(200, "application/pdf", b"%PDF \xff")),
        ),
        nobodys(
            "untrue",
            responded(response(200, "application/json", b"{\"a\":")),
        ),
        nobodys("empty", responded(response(204, "", b""))),
        nobodys("nothing", Status::Ended(Outcome::Succeeded(None))),
        nobodys("moved", responded(moved())),
        nobodys("unready", responded(response(503, "text/html", b"<p>no"))),
        nobodys(
            "problem",
            responded(response(422, PROBLEM, b"{\"title\":\"No\",\"code\":\"X\"}")),
        ),
        nobodys(
            "lying",
            responded(response(400, PROBLEM, b"{\"status\":200,\"type\":7}")),
        ),
        nobodys("canceled", Status::Ended(Outcome::Canceled)),
        nobodys(
            "interrupted",
            Status::Ended(Outcome::failed(FailureKind::Interrupted)),
        ),
        nobodys(
            "panicked",
            Status::Ended(Outcome::failed(FailureKind::Panicked)),
        ),
        Operation {
            id: "annas",
            owner: Some(ANNA),
            stage: responded(response(200, "application/json", b"\"hers\"")),
        },
        Operation {
            id: "annas-own",
            owner: Some(ANNA),
            stage: Status::Running,
        },
    ];
    if let Ok(recorded) = RecordedResponse::from_bytes(stored.clone())
        // What no service answers with.
        && (200..600).contains(&recorded.status().as_u16())
    {
        let mut response = recorded.to_response();
        response
            .headers_mut()
            .insert(MARK, HeaderValue::from_static("yes"));
        operations.push(nobodys("any", responded(response)));
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

/// With what would mean something to who polls.
fn moved() -> Response<BufferedBody> {
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
            panic!("it is new");
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
                let version = record.version().unwrap();
                store
                    .force_finish(&id, version, Outcome::Canceled)
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

    /// The status of how it ended.
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
