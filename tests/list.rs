//! Listing operations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_operations::{
    BufferedBody, FailureKind, MemoryStore, OperationId, Operations, Outcome, Payload, PollService,
    RecordedResponse,
    dialect::{Dialect, DurableFunctions, Google, Ipa, Ogc, Plain},
    poll::PollBody,
    store::{Created, FencingToken, NewOperation, Owner, Repository, Store, Written},
};

fn header_owner(parts: &Parts) -> Option<Owner> {
    let user = parts.headers.get("x-user")?;
    Some(Owner::new(user.to_str().unwrap()))
}

async fn ask<S: Store>(
    polls: &PollService<S>,
    request: http::request::Builder,
) -> Response<PollBody> {
    let request = request.body(()).unwrap();
    polls.clone().oneshot(request).await.unwrap()
}

/// A complete response.
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn fetch<S: Store>(polls: &PollService<S>, request: http::request::Builder) -> Self {
        let (parts, body) = ask(polls, request).await.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    fn field(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn problem(&self) -> String {
        assert_eq!(self.field("content-type"), "application/problem+json");
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// Returns the operations of a list.
    fn operations(&self) -> Vec<Value> {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        assert_eq!(self.field("content-type"), "application/json");
        self.json()["operations"].as_array().unwrap().clone()
    }

    fn ids(&self) -> Vec<String> {
        let operations = self.operations();
        let id = |operation: &Value| operation["id"].as_str().unwrap().to_owned();
        operations.iter().map(id).collect()
    }

    /// Returns the URI of the next page, resolved against `base`.
    fn next(&self, base: &str) -> Option<String> {
        let link = self.headers.get(header::LINK)?.to_str().unwrap();
        let target = link.strip_suffix(">; rel=\"next\"")?.strip_prefix('<')?;
        assert!(target.starts_with('?'), "relative to the list: {target}");
        Some(format!("{}{target}", base.split('?').next().unwrap()))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?}", self.status, self.headers, self.body)
    }
}

/// Creates an operation in a millisecond of its own.
async fn create<T: Payload>(store: &MemoryStore<T>, owner: Option<&str>) -> OperationId {
    let millis = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap().as_millis()
    };
    let before = millis();
    while millis() == before {
        std::hint::spin_loop();
    }
    let id = OperationId::new();
    let new = NewOperation::new(id.clone()).with_owner(owner.map(Owner::new));
    assert!(matches!(store.create(new).await, Ok(Created::New(_))));
    id
}

/// Returns the token of the operation's holder.
async fn holder_token<T: Payload>(store: &MemoryStore<T>, id: &OperationId) -> FencingToken {
    store.get(id).await.unwrap().unwrap().token()
}

async fn finish<T: Payload>(store: &MemoryStore<T>, id: &OperationId, outcome: Outcome<T>) {
    let write = store
        .finish(id, holder_token(store, id).await, outcome, None)
        .await;
    assert!(matches!(write, Ok(Written::Done(_))));
}

fn response(body: &'static str) -> Outcome<RecordedResponse> {
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    RecordedResponse::new(response.body(BufferedBody::from(body)).unwrap()).into_outcome()
}

/// Follows a list to its end. Returns the ids of every page.
async fn pages<S: Store>(polls: &PollService<S>, first: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(uri) = next {
        let page = Answer::fetch(polls, Request::get(&uri)).await;
        pages.push(page.ids());
        next = page.next(&uri);
        assert!(pages.len() < 1000, "the list has no end");
    }
    pages
}

#[tokio::test]
async fn lists_are_disabled_by_default() {
    let store = MemoryStore::new();
    create(&store, None).await;
    for polls in [
        PollService::new(store.clone()),
        PollService::read_only(store.clone()),
    ] {
        for (method, path) in [
            ("GET", "/"),
            ("HEAD", "/"),
            ("GET", "/?limit=1&state=pending"),
        ] {
            let request = Request::builder().method(method).uri(path);
            let answer = Answer::fetch(&polls, request).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}");
            if method == "GET" {
                assert_eq!(answer.problem(), "urn:tower-operations:missing-id");
            }
        }
    }
}

#[tokio::test]
async fn a_list_is_newest_first_with_the_content_of_polls_but_without_results() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).listing();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(create(&store, None).await);
    }
    finish(&store, &ids[0], response("")).await;
    finish(&store, &ids[1], response("{\"secret\": \"in the result\"}")).await;
    finish(&store, &ids[2], response("\"\"")).await;
    finish(&store, &ids[3], Outcome::failed(FailureKind::InnerError)).await;
    let answer = Answer::fetch(&polls, Request::get("/")).await;
    let newest_first: Vec<_> = ids.iter().rev().map(ToString::to_string).collect();
    assert_eq!(answer.ids(), newest_first);
    assert!(answer.next("/").is_none(), "there is one page");
    assert!(answer.field("cache-control").contains("no-store"));
    for listed in answer.operations() {
        let uri = format!("/{}", listed["id"].as_str().unwrap());
        let mut polled = Answer::fetch(&polls, Request::get(&uri)).await.json();
        polled.as_object_mut().unwrap().remove("result");
        assert_eq!(listed, polled);
    }
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
}

#[tokio::test]
async fn results_of_a_custom_type_are_not_in_lists() {
    let store = MemoryStore::<u32>::with_weigher(|_| 0);
    let polls = PollService::new(store.clone()).listing();
    let id = create(&store, None).await;
    finish(&store, &id, Outcome::Succeeded(Some(4_242))).await;
    let listed = Answer::fetch(&polls, Request::get("/")).await.operations();
    assert_eq!(listed[0]["state"], "succeeded");
    assert_eq!(listed[0].get("result"), None);
}

#[tokio::test]
async fn a_list_has_only_the_operations_of_its_owner() {
    let store = MemoryStore::new();
    let polls = Operations::new(store.clone())
        .owner(header_owner)
        .poll_service()
        .listing();
    let mut ids_by_owner = BTreeMap::<_, Vec<String>>::new();
    for owner in [Some("ada"), None, Some("bob"), Some("ada"), None, Some("")] {
        let id = create(&store, owner).await.to_string();
        ids_by_owner.entry(owner).or_default().insert(0, id);
    }
    for (owner, expected) in &ids_by_owner {
        let mut request = Request::get("/");
        if let Some(owner) = owner {
            request = request.header("x-user", *owner);
        }
        assert_eq!(
            &Answer::fetch(&polls, request).await.ids(),
            expected,
            "{owner:?}"
        );
    }
    let stranger = Request::get("/").header("x-user", "eve");
    assert!(Answer::fetch(&polls, stranger).await.ids().is_empty());
    // A cursor of another owner is refused.
    let first = Request::get("/?limit=1").header("x-user", "ada");
    let next = Answer::fetch(&polls, first).await.next("/").unwrap();
    let request = Request::get(next).header("x-user", "bob");
    let refused = Answer::fetch(&polls, request).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    // A service without owners lists only operations without an owner.
    let ownerless = PollService::new(store).listing();
    let ids = Answer::fetch(&ownerless, Request::get("/")).await.ids();
    assert_eq!(ids, ids_by_owner[&None]);
}

#[tokio::test]
async fn a_list_is_filtered_by_one_state() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).listing();
    let by_state = two_in_each_state(&store).await;
    for (state, expected) in by_state {
        let uri = format!("/?state={state}");
        assert_eq!(
            Answer::fetch(&polls, Request::get(&uri)).await.ids(),
            expected
        );
        // The filter applies to further pages too.
        assert_eq!(
            pages(&polls, &format!("/?limit=1&state={state}"))
                .await
                .concat(),
            expected
        );
    }
}

/// Creates two operations in each state. Returns their ids by state, newest first.
async fn two_in_each_state(store: &MemoryStore) -> BTreeMap<&'static str, Vec<String>> {
    let mut by_state = BTreeMap::<_, Vec<String>>::new();
    for state in ["pending", "running", "succeeded", "failed", "canceled"].repeat(2) {
        let id = create(store, None).await;
        match state {
            "running" => {
                let write = store.start(&id, holder_token(store, &id).await).await;
                assert!(matches!(write, Ok(Written::Done(_))));
            }
            "succeeded" => finish(store, &id, response("1")).await,
            "failed" => finish(store, &id, Outcome::failed(FailureKind::Panicked)).await,
            "canceled" => finish(store, &id, Outcome::Canceled).await,
            _ => {}
        }
        by_state.entry(state).or_default().insert(0, id.to_string());
    }
    by_state
}

#[tokio::test]
async fn a_list_is_filtered_by_several_states_in_every_dialect() {
    let store = MemoryStore::new();
    let by_state = two_in_each_state(&store).await;
    let mut expected = [&by_state["succeeded"][..], &by_state["failed"][..]].concat();
    expected.sort_unstable();
    expected.reverse();
    let dialects: [(Arc<dyn Dialect>, _, _, _); 4] = [
        (
            Arc::new(Plain::default()),
            "/operations",
            "id",
            ["state=failed", "state=succeeded"],
        ),
        (
            Arc::new(Ogc::default()),
            "/jobs",
            "jobID",
            ["status=failed", "status=successful"],
        ),
        (
            Arc::new(Ipa::default()),
            "/results",
            "operationId",
            ["status=FAILED", "status=SUCCEEDED"],
        ),
        (
            Arc::new(DurableFunctions::default()),
            "",
            "instanceId",
            ["runtimeStatus=Failed", "runtimeStatus=Completed"],
        ),
    ];
    for (dialect, array, id, [one, other]) in dialects {
        let polls = Operations::new(store.clone())
            .dialect(dialect)
            .poll_service()
            .listing();
        let word = other.split_once('=').unwrap().1;
        // This dialect has no link to a next page, so one page has all operations.
        let length = match array {
            "" => "top=100",
            _ => "limit=3",
        };
        for query in [
            format!("{one}&{other}"),
            format!("{one},{word}"),
            format!("{one}%2C{word}&{one}"),
        ] {
            let mut listed = Vec::new();
            let mut next = Some(format!("/?{length}&{query}"));
            while let Some(uri) = next {
                let page = Answer::fetch(&polls, Request::get(&uri)).await;
                assert_eq!(page.status, StatusCode::OK, "{uri}: {page:?}");
                let operations = page.json().pointer(array).unwrap().clone();
                let ids = operations.as_array().unwrap().iter();
                listed.extend(ids.map(|operation| operation[id].as_str().unwrap().to_owned()));
                next = page.next(&uri);
                assert!(listed.len() <= expected.len(), "{uri} lists {listed:?}");
            }
            assert_eq!(listed, expected, "{query}");
        }
        for bad in ["=bogus", "=", ",", ",,bogus"] {
            let (name, _) = one.split_once('=').unwrap();
            let query = match bad.starts_with('=') {
                true => format!("{one}&{name}{bad}"),
                false => format!("{one}{bad}"),
            };
            let answer = Answer::fetch(&polls, Request::get(format!("/?{query}"))).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(text.contains(name), "{query}: {text}");
        }
    }
}

#[tokio::test]
async fn a_repeated_parameter_is_400_with_its_name() {
    let store = MemoryStore::new();
    let id = create(&store, None).await;
    let dialects: [(Arc<dyn Dialect>, &[&str]); 5] = [
        (
            Arc::new(Plain::default()),
            &["/?limit=1", "/?cursor=x", "/ID?wait=1", "/?id=a"],
        ),
        (
            Arc::new(Ogc::default()),
            &["/?limit=1", "/?cursor=x", "/?id=a"],
        ),
        (Arc::new(Ipa::default()), &["/?limit=1", "/?cursor=x"]),
        (Arc::new(DurableFunctions::default()), &["/?top=1"]),
        (
            Arc::new(Google::default()),
            &["/?pageSize=1", "/?pageToken=x"],
        ),
    ];
    for (dialect, uris) in dialects {
        let polls = Operations::new(store.clone())
            .dialect(dialect)
            .poll_service()
            .listing();
        for uri in uris {
            let (path, pair) = uri.split_once('?').unwrap();
            let path = path.replace("ID", &id.to_string());
            let (name, _) = pair.split_once('=').unwrap();
            for repetition in [pair.to_owned(), format!("{name}=")] {
                let uri = format!("{path}?{pair}&x=1&{repetition}");
                let answer = Answer::fetch(&polls, Request::get(&uri)).await;
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(text.contains(name), "{uri}: {text}");
                assert!(text.contains("more than once"), "{uri}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_has_the_requested_length_of_at_most_100() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).listing();
    for _ in 0..130 {
        let new = NewOperation::new(OperationId::new());
        store.create(new).await.unwrap();
    }
    let length = async |uri: &str| Answer::fetch(&polls, Request::get(uri)).await.ids().len();
    assert_eq!(length("/?limit=1").await, 1);
    assert_eq!(length("/?limit=99").await, 99);
    assert_eq!(length("/?limit=100").await, 100);
    assert_eq!(length("/?limit=101").await, 100);
    assert_eq!(length("/?limit=99999999999999999999999").await, 100);
    assert!((1..=100).contains(&length("/").await));
    for first in [
        "/",
        "/?limit=7",
        "/?limit=65",
        "/?limit=1000",
        "/?limit=130",
    ] {
        let pages = pages(&polls, first).await;
        let all: BTreeSet<_> = pages.iter().flatten().collect();
        assert_eq!((all.len(), pages.concat().len()), (130, 130), "{first}");
        assert!(pages.iter().all(|page| !page.is_empty()), "{first}");
    }
}

#[tokio::test]
async fn an_invalid_parameter_is_400_with_its_name() {
    let store = MemoryStore::new();
    create(&store, None).await;
    let polls = PollService::new(store).listing();
    for query in [
        "limit=0",
        "limit=",
        "limit=-1",
        "limit=1.5",
        "limit=x",
        "limit=%zz",
        "state=",
        "state=done",
        "state=Pending",
        "state=%ff",
        "cursor=",
        "cursor=x",
        "cursor=.",
        "cursor=zz.q3",
        "cursor=1.",
        "cursor=1.result",
        "cursor=%00",
        "cursor=%ff",
    ] {
        let answer = Answer::fetch(&polls, Request::get(format!("/?{query}"))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.problem(), "urn:tower-operations:invalid-query");
        let parameter = query.split('=').next().unwrap();
        assert!(
            answer.json()["detail"]
                .as_str()
                .unwrap()
                .contains(parameter)
        );
    }
}

#[tokio::test]
async fn a_paged_list_has_each_operation_once_despite_creates_and_ends() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).listing();
    let mut initial = BTreeSet::new();
    for _ in 0..25 {
        initial.insert(create(&store, None).await);
    }
    let mut listed = Vec::new();
    let mut next = Some("/?limit=4".to_owned());
    while let Some(uri) = next {
        let page = Answer::fetch(&polls, Request::get(&uri)).await;
        listed.extend(page.ids());
        // Newer operations come before the pages already read and do not change the rest.
        create(&store, None).await;
        create(&store, None).await;
        // Listed operations may end before the next page is read.
        for id in page.ids() {
            finish(&store, &id.parse().unwrap(), Outcome::Canceled).await;
        }
        next = page.next(&uri);
        assert!(
            listed.len() <= 25,
            "the list has no end or repeats an operation"
        );
    }
    let expected: Vec<String> = initial.iter().rev().map(ToString::to_string).collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn operations_of_one_millisecond_are_listed_once_each() {
    let store = MemoryStore::new();
    let polls = PollService::new(store.clone()).listing();
    for _ in 0..300 {
        let new = NewOperation::new(OperationId::new());
        store.create(new).await.unwrap();
    }
    let listed = pages(&polls, "/?limit=3").await.concat();
    assert_eq!(listed.len(), 300);
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), 300);
}

#[tokio::test(start_paused = true)]
async fn expired_operations_are_not_listed() {
    let store = MemoryStore::new().ttl(Duration::from_secs(60));
    let polls = PollService::new(store.clone()).listing();
    let (ended, pending) = (create(&store, None).await, create(&store, None).await);
    finish(&store, &ended, response("1")).await;
    assert_eq!(
        Answer::fetch(&polls, Request::get("/")).await.ids().len(),
        2
    );
    tokio::time::advance(Duration::from_secs(60)).await;
    let listed = Answer::fetch(&polls, Request::get("/")).await.ids();
    assert_eq!(listed, [pending.to_string()]);
}

#[tokio::test]
async fn the_list_is_at_the_root_with_and_without_a_slash() {
    let store = MemoryStore::new();
    let id = create(&store, None).await;
    let polls = PollService::new(store.clone())
        .mounted_at("/operations")
        .listing();
    for path in ["/operations", "/operations/", "/operations?limit=5"] {
        let listed = Answer::fetch(&polls, Request::get(path)).await.ids();
        assert_eq!(listed, [id.to_string()], "{path}");
    }
    for path in [format!("/operations/{id}"), format!("/operations?id={id}")] {
        let polled = Answer::fetch(&polls, Request::get(&path)).await.json();
        assert_eq!(polled["id"], id.to_string(), "{path}");
    }
    for path in ["/operations/result", "/operations/events"] {
        let answer = Answer::fetch(&polls, Request::get(path)).await;
        assert_eq!(
            answer.problem(),
            "urn:tower-operations:missing-id",
            "{path}"
        );
    }
}

#[tokio::test]
async fn head_has_the_fields_and_other_methods_are_405() {
    let store = MemoryStore::new();
    create(&store, None).await;
    create(&store, None).await;
    let polls = PollService::new(store.clone()).listing();
    let get = Answer::fetch(&polls, Request::get("/?limit=1")).await;
    let head = Answer::fetch(&polls, Request::head("/?limit=1")).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.field("content-length"), get.body.len().to_string());
    assert_eq!(head.field("link"), get.field("link"));
    assert!(!head.field("link").is_empty());
    for (method, status) in [
        ("OPTIONS", StatusCode::NO_CONTENT),
        ("POST", StatusCode::METHOD_NOT_ALLOWED),
        ("PUT", StatusCode::METHOD_NOT_ALLOWED),
        ("DELETE", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let request = Request::builder().method(method).uri("/");
        let answer = Answer::fetch(&polls, request).await;
        assert_eq!(answer.status, status, "{method}");
        assert_eq!(answer.field("allow"), "GET, HEAD, OPTIONS", "{method}");
    }
    assert_eq!(store.len(), 2);
}

#[tokio::test]
async fn an_action_without_an_id_allows_only_its_own_methods() {
    let polls = Operations::new(MemoryStore::new())
        .dialect(DurableFunctions::default())
        .poll_service()
        .listing();
    for method in ["GET", "PUT"] {
        let request = Request::builder().method(method).uri("/terminate");
        let answer = Answer::fetch(&polls, request).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{answer:?}");
        assert_eq!(answer.field("allow"), "POST, OPTIONS");
    }
}

#[tokio::test]
async fn a_page_with_large_results_ends_early() {
    let store = MemoryStore::new();
    let mut ids = Vec::new();
    for _ in 0..40 {
        let id = create(&store, None).await;
        let record = store.get(&id).await.unwrap().unwrap();
        let text = format!("\"{}\"", "a".repeat(60 * 1024));
        let mut response = Response::new(BufferedBody::from(text));
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        let outcome = Outcome::Succeeded(Some(RecordedResponse::new(response)));
        let finished = store.finish(&id, record.token(), outcome, None).await;
        assert!(matches!(finished.unwrap(), Written::Done(_)));
        ids.insert(0, id.to_string());
    }
    // This dialect embeds results in its lists.
    let google = Operations::new(store.clone()).dialect(Google::default());
    let polls = google.poll_service().listing();
    let (mut listed, mut uri) = (0, "/?pageSize=40".to_owned());
    loop {
        let page = Answer::fetch(&polls, Request::get(&uri)).await;
        let length = page.json()["operations"].as_array().unwrap().len();
        // The operation that reaches one mebibyte is the last of its page.
        assert!(length <= 18, "{length} operations");
        listed += length;
        match cursor_in(&page) {
            Some(next) => uri = format!("/?pageSize=40&pageToken={next}"),
            None => break,
        }
    }
    assert_eq!(listed, ids.len());

    // This dialect shows no results there, so that they end no page.
    let polls = PollService::new(store).listing();
    let page = Answer::fetch(&polls, Request::get("/?limit=40")).await;
    assert_eq!(page.ids(), ids);
    assert_eq!(page.json().get("next"), None);
}

/// Returns the cursor of the next page, in the form that requests use.
fn cursor_in(page: &Answer) -> Option<String> {
    if let Some(token) = page.headers.get("x-ms-continuation-token") {
        return Some(token.to_str().unwrap().to_owned());
    }
    if let Some(link) = page.headers.get(header::LINK) {
        let link = link.to_str().unwrap();
        let after = link.split_once("ursor=").unwrap().1;
        return Some(after.split(['&', '>']).next().unwrap().to_owned());
    }
    let token = page.json()["nextPageToken"].as_str()?.to_owned();
    Some(token).filter(|token| !token.is_empty())
}

#[tokio::test]
async fn a_cursor_is_valid_only_for_its_own_list_in_every_dialect() {
    let store = MemoryStore::new();
    for _ in 0..4 {
        for owner in [Some("ada"), Some("bob"), None] {
            create(&store, owner).await;
        }
    }
    let token_header = "x-ms-continuation-token";
    let dialects: [(Arc<dyn Dialect>, &str, &str, &str); 5] = [
        (
            Arc::new(Plain::default()),
            "limit",
            "cursor",
            "state=pending",
        ),
        (
            Arc::new(Ogc::default()),
            "limit",
            "cursor",
            "status=accepted",
        ),
        (
            Arc::new(Ipa::default()),
            "limit",
            "cursor",
            "status=PENDING",
        ),
        (
            Arc::new(DurableFunctions::default()),
            "top",
            token_header,
            "runtimeStatus=Pending",
        ),
        (
            Arc::new(Google::default()),
            "pageSize",
            "pageToken",
            "filter=done=false",
        ),
    ];
    for (dialect, limit, parameter, filter) in dialects {
        let polls = Operations::new(store.clone())
            .owner(header_owner)
            .dialect(dialect)
            .poll_service()
            .listing();
        let ask = async |user: Option<&str>, filter: &str, cursor: Option<&str>| {
            let mut uri = format!("/?{limit}=1{filter}");
            let mut request = Request::get("/");
            match cursor {
                Some(cursor) if parameter == token_header => {
                    request = request.header(token_header, cursor);
                }
                Some(cursor) => uri.push_str(&format!("&{parameter}={cursor}")),
                None => {}
            }
            if let Some(user) = user {
                request = request.header("x-user", user);
            }
            Answer::fetch(&polls, request.uri(uri)).await
        };
        let first = ask(Some("ada"), "", None).await;
        let cursor = cursor_in(&first).unwrap_or_else(|| panic!("{parameter}: {first:?}"));
        let second = ask(Some("ada"), "", Some(&cursor)).await;
        assert_eq!(second.status, StatusCode::OK, "{parameter}: {second:?}");
        assert_ne!(cursor_in(&second), Some(cursor.clone()));
        let filter = match parameter {
            "pageToken" => String::new(), // Google has no filter here
            _ => format!("&{filter}"),
        };
        let mut wrong = vec![
            ask(Some("bob"), "", Some(&cursor)).await,
            ask(None, "", Some(&cursor)).await,
            // A bare number, and a cursor with changed digits.
            ask(Some("ada"), "", Some("5")).await,
            ask(Some("ada"), "", Some(&cursor.replace(['0', '1'], "2"))).await,
        ];
        if !filter.is_empty() {
            wrong.push(ask(Some("ada"), &filter, Some(&cursor)).await);
        }
        for answer in wrong {
            assert_eq!(
                answer.status,
                StatusCode::BAD_REQUEST,
                "{parameter}: {answer:?}"
            );
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(text.contains(parameter), "{text}");
        }
    }
}

#[tokio::test]
async fn a_repeated_continuation_token_is_400() {
    let polls = Operations::new(MemoryStore::new())
        .dialect(DurableFunctions::default())
        .poll_service()
        .listing();
    let twice = Request::get("/")
        .header("x-ms-continuation-token", "a")
        .header("x-ms-continuation-token", "b");
    let answer = Answer::fetch(&polls, twice).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("x-ms-continuation-token"), "{text}");
    assert!(text.contains("more than once"), "{text}");
}
