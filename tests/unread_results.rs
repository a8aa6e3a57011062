//! Answers about operations whose result was not read with its record.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use http::{Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, OperationId, OperationView, Operations, PollService, RecordedResponse,
    dialect::{
        Action, Answer, ApiError, Context, Dialect, Fhir, OData, OnTerminal, Plain, PollRequest,
        RequestView,
    },
    store::{Created, NewOperation, Repository, Written},
};
use tower_operations_redb::RedbStore;

/// Longer than what is embedded in an operation.
const LARGE: usize = 100_000;

async fn ended(store: &RedbStore, status: u16) -> OperationId {
    let id = OperationId::new();
    let created = store.create(NewOperation::new(id.clone())).await.unwrap();
    let Created::New(record) = created else {
        panic!("the id is new");
    };
    let mut response = Response::new(BufferedBody::from(vec![b'a'; LARGE]));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let outcome = RecordedResponse::new(response).into_outcome();
    let finished = store.finish(&id, record.token(), outcome, None).await;
    assert!(matches!(finished.unwrap(), Written::Done(_)));
    id
}

async fn ask(
    polls: &PollService<RedbStore>,
    method: Method,
    path: &str,
) -> (StatusCode, Option<usize>, usize) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(())
        .unwrap();
    let response = polls.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let announced = response.headers().get(CONTENT_LENGTH);
    let announced = announced.map(|length| length.to_str().unwrap().parse().unwrap());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, announced, body.len())
}

/// A dialect that answers a cancel of an ended operation with its result.
#[derive(Debug)]
struct ResultOfCancel;

impl Dialect for ResultOfCancel {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        let asked = Plain::default().parse(request)?;
        Ok(match asked {
            PollRequest::Operation {
                id,
                action: Action::Cancel(_),
                wait,
                reason,
            } => PollRequest::Operation {
                id,
                action: Action::Cancel(OnTerminal::Same),
                wait,
                reason,
            },
            asked => asked,
        })
    }

    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody> {
        Plain::default().accepted(operation, context)
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        Plain::default().error(fault)
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        Plain::default().status(operation, context)
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        Plain::default().result(operation, context)
    }

    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        self.result(operation, context)
    }

    fn deleted(&self, id: &OperationId) -> Response<BufferedBody> {
        Plain::default().deleted(id)
    }
}

#[tokio::test]
async fn a_replay_has_its_body_wherever_a_dialect_sends_it() {
    let store = RedbStore::in_memory().unwrap();
    for status in [200, 201, 422] {
        let id = ended(&store, status).await;
        let operations = Operations::new(store.clone());
        let result = format!("/{id}/result");
        let polls = operations.poll_service();
        let (answered, _, length) = ask(&polls, Method::GET, &result).await;
        assert_eq!((answered.as_u16(), length), (status, LARGE));
        let (answered, announced, length) = ask(&polls, Method::HEAD, &result).await;
        assert_eq!(
            (answered.as_u16(), announced, length),
            (status, Some(LARGE), 0)
        );

        let polls = operations.clone().dialect(ResultOfCancel).poll_service();
        let (answered, _, length) = ask(&polls, Method::DELETE, &format!("/{id}")).await;
        assert_eq!((answered.as_u16(), length), (status, LARGE));
    }
}

/// These dialects answer a poll with the result.
#[tokio::test]
async fn a_change_of_a_replay_sees_each_replay_once_and_whole() {
    let store = RedbStore::in_memory().unwrap();
    let id = ended(&store, 200).await;
    let replays = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&replays);
    let operations = Operations::new(store).map_replay(move |recorded, _| {
        assert_eq!(recorded.body().map(<[u8]>::len), Some(LARGE));
        count.fetch_add(1, SeqCst);
    });
    let odata = operations.clone().dialect(OData::default()).poll_service();
    let fhir = operations.dialect(Fhir::default()).poll_service();
    for polls in [odata, fhir] {
        let before = replays.load(SeqCst);
        let (status, _, length) = ask(&polls, Method::GET, &format!("/{id}")).await;
        assert_eq!((status, length), (StatusCode::OK, LARGE));
        assert_eq!(replays.load(SeqCst), before + 1);
    }
}
