//! Requests about operations, in each dialect.

#[path = "asking/deleting.rs"]
mod deleting;
use test_support::hooked;
#[path = "asking/parameters.rs"]
mod parameters;
#[path = "asking/paths.rs"]
mod paths;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use hooked::{Call, Hooked, When};
use http::{HeaderMap, Request, StatusCode, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, MemoryStore, OperationId, Operations, Outcome, PollService, Progress,
    RecordedResponse, State,
    dialect::{Arm, Azure, Dialect, DurableFunctions, Fhir, Google, Ipa, OData, Ogc, Plain},
    store::{Created, NewOperation, Owner, Repository, Store, StoreError, Version},
};

const UUID: &str = "01a2105b-da82-7e53-845f-677d9ddc2799";

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The detail of a problem of this status and this code.
    fn detail(&self, status: u16, code: &str) -> String {
        let problem = self.json();
        let expected = format!("urn:tower-operations:{code}");
        let actual = (self.status.as_u16(), problem["type"].as_str().unwrap());
        assert_eq!(actual, (status, expected.as_str()), "{self:?}");
        problem["detail"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request without a body. A held poll fails the test.
async fn ask<S: Store>(polls: &PollService<S>, line: &str, fields: &[(&str, &str)]) -> Answer {
    let (method, uri) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = polls.clone().oneshot(request.body(()).unwrap());
    let (parts, body) = response.await.unwrap().into_parts();
    let body = timeout(Duration::from_secs(60), body.collect()).await;
    let body = body.unwrap_or_else(|_| panic!("{line} {fields:?}: the poll is held"));
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.unwrap().to_bytes(),
    }
}

fn json_outcome(body: &'static str) -> Outcome<RecordedResponse> {
    let response = http::Response::builder().header("content-type", "application/json");
    RecordedResponse::new(response.body(BufferedBody::from(body)).unwrap()).into_outcome()
}

/// A store with an operation of this id in this state.
async fn store_with(id: &str, state: State) -> MemoryStore {
    let store = MemoryStore::new();
    add(&store, NewOperation::new(id.parse().unwrap()), state).await;
    store
}

async fn add(store: &MemoryStore, new: NewOperation, state: State) {
    let id = new.id.clone();
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let token = record.token();
    let outcome = match state {
        State::Pending => return,
        State::Running => {
            store.start(&id, token).await.unwrap();
            return;
        }
        State::Succeeded => json_outcome("[1]"),
        State::Failed => Outcome::failed(tower_operations::FailureKind::TimedOut),
        State::Canceled => Outcome::Canceled,
    };
    store.finish(&id, token, outcome, None).await.unwrap();
}

async fn state_of(store: &MemoryStore, id: &str) -> Option<State> {
    let found = store.get(&id.parse().unwrap()).await.unwrap();
    found.map(|record| record.operation().state())
}

fn every_dialect() -> Vec<Arc<dyn Dialect>> {
    vec![
        Arc::new(Plain::default()),
        Arc::new(Azure::default()),
        Arc::new(Arm::default()),
        Arc::new(Google::default()),
        Arc::new(OData::default()),
        Arc::new(Fhir::default()),
        Arc::new(Ogc::default()),
        Arc::new(DurableFunctions::default()),
        Arc::new(Ipa::default()),
    ]
}

// ---- representations --------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn json_is_served_at_equal_or_higher_quality() {
    let store = store_with("q3", State::Running).await;
    let polls = PollService::new(store);
    for accept in [
        "application/json, text/event-stream;q=0.1",
        "application/json, text/event-stream",
        "text/event-stream;q=0.00",
        "text/event-stream; Q=0",
        "TEXT/EVENT-STREAM ;q=0.000 , */*",
        "text/event-stream;q=0.5, application/*;q=0.6",
        "text/plain;x=\", text/event-stream\"",
        "text/event-stream;q=nonsense",
    ] {
        let answer = ask(&polls, "GET /q3", &[("accept", accept)]).await;
        assert_eq!(answer.field("content-type"), "application/json", "{accept}");
    }
    let fields = [
        ("accept", "text/event-stream;q=0.4"),
        ("accept", "application/json"),
    ];
    let answer = ask(&polls, "GET /q3", &fields).await;
    assert_eq!(answer.field("content-type"), "application/json");
}

#[tokio::test]
async fn an_event_stream_is_served_at_higher_quality() {
    let store = store_with("q3", State::Succeeded).await;
    let polls = PollService::new(store);
    for accept in [
        "text/event-stream",
        "text/event-stream, */*",
        "application/json;q=0.9, text/event-stream",
        "text/event-stream;q=0.3, application/json;q=0.2, */*;q=0.9",
    ] {
        let answer = ask(&polls, "GET /q3", &[("accept", accept)]).await;
        assert_eq!(
            answer.field("content-type"),
            "text/event-stream",
            "{accept}"
        );
    }
}

// ---- preconditions ---------------------------------------------------------

/// The dialects that delete by `DELETE`, with the status of a delete.
fn delete_statuses() -> [(Arc<dyn Dialect>, StatusCode); 5] {
    [
        (Arc::new(Plain::default()), StatusCode::NO_CONTENT),
        (Arc::new(Google::default()), StatusCode::OK),
        (Arc::new(Ogc::default()), StatusCode::OK),
        (Arc::new(DurableFunctions::default()), StatusCode::OK),
        (Arc::new(Fhir::default()), StatusCode::ACCEPTED),
    ]
}

#[tokio::test]
async fn a_malformed_precondition_is_400_and_changes_nothing_in_any_dialect() {
    for dialect in every_dialect() {
        for state in [State::Running, State::Succeeded] {
            let store = store_with("q3", state).await;
            let polls = Operations::new(store.clone())
                .dialect(Arc::clone(&dialect))
                .poll_service();
            for field in ["if-match", "if-none-match"] {
                for value in [
                    "*, \"x\"",
                    "x",
                    "\"x",
                    "W/x",
                    "\"x\" \"y\"",
                    "\"x\",*",
                    "w/\"x\"",
                ] {
                    for line in ["DELETE /q3", "POST /q3:cancel", "POST /q3/terminate"] {
                        let answer = ask(&polls, line, &[(field, value)]).await;
                        let status = answer.status.as_u16();
                        let is_refused = status == 400
                            // Some dialects do not have this method.
                            || status == 405
                            || (status == 404 && line.starts_with("POST"));
                        assert!(
                            is_refused,
                            "{dialect:?} {line} {field}: {value}: {answer:?}"
                        );
                        assert_eq!(state_of(&store, "q3").await, Some(state), "{line} {value}");
                    }
                }
            }
        }
    }
    let polls = PollService::new(store_with("q3", State::Succeeded).await);
    let answer = ask(&polls, "DELETE /q3", &[("if-match", "*, \"x\"")]).await;
    let detail = answer.detail(400, "invalid-precondition");
    assert!(detail.contains("If-Match"), "{detail}");
    let answer = ask(&polls, "GET /q3", &[("if-none-match", "*, \"x\"")]).await;
    let detail = answer.detail(400, "invalid-precondition");
    assert!(detail.contains("If-None-Match"), "{detail}");
    // A malformed precondition reveals nothing about an unknown operation.
    let answer = ask(&polls, "DELETE /none", &[("if-match", "*, \"x\"")]).await;
    answer.detail(404, "not-found");
}

#[tokio::test]
async fn if_match_star_is_like_no_precondition_in_plain() {
    for state in [State::Succeeded, State::Failed] {
        let store = store_with("q3", state).await;
        let polls = PollService::new(store.clone());
        let bare = ask(&polls, "DELETE /q3", &[]).await;
        let star = ask(&polls, "DELETE /q3", &[("if-match", "*")]).await;
        star.detail(409, "already-finished");
        assert_eq!(star.body, bare.body);
        assert_eq!(state_of(&store, "q3").await, Some(state));
    }
    let store = store_with("q3", State::Running).await;
    let polls = PollService::new(store.clone());
    let star = ask(&polls, "DELETE /q3", &[("if-match", "*")]).await;
    assert_eq!(star.json()["state"], "canceled");
}

#[tokio::test]
async fn a_failed_precondition_prevents_a_delete() {
    for (dialect, _) in delete_statuses() {
        let store = store_with("q3", State::Succeeded).await;
        let polls = Operations::new(store.clone())
            .dialect(Arc::clone(&dialect))
            .poll_service();
        for (field, value) in [
            ("if-match", "\"other\""),
            ("if-match", "\"other\", \"*\""),
            ("if-none-match", "*"),
        ] {
            let answer = ask(&polls, "DELETE /q3", &[(field, value)]).await;
            assert_eq!(
                answer.status, 412,
                "{dialect:?} {field}: {value}: {answer:?}"
            );
            assert_eq!(state_of(&store, "q3").await, Some(State::Succeeded));
        }
    }
}

/// A store whose operation ends just before the first cancel.
async fn store_with_end_before_cancel() -> (MemoryStore, Hooked) {
    let memory = store_with("q3", State::Running).await;
    let has_ended = Arc::new(AtomicBool::new(false));
    let store = Hooked::new(memory.clone(), {
        let memory = memory.clone();
        move |call, when| {
            let (memory, has_ended) = (memory.clone(), Arc::clone(&has_ended));
            async move {
                let is_cancel = (call, when) == (Call::ForceFinish, When::Before);
                if is_cancel && !has_ended.swap(true, SeqCst) {
                    let id = "q3".parse().unwrap();
                    let token = memory.get(&id).await?.unwrap().token();
                    memory.finish(&id, token, json_outcome("[1]"), None).await?;
                }
                Ok(())
            }
        }
    });
    (memory, store)
}

#[tokio::test]
async fn a_late_cancel_with_if_match_star_deletes_nothing() {
    for (dialect, line) in [
        (Arc::new(Plain::default()) as Arc<dyn Dialect>, "DELETE /q3"),
        (Arc::new(Ogc::default()), "DELETE /q3"),
        (Arc::new(Fhir::default()), "DELETE /q3"),
        (Arc::new(OData::default()), "DELETE /q3"),
        (Arc::new(Azure::default()), "POST /q3:cancel"),
        (Arc::new(Google::default()), "POST /q3:cancel"),
        (Arc::new(Ipa::default()), "POST /q3:cancel"),
        (Arc::new(DurableFunctions::default()), "POST /q3/terminate"),
    ] {
        let (memory, store) = store_with_end_before_cancel().await;
        let polls = Operations::new(store)
            .dialect(Arc::clone(&dialect))
            .poll_service();
        let answer = ask(&polls, line, &[("if-match", "*")]).await;
        assert_ne!(answer.status, StatusCode::NO_CONTENT, "{dialect:?}");
        let state = state_of(&memory, "q3").await;
        assert_eq!(state, Some(State::Succeeded), "{dialect:?}: {answer:?}");
    }
    // A cancel that names an older version is a 412.
    let (memory, store) = store_with_end_before_cancel().await;
    let polls = PollService::new(store);
    let etag = ask(&polls, "GET /q3", &[]).await.field("etag").to_owned();
    let answer = ask(&polls, "DELETE /q3", &[("if-match", &etag)]).await;
    answer.detail(412, "precondition-failed");
    assert_eq!(state_of(&memory, "q3").await, Some(State::Succeeded));
}

#[tokio::test]
async fn a_canceled_operation_is_deleted_by_its_version() {
    for (dialect, status) in delete_statuses() {
        let store = store_with("q3", State::Canceled).await;
        let plain = PollService::new(store.clone());
        let etag = ask(&plain, "GET /q3", &[]).await.field("etag").to_owned();
        let polls = Operations::new(store.clone())
            .dialect(Arc::clone(&dialect))
            .poll_service();
        let another = ask(&polls, "DELETE /q3", &[("if-match", "W/\"1-0\"")]).await;
        // FHIR answers 404 for a canceled operation.
        let is_hidden = another.status == StatusCode::NOT_FOUND;
        assert!(
            is_hidden || another.status == 412,
            "{dialect:?}: {another:?}"
        );
        assert_eq!(state_of(&store, "q3").await, Some(State::Canceled));
        let answer = ask(&polls, "DELETE /q3", &[("if-match", &etag)]).await;
        if format!("{dialect:?}").starts_with("Fhir") {
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
            continue;
        }
        assert_eq!(answer.status, status, "{dialect:?}: {answer:?}");
        assert_eq!(state_of(&store, "q3").await, None, "{dialect:?}");
        let answer = ask(&polls, "GET /q3", &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{dialect:?}");
    }
    // A second cancel without the version deletes nothing.
    let store = store_with("q3", State::Canceled).await;
    let polls = PollService::new(store.clone());
    for fields in [&[][..], &[("if-match", "*")]] {
        let answer = ask(&polls, "DELETE /q3", fields).await;
        assert_eq!(answer.json()["state"], "canceled");
    }
    assert_eq!(state_of(&store, "q3").await, Some(State::Canceled));
}

// ---- names -----------------------------------------------------------------

#[tokio::test]
async fn an_escaped_id_is_the_id_in_every_dialect() {
    for dialect in every_dialect() {
        let store = store_with("Q-3.a_b~", State::Running).await;
        let polls = Operations::new(store.clone())
            .dialect(Arc::clone(&dialect))
            .poll_service();
        let plain = ask(&polls, "GET /Q-3.a_b~", &[]).await;
        assert!(plain.status.is_success());
        for path in [
            "/Q%2D3.a_b~",
            "/%51-3%2ea%5Fb%7e",
            "/%51%2d%33%2E%61%5f%62%7E",
            "/?id=Q%2D3.a_b%7e",
        ] {
            let answer = ask(&polls, &format!("GET {path}"), &[]).await;
            assert_eq!(
                answer.status, plain.status,
                "{dialect:?} {path}: {answer:?}"
            );
            assert_eq!(answer.body, plain.body, "{dialect:?} {path}");
            assert_eq!(answer.field("location"), plain.field("location"));
        }
        // An id is decoded only once.
        for path in ["/Q%252D3.a_b~", "/%25%351-3.a_b~", "/?id=Q%252D3.a_b~"] {
            let answer = ask(&polls, &format!("GET {path}"), &[]).await;
            assert_eq!(answer.status, 400, "{dialect:?} {path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn escapes_are_decoded_in_the_whole_path() {
    let store = store_with("q3", State::Succeeded).await;
    let polls = PollService::new(store.clone()).mounted_at("/operations");
    for path in [
        "/operations/q%33/result",
        "/operations/q3/res%75lt",
        "/%6fperations/q3/result/",
    ] {
        let answer = ask(&polls, &format!("GET {path}"), &[]).await;
        assert_eq!(answer.text(), "[1]", "{path}");
    }
    for path in [
        "/operations/q3%2Fresult",
        "/operations/%2E%2E",
        "/operations/%2e",
    ] {
        let answer = ask(&polls, &format!("GET {path}"), &[]).await;
        answer.detail(400, "invalid-id");
    }
    let azure = Operations::new(store_with("q3", State::Running).await)
        .dialect(Azure::default())
        .poll_service();
    for path in ["/q%33%3A%63ancel", "/q3:canc%65l"] {
        let answer = ask(&azure, &format!("POST {path}"), &[]).await;
        assert_eq!(answer.json()["status"], "Canceled", "{path}");
    }
    let durable = Operations::new(store_with("q3", State::Running).await)
        .dialect(DurableFunctions::default())
        .poll_service();
    let answer = ask(&durable, "POST /q3/r%65wind", &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn an_unknown_sub_resource_is_named() {
    let owner = |parts: &Parts| {
        let user = parts.headers.get("x-user")?;
        Some(Owner::new(user.to_str().unwrap()))
    };
    let store = MemoryStore::new();
    for id in [UUID, "q3"] {
        let new = NewOperation::new(id.parse().unwrap()).with_owner(Some(Owner::new("ada")));
        add(&store, new, State::Succeeded).await;
    }
    for is_mounted in [false, true] {
        let polls = Operations::new(store.clone()).owner(owner).poll_service();
        let (polls, root) = match is_mounted {
            false => (polls, ""),
            true => (polls.mounted_at("/operations"), "/operations"),
        };
        for (id, name) in [
            (UUID, "foo"),
            ("q3", "foo"),
            (UUID, "results"),
            ("q3", "terminate"),
        ] {
            for path in [format!("/{id}/{name}"), format!("/{id}/{name}/")] {
                let line = format!("GET {root}{path}");
                let by_owner = ask(&polls, &line, &[("x-user", "ada")]).await;
                let detail = by_owner.detail(404, "not-found");
                assert!(detail.contains("sub-resource"), "{line}: {detail}");
                assert!(
                    detail.contains(name) && detail.contains(id),
                    "{line}: {detail}"
                );
                // The answer is the same for another owner's operation and for an unknown id.
                let by_stranger = ask(&polls, &line, &[("x-user", "eve")]).await;
                assert_eq!(by_stranger.body, by_owner.body, "{line}");
                let unknown = ask(&polls, &line.replace(id, "q4"), &[]).await;
                assert_eq!(unknown.text().replace("q4", id), by_owner.text(), "{line}");
            }
        }
        let detail = ask(&polls, &format!("GET {root}/foo"), &[]).await;
        assert_eq!(
            detail.detail(404, "not-found"),
            "There is no operation foo."
        );
        let detail = ask(&polls, &format!("GET {root}/results"), &[]).await;
        assert_eq!(
            detail.detail(404, "not-found"),
            "There is no operation results."
        );
    }
    // A service without `mounted_at` recognizes its root too.
    let polls = PollService::new(store);
    let answer = ask(&polls, "GET /v1/operations/foo", &[]).await;
    assert_eq!(
        answer.detail(404, "not-found"),
        "There is no operation foo."
    );
}

// ---- unsupported requests ---------------------------------------------------

#[tokio::test]
async fn unsupported_parameters_and_actions_are_named() {
    let store = store_with("q3", State::Running).await;
    for (dialect, line, status, name) in [
        (
            Arc::new(Ogc::default()) as Arc<dyn Dialect>,
            "GET /?processID=p",
            501,
            "processID",
        ),
        (
            Arc::new(Ogc::default()),
            "GET /?datetime=2026-01-01",
            501,
            "datetime",
        ),
        (
            Arc::new(Ogc::default()),
            "GET /?minDuration=1&minDuration=2",
            501,
            "minDuration",
        ),
        (
            Arc::new(Ogc::default()),
            "GET /?maxDuration=1",
            501,
            "maxDuration",
        ),
        (Arc::new(Ogc::default()), "GET /?type=other", 501, "type"),
        (Arc::new(Ogc::default()), "GET /?offset=20", 400, "offset"),
        (Arc::new(Ogc::default()), "GET /?limit=0", 400, "limit"),
        (
            Arc::new(Google::default()),
            "GET /?filter=done",
            501,
            "filter",
        ),
        (
            Arc::new(Google::default()),
            "GET /?page_size=x",
            400,
            "page_size",
        ),
        (
            Arc::new(Google::default()),
            "GET /?page_token=x",
            400,
            "page_token",
        ),
        (
            Arc::new(Google::default()),
            "GET /?page_size=1&pageSize=1",
            400,
            "page_size",
        ),
        (Arc::new(Ipa::default()), "GET /?pageNum=2", 400, "pageNum"),
        (
            Arc::new(Ipa::default()),
            "GET /?itemsPerPage=0",
            400,
            "itemsPerPage",
        ),
        (
            Arc::new(Ipa::default()),
            "GET /?itemsPerPage=1&limit=1",
            400,
            "itemsPerPage",
        ),
        (
            Arc::new(Ipa::default()),
            "GET /?includeCount=true",
            400,
            "includeCount",
        ),
        (Arc::new(Azure::default()), "GET /?$top=3", 400, "$top"),
        (
            Arc::new(Azure::default()),
            "GET /?maxpagesize=3",
            400,
            "maxpagesize",
        ),
        (Arc::new(Azure::default()), "GET /?%24skip=3", 400, "$skip"),
        (Arc::new(Arm::default()), "GET /?$top=3", 400, "$top"),
        (Arc::new(OData::default()), "GET /?$top=3", 400, "$top"),
        (
            Arc::new(OData::default()),
            "GET /q3?$filter=a",
            400,
            "$filter",
        ),
        (
            Arc::new(OData::default()),
            "GET /q3?$skiptoken=a",
            400,
            "$skiptoken",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "GET /?createdTimeFrom=2026",
            501,
            "createdTimeFrom",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "GET /?createdTimeTo=2026",
            501,
            "createdTimeTo",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "GET /?instanceIdPrefix=q",
            501,
            "instanceIdPrefix",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "GET /?top=x",
            400,
            "top",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "GET /q3?showHistory=true",
            400,
            "showHistory",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "POST /q3/rewind?reason=x",
            501,
            "rewind",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "POST /q3/suspend",
            501,
            "suspend",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "POST /q3/resume",
            501,
            "resume",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "POST /q3/restart",
            501,
            "restart",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "POST /q3/raiseEvent/done",
            501,
            "raiseEvent",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "DELETE /?createdTimeFrom=2026",
            501,
            "purging",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "GET /q3?returnInternalServerErrorOnFailure=true&returnInternalServerErrorOnFailure=false",
            400,
            "returnInternalServerErrorOnFailure",
        ),
    ] {
        for lists in [true, false] {
            let polls = Operations::new(store.clone())
                .dialect(Arc::clone(&dialect))
                .poll_service();
            let polls = if lists { polls.listing() } else { polls };
            let answer = ask(&polls, line, &[]).await;
            if !lists && answer.text().contains("names no operation") {
                continue;
            }
            assert_eq!(answer.status, status, "{dialect:?} {line}: {answer:?}");
            assert!(
                answer.text().contains(name),
                "{dialect:?} {line}: {answer:?}"
            );
        }
    }
    let durable = Operations::new(store)
        .dialect(DurableFunctions::default())
        .poll_service()
        .listing();
    let token = "x-ms-continuation-token";
    let twice = ask(&durable, "GET /", &[(token, "a"), (token, "b")]).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
    assert!(twice.text().contains(token), "{twice:?}");
    let bad = Request::get("/").header(token, http::HeaderValue::from_bytes(b"\xff").unwrap());
    let bad = durable.oneshot(bad.body(()).unwrap()).await.unwrap();
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn page_parameters_have_the_names_of_the_dialect() {
    let store = MemoryStore::new();
    for id in ["a", "b", "c"] {
        add(
            &store,
            NewOperation::new(id.parse().unwrap()),
            State::Succeeded,
        )
        .await;
    }
    for (dialect, query, array) in [
        (
            Arc::new(Google::default()) as Arc<dyn Dialect>,
            "pageSize=2",
            "/operations",
        ),
        (Arc::new(Google::default()), "page_size=2", "/operations"),
        (Arc::new(Ipa::default()), "itemsPerPage=2", "/results"),
        (
            Arc::new(Ipa::default()),
            "itemsPerPage=2&pageNum=1&includeCount=false",
            "/results",
        ),
        (
            Arc::new(Ogc::default()),
            "limit=2&offset=0&type=process",
            "/jobs",
        ),
        (
            Arc::new(Ogc::default()),
            "limit=2&type=other&type=process",
            "/jobs",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "top=2&showHistory=false",
            "",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "top=2&runtimeStatus=Completed,ContinuedAsNew",
            "",
        ),
        // Parameters that no dialect has are ignored.
        (
            Arc::new(Google::default()),
            "pageSize=2&$alt=json;enum-encoding=int&x=1&x=2",
            "/operations",
        ),
        (
            Arc::new(Plain::default()),
            "limit=2&page=7&x=1&x=2",
            "/operations",
        ),
    ] {
        let polls = Operations::new(store.clone())
            .dialect(Arc::clone(&dialect))
            .poll_service()
            .listing();
        let answer = ask(&polls, &format!("GET /?{query}"), &[]).await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{dialect:?} {query}: {answer:?}"
        );
        let page = answer.json().pointer(array).unwrap().clone();
        assert_eq!(page.as_array().unwrap().len(), 2, "{dialect:?} {query}");
    }
    let google = Operations::new(store)
        .dialect(Google::default())
        .poll_service()
        .listing();
    let first = ask(&google, "GET /?page_size=2", &[]).await.json();
    let token = first["nextPageToken"].as_str().unwrap();
    for name in ["page_token", "pageToken"] {
        let next = ask(&google, &format!("GET /?{name}={token}"), &[])
            .await
            .json();
        assert_eq!(next["operations"].as_array().unwrap().len(), 1);
    }
}

// ---- error details ----------------------------------------------------------

#[tokio::test]
async fn an_invalid_value_is_quoted_with_the_allowed_ones() {
    let long = "9x".repeat(5000);
    let dialects: [(Arc<dyn Dialect>, &[&str]); 5] = [
        (
            Arc::new(Plain::default()),
            &[
                "limit=0",
                "limit=abc",
                "state=done",
                "cursor=x",
                "limit=%zz",
            ],
        ),
        (
            Arc::new(Google::default()),
            &["page_size=x", "pageSize=x", "page_token=x", "pageToken=x"],
        ),
        (
            Arc::new(Ogc::default()),
            &["limit=0", "status=done", "offset=7", "cursor=x"],
        ),
        (
            Arc::new(Ipa::default()),
            &[
                "itemsPerPage=0",
                "pageNum=2",
                "includeCount=true",
                "cursor=x",
            ],
        ),
        (
            Arc::new(DurableFunctions::default()),
            &["top=0", "runtimeStatus=done"],
        ),
    ];
    for (dialect, queries) in dialects {
        let store = store_with("q3", State::Running).await;
        let polls = Operations::new(store)
            .dialect(Arc::clone(&dialect))
            .poll_service()
            .listing();
        let first = queries[0].split_once('=').unwrap().0;
        let long = format!("{first}={long}");
        for query in queries.iter().copied().chain([long.as_str()]) {
            let (name, value) = query.split_once('=').unwrap();
            let answer = ask(&polls, &format!("GET /?{query}"), &[]).await;
            assert_eq!(
                answer.status,
                StatusCode::BAD_REQUEST,
                "{dialect:?} {query}"
            );
            let text = answer.text();
            let expected = format!(" is not a value of {name}, which takes ");
            assert!(text.contains(&expected), "{dialect:?} {query}: {text}");
            assert!(
                text.contains(&value[..value.len().min(60)]),
                "{query}: {text}"
            );
            assert!(text.len() < 1000, "{query}: {text}");
        }
    }
    let store = store_with("q3", State::Running).await;
    let polls = PollService::new(store.clone());
    let answer = ask(&polls, "GET /q3?wait=soon", &[]).await;
    let detail = answer.detail(400, "invalid-wait");
    assert_eq!(
        detail,
        "\"soon\" is not a value of wait, which takes whole seconds, such as 10."
    );
    let google = Operations::new(store)
        .dialect(Google::default())
        .poll_service();
    let answer = ask(&google, "POST /q3:wait?timeout=soon", &[]).await;
    assert!(answer.text().contains("soon"), "{answer:?}");
}

#[tokio::test]
async fn refusals_of_polls_have_a_detail() {
    let store = store_with("q3", State::Running).await;
    let polls = PollService::new(store.clone());
    for (line, fields, status, code, fact) in [
        (
            "GET /a%00b",
            &[][..],
            400,
            "invalid-id",
            "The id is \"a%00b\"",
        ),
        ("GET /?id=%zz", &[], 400, "invalid-id", "%zz"),
        ("GET /", &[], 400, "missing-id", "names no operation"),
        (
            "PATCH /q3",
            &[],
            405,
            "method-not-allowed",
            "GET, HEAD, DELETE, OPTIONS",
        ),
        (
            "DELETE /q3",
            &[("if-match", "\"x\"")],
            412,
            "precondition-failed",
            "If-Match",
        ),
        (
            "DELETE /q3",
            &[("if-none-match", "*")],
            412,
            "precondition-failed",
            "If-None-Match",
        ),
    ] {
        let detail = ask(&polls, line, fields).await.detail(status, code);
        assert!(detail.contains(fact), "{line}: {detail}");
    }
    let long = format!("GET /{}", "x".repeat(10_000));
    let answer = ask(&polls, &long, &[]).await;
    let detail = answer.detail(400, "invalid-id");
    assert!(detail.contains("128") && detail.len() < 200, "{detail}");
    let ogc = Operations::new(store)
        .dialect(Ogc::default())
        .poll_service();
    let answer = ask(&ogc, "GET /q3/results", &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json()["detail"], "The job q3 is running.");
}

// ---- termination reasons ----------------------------------------------------

#[tokio::test]
async fn the_termination_reason_is_the_output() {
    let store = store_with("q3", State::Running).await;
    let polls = Operations::new(store.clone())
        .dialect(DurableFunctions::default())
        .poll_service();
    let line = "POST /q3/terminate?reason=too%20late,%20%22sorry%22";
    assert_eq!(ask(&polls, line, &[]).await.status, StatusCode::ACCEPTED);
    let answer = ask(&polls, "GET /q3", &[]).await.json();
    assert_eq!(answer["runtimeStatus"], "Terminated");
    assert_eq!(answer["output"], "too late, \"sorry\"");
    let plain = ask(&PollService::new(store), "GET /q3", &[]).await.json();
    assert_eq!(plain["reason"], "too late, \"sorry\"");

    // The reason is optional. A long reason is truncated.
    for (query, expected) in [
        ("", json!("Canceled: The operation was canceled.")),
        ("?reason=", json!("Canceled: The operation was canceled.")),
        (
            &format!("?reason={}", "x".repeat(5000)),
            json!("x".repeat(1024)),
        ),
    ] {
        let polls = Operations::new(store_with("q3", State::Running).await)
            .dialect(DurableFunctions::default())
            .poll_service();
        let line = format!("POST /q3/terminate{query}");
        assert_eq!(ask(&polls, &line, &[]).await.status, StatusCode::ACCEPTED);
        assert_eq!(ask(&polls, "GET /q3", &[]).await.json()["output"], expected);
    }
    let polls = Operations::new(store_with("q3", State::Running).await)
        .dialect(DurableFunctions::default())
        .poll_service();
    let twice = ask(&polls, "POST /q3/terminate?reason=a&reason=b", &[]).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
    assert!(twice.text().contains("reason"), "{twice:?}");
}

#[tokio::test]
async fn a_termination_after_the_end_is_410_and_keeps_the_reason() {
    for state in State::ALL.into_iter().filter(|state| state.is_terminal()) {
        let polls = Operations::new(store_with("q3", state).await)
            .dialect(DurableFunctions::default())
            .poll_service();
        let before = ask(&polls, "GET /q3", &[]).await.json();
        let late = ask(&polls, "POST /q3/terminate?reason=late", &[]).await;
        assert_eq!(late.status, StatusCode::GONE, "{state}: {late:?}");
        let state = state.to_string();
        assert!(late.text().contains(&state), "{late:?}");
        assert_eq!(ask(&polls, "GET /q3", &[]).await.json(), before);
    }
    let polls = Operations::new(store_with("q3", State::Running).await)
        .dialect(DurableFunctions::default())
        .poll_service();
    for (reason, status) in [("first", 202), ("second", 410), ("first", 410)] {
        let line = format!("POST /q3/terminate?reason={reason}");
        assert_eq!(ask(&polls, &line, &[]).await.status, status);
        let output = ask(&polls, "GET /q3", &[]).await.json()["output"].clone();
        assert_eq!(output, "first");
    }
}

#[tokio::test]
async fn every_uri_in_a_durable_functions_202_works() {
    use tower::{Layer, service_fn};
    use tower_operations::RequestBody;

    let store = MemoryStore::new();
    let layer = Operations::new(store.clone())
        .dialect(DurableFunctions::default())
        .layer();
    let inner = service_fn(async |_: Request<RequestBody<BufferedBody>>| {
        std::future::pending::<Result<http::Response<BufferedBody>, std::convert::Infallible>>()
            .await
    });
    let post = Request::post("/").body(BufferedBody::default()).unwrap();
    let accepted = layer.layer(inner).oneshot(post).await.unwrap();
    let body = accepted.into_body().collect().await.unwrap().to_bytes();
    let management: Value = serde_json::from_slice(&body).unwrap();
    let polls = Operations::new(store)
        .dialect(DurableFunctions::default())
        .poll_service()
        .mounted_at("/operations");
    let names: Vec<&String> = management.as_object().unwrap().keys().collect();
    let uris: Vec<_> = names.iter().filter(|name| name.ends_with("Uri")).collect();
    assert_eq!(uris.len(), 3, "{names:?}");
    for (name, method, status) in [
        ("statusQueryGetUri", "GET", 202),
        ("terminatePostUri", "POST", 202),
        ("purgeHistoryDeleteUri", "DELETE", 200),
    ] {
        let uri = management[name].as_str().unwrap().replace("{text}", "late");
        let answer = ask(&polls, &format!("{method} {uri}"), &[]).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_read_only_service_allows_only_reads() {
    let store = store_with("q3", State::Running).await;
    for (dialect, path) in [
        (Arc::new(Azure::default()) as Arc<dyn Dialect>, "/q3:cancel"),
        (Arc::new(Google::default()), "/q3:cancel"),
        (Arc::new(DurableFunctions::default()), "/q3/terminate"),
    ] {
        let polls = Operations::new(store.clone())
            .dialect(dialect)
            .read_only_poll_service();
        for method in ["GET", "POST", "OPTIONS"] {
            let answer = ask(&polls, &format!("{method} {path}"), &[]).await;
            assert_eq!(answer.field("allow"), "OPTIONS", "{method} {path}");
        }
        for method in ["DELETE", "OPTIONS"] {
            let answer = ask(&polls, &format!("{method} /q3"), &[]).await;
            assert_eq!(answer.field("allow"), "GET, HEAD, OPTIONS", "{method}");
        }
    }
}

// ---- operation resources ----------------------------------------------------

#[tokio::test]
async fn an_operation_has_its_name_and_after_its_end_a_result_link() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).listing();
    let states = State::ALL.map(|state| (state.as_str(), state));
    for (id, state) in states {
        let new = NewOperation::new(id.parse().unwrap()).with_name(Some("re\"port".into()));
        add(&store, new, state).await;
    }
    for (id, state) in states {
        let polled = ask(&polls, &format!("GET /{id}"), &[]).await.json();
        assert_eq!(polled["name"], "re\"port", "{polled}");
        let links = match state {
            State::Succeeded | State::Failed => {
                let link = json!({"result": format!("/operations/{id}/result")});
                let answer = ask(&polls, &format!("GET /{id}/result"), &[]).await;
                assert!(answer.headers.contains_key("operation-result"), "{id}");
                link
            }
            _ => Value::Null,
        };
        assert_eq!(polled["links"], links, "{id}");
        let listed = ask(&polls, &format!("GET /?state={id}"), &[]).await.json();
        let listed = &listed["operations"][0];
        assert_eq!(
            (&listed["name"], &listed["links"]),
            (&polled["name"], &links)
        );
        if state.is_terminal() {
            let events = ask(&polls, &format!("GET /{id}/events"), &[]).await;
            let data = events
                .text()
                .lines()
                .find_map(|line| line.strip_prefix("data: "));
            let event: Value = serde_json::from_str(data.unwrap()).unwrap();
            assert_eq!(event, polled);
        }
    }
    // The result link follows the public URL or the location of the application.
    for (polls, expected) in [
        (
            Operations::new(store.clone())
                .public_url("https://a.example/v1")
                .unwrap()
                .poll_service(),
            "https://a.example/v1/operations/succeeded/result",
        ),
        (
            Operations::new(store.clone())
                .location(|_, id| format!("/jobs/{id}?x=\"1\""))
                .poll_service(),
            "/jobs/succeeded/result?x=\"1\"",
        ),
    ] {
        let polled = ask(&polls, "GET /succeeded", &[]).await.json();
        assert_eq!(polled["links"]["result"], expected);
    }
    let without_location = Operations::new(store)
        .location(|_, _| String::new())
        .poll_service();
    let polled = ask(&without_location, "GET /succeeded", &[]).await.json();
    assert_eq!(polled.get("links"), None);
}

/// The first poll does not wait. The second poll waits with the `ETag` of the first.
#[tokio::test(start_paused = true)]
async fn a_wait_with_the_etag_ends_at_progress() {
    let store = MemoryStore::new();
    let id: OperationId = "q3".parse().unwrap();
    let new = NewOperation::new(id.clone());
    let Created::New(record) = store.create(new).await.unwrap() else {
        panic!("the id is new");
    };
    let polls = PollService::new(store.clone());
    let first = ask(&polls, "GET /q3", &[]).await;
    assert_eq!(first.json()["state"], "pending");
    let etag = first.field("etag").to_owned();
    let second_poll = tokio::spawn({
        let polls = polls.clone();
        async move {
            let fields = [("if-none-match", etag.as_str()), ("prefer", "wait=20")];
            ask(&polls, "GET /q3", &fields).await
        }
    });
    while store.waiters() == 0 {
        tokio::task::yield_now().await;
    }
    let progress = Progress::from_count(1, 4);
    store.report(&id, record.token(), progress).await.unwrap();
    let second = second_poll.await.unwrap();
    assert_eq!(second.status, StatusCode::OK);
    assert_eq!(second.json()["progress"]["completed"], 1);
    assert_eq!(
        store.get(&id).await.unwrap().unwrap().version(),
        Version::from_number(2)
    );
}
