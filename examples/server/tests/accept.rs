//! Accept modes, idempotency keys, tenants and lists of the server.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use test_support::{
    client::{Answer, Client},
    operations::{assert_problem, data_of, id_in, ids},
    process::Example,
};
use tokio::{task::JoinSet, time::Instant};

async fn server(arguments: &[&str]) -> (Example, Client) {
    let arguments = [&["--listen", "127.0.0.1:0", "--list"], arguments].concat();
    let example = Example::start("server", &arguments).await.unwrap();
    let client = Client::new(example.url());
    (example, client)
}

const FAST: &str = r#"{"title":"Q3"}"#;

const REPORT: &str = r#"{"title":"Q3","pages":1}"#;

const HANG: &str = r#"{"title":"Q3","outcome":"hang"}"#;

const UNREADABLE: [&str; 3] = ["", "this is no JSON", r#"{"title":"Q3","pages":-1}"#];

#[tokio::test]
async fn preferred_accepts_only_respond_async() {
    let (_example, client) = server(&["--accept", "preferred"]).await;
    for headers in [&[][..], &[("prefer", "wait=5")]] {
        let answer = order(&client, FAST, headers).await;
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        assert_eq!(answer.body(), REPORT);
        assert_eq!(answer.header("vary"), "Prefer");
        assert!(!answer.has("preference-applied"));
    }
    let answer = order(&client, UNREADABLE[0], &[]).await;
    assert_problem(&answer, 400, "about:blank");
    assert_eq!(list_ids(&client, "", "").await, [""; 0]);

    let accepted = order(&client, FAST, &[("prefer", "respond-async")]).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(accepted.header("preference-applied"), "respond-async");
    assert_eq!(accepted.header("vary"), "Prefer");
    let ended = client.wait_for_end(accepted.header("location")).await;
    assert_eq!(ended["state"], "succeeded");

    let waited = order(&client, FAST, &[("prefer", "respond-async, wait=10")]).await;
    assert_eq!(waited.status(), StatusCode::OK);
    assert_eq!(waited.header("preference-applied"), "wait=10");
    let waited = order(&client, HANG, &[("prefer", "respond-async, wait=1")]).await;
    assert_eq!(waited.status(), StatusCode::ACCEPTED);
    let applied = waited.header("preference-applied");
    assert_eq!(applied, "respond-async, wait=1");
}

#[tokio::test]
async fn always_honors_wait() {
    let (_example, client) = server(&[]).await;
    let waited = order(&client, FAST, &[("prefer", "wait=10")]).await;
    assert_eq!(waited.status(), StatusCode::OK);
    assert_eq!(waited.body(), REPORT);
    assert_eq!(waited.header("preference-applied"), "wait=10");
    let waited = order(&client, HANG, &[("prefer", "wait=1")]).await;
    assert_eq!(waited.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn after_answers_fast_requests_and_accepts_slow_ones() {
    let (_example, client) = server(&["--accept", "after:0.5"]).await;
    let answer = client.post("/reports", FAST).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body(), REPORT);
    let answer = client.post("/reports", UNREADABLE[0]).await;
    assert_problem(&answer, 400, "about:blank");
    let answer = client
        .post("/reports", r#"{"title":"Q3","outcome":"problem"}"#)
        .await;
    assert_problem(&answer, 422, "about:blank");
    assert_eq!(list_ids(&client, "", "").await, [""; 0]);

    let begun = Instant::now();
    let slow = r#"{"title":"Q3","pages":10,"page_ms":100}"#;
    let location = client.post_accepted("/reports", slow).await;
    assert!(begun.elapsed() >= Duration::from_millis(500));
    let events = data_of(&client.get(&format!("{location}/events")).await);
    let completed: Vec<_> = events
        .iter()
        .filter_map(|event| event["progress"]["completed"].as_u64())
        .collect();
    // The same call continues. A new call for the operation would begin with the first
    // page.
    assert!(completed.iter().all(|page| *page >= 4), "{completed:?}");
    assert_eq!(completed.last(), Some(&10));
    let ended = client.wait_for_end(&location).await;
    assert_eq!(ended["result"], json!({ "title": "Q3", "pages": 10 }));
}

#[tokio::test]
async fn signaled_answers_unreadable_orders_and_accepts_the_rest() {
    let (_example, client) = server(&["--accept", "signaled"]).await;
    for unreadable in UNREADABLE {
        let answer = client.post("/reports", unreadable).await;
        assert_problem(&answer, 400, "about:blank");
    }
    assert_eq!(list_ids(&client, "", "").await, [""; 0]);

    // `Prefer` has no effect.
    for headers in [&[][..], &[("prefer", "respond-async, wait=10")]] {
        let accepted = order(&client, FAST, headers).await;
        assert_eq!(accepted.status(), StatusCode::ACCEPTED, "{accepted:?}");
        assert!(!accepted.has("preference-applied"));
        let location = accepted.header("location");
        assert_eq!(client.wait_for_end(location).await["state"], "succeeded");
        let result = client.get(&format!("{location}/result")).await;
        assert_eq!(result.body(), REPORT);
    }
    for (outcome, kind) in [
        ("problem", "about:blank"),
        ("error", "urn:tower-operations:inner-error"),
        ("panic", "urn:tower-operations:panicked"),
    ] {
        let bad = json!({ "title": "Q3", "outcome": outcome }).to_string();
        let location = client.post_accepted("/reports", bad).await;
        let ended = client.wait_for_end(&location).await;
        assert_eq!(ended["state"], "failed", "{ended}");
        let problem_type = ended["problem"]["type"].as_str();
        assert_eq!(problem_type.unwrap_or("about:blank"), kind);
    }
    let location = client.post_accepted("/reports", HANG).await;
    assert_eq!(client.delete(&location).await.json()["state"], "canceled");
}

#[tokio::test]
async fn a_body_above_the_limit_is_a_413_in_every_mode() {
    for accept in ["always", "preferred", "signaled", "after:30"] {
        let (example, client) = server(&["--accept", accept, "--body-limit", "100"]).await;
        for client in [client, Client::http2(example.url())] {
            let large = format!(r#"{{"title":"{}"}}"#, "x".repeat(89));
            let answer = client.post("/reports", large).await;
            assert_problem(&answer, 413, "urn:tower-operations:body-too-large");
            assert_eq!(list_ids(&client, "", "").await, [""; 0], "{accept}");
        }
    }
}

const KEY: &str = r#""8e03978e-40d5""#;

#[tokio::test]
async fn keys_are_ignored_where_idempotency_is_off() {
    let (_example, client) = server(&[]).await;
    for _ in 0..2 {
        order(&client, FAST, &[("idempotency-key", KEY)]).await;
    }
    assert_eq!(list_ids(&client, "", "").await.len(), 2);
}

#[tokio::test]
async fn requests_with_one_key_share_one_operation() {
    for accept in ["always", "signaled", "after:0.2"] {
        let (_example, client) = server(&["--accept", accept, "--idempotency", "optional"]).await;
        let mut requests = JoinSet::new();
        for _ in 0..20 {
            let client = client.clone();
            requests.spawn(async move {
                let accepted = order(&client, HANG, &[("idempotency-key", KEY)]).await;
                assert_eq!(accepted.status(), StatusCode::ACCEPTED, "{accepted:?}");
                (accepted.header("location").to_owned(), accepted.json())
            });
        }
        let mut answers = requests.join_all().await;
        answers.dedup();
        assert_eq!(answers.len(), 1, "{accept}: {answers:?}");
        let operations = list_ids(&client, "", "").await;
        assert_eq!(operations, [id_in(&answers[0].0)], "{accept}");

        let other = order(&client, FAST, &[("idempotency-key", KEY)]).await;
        assert_problem(&other, 422, "urn:tower-operations:idempotency-key-reused");
        let malformed = order(&client, FAST, &[("idempotency-key", "\"8e03978e")]).await;
        let kind = "urn:tower-operations:idempotency-key-invalid";
        assert_problem(&malformed, 400, kind);
        assert_eq!(list_ids(&client, "", "").await.len(), 1, "{accept}");

        let without = order(&client, HANG, &[]).await;
        assert_eq!(without.status(), StatusCode::ACCEPTED);
        assert_eq!(list_ids(&client, "", "").await.len(), 2, "{accept}");
    }
}

#[tokio::test]
async fn an_early_answer_is_repeated_under_its_key() {
    let (_example, client) = server(&["--accept", "signaled", "--idempotency", "optional"]).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let answer = order(&client, UNREADABLE[1], &[("idempotency-key", KEY)]).await;
        assert_problem(&answer, 400, "about:blank");
        answers.push(answer.json());
    }
    assert_eq!(answers[0], answers[1]);
    let other = order(&client, FAST, &[("idempotency-key", KEY)]).await;
    assert_problem(&other, 422, "urn:tower-operations:idempotency-key-reused");
}

#[tokio::test]
async fn a_missing_required_key_is_refused() {
    let (_example, client) = server(&["--idempotency", "required"]).await;
    let missing = order(&client, FAST, &[]).await;
    let kind = "urn:tower-operations:idempotency-key-missing";
    assert_problem(&missing, 400, kind);
    assert_eq!(list_ids(&client, "", "").await, [""; 0]);
    let accepted = order(&client, FAST, &[("idempotency-key", KEY)]).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_operation_is_visible_only_to_its_tenant() {
    let (_example, client) = server(&["--idempotency", "optional"]).await;
    let acme = [("x-tenant", "acme"), ("idempotency-key", KEY)];
    let accepted = order(&client, HANG, &acme).await;
    let location = accepted.header("location");
    let unknown = "/operations/0198c0de-0000-7000-8000-000000000000";

    for tenant in ["", "ACME", "globex"] {
        for (method, part) in [
            (Method::GET, ""),
            (Method::HEAD, ""),
            (Method::DELETE, ""),
            (Method::GET, "/result"),
            (Method::GET, "/events"),
            (Method::GET, "?wait=30"),
        ] {
            let hidden = ask(&client, &method, &format!("{location}{part}"), tenant).await;
            let absent = ask(&client, &method, &format!("{unknown}{part}"), tenant).await;
            assert_eq!(
                hidden.status(),
                StatusCode::NOT_FOUND,
                "{tenant} {method} {part}"
            );
            assert_eq!(absent.status(), StatusCode::NOT_FOUND);
            let hidden = String::from_utf8(hidden.body().to_vec()).unwrap();
            let hidden = hidden.replace(id_in(location), id_in(unknown));
            assert_eq!(hidden.as_bytes(), absent.body(), "{tenant} {method} {part}");
        }
        assert_eq!(list_ids(&client, tenant, "").await, [""; 0]);
    }
    let other = [("x-tenant", "globex"), ("idempotency-key", KEY)];
    let another = order(&client, HANG, &other).await;
    assert_eq!(another.status(), StatusCode::ACCEPTED);
    assert_ne!(another.header("location"), location);

    assert_eq!(list_ids(&client, "acme", "").await, [id_in(location)]);
    let ended = ask(&client, &Method::DELETE, location, "acme").await;
    assert_eq!(ended.json()["state"], "canceled");

    let unowned = client.post_accepted("/reports", FAST).await;
    let hidden = ask(&client, &Method::GET, &unowned, "acme").await;
    assert_eq!(hidden.status(), StatusCode::NOT_FOUND);
    assert_eq!(client.get(&unowned).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_tenant_lists_its_operations_newest_first() {
    let (_example, client) = server(&[]).await;
    let mut created = Vec::new();
    for number in 0..5 {
        let order_of = |outcome| if outcome { HANG } else { FAST };
        let report = order_of(number % 2 == 0);
        let accepted = order(&client, report, &[("x-tenant", "acme")]).await;
        let location = accepted.header("location").to_owned();
        if report == FAST {
            let ended = ask(
                &client,
                &Method::GET,
                &format!("{location}?wait=30"),
                "acme",
            )
            .await;
            assert_eq!(ended.json()["state"], "succeeded");
        }
        created.insert(0, id_in(&location).to_owned());
    }
    order(&client, FAST, &[("x-tenant", "globex")]).await;

    assert_eq!(list_ids(&client, "acme", "").await, created);
    assert_eq!(
        list_ids(&client, "acme", "?state=succeeded").await,
        [&*created[1], &created[3]]
    );
    let mut query = "?limit=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = ask(
            &client,
            &Method::GET,
            &format!("/operations/{query}"),
            "acme",
        )
        .await;
        pages.push(ids(&page));
        if !page.has("link") {
            break;
        }
        let link = page.header("link").strip_suffix(r#">; rel="next""#);
        query = link.unwrap().strip_prefix('<').unwrap().to_owned();
    }
    assert_eq!(pages, [&created[..2], &created[2..4], &created[4..]]);
}

#[tokio::test]
async fn operations_are_not_listed_by_default() {
    let example = Example::start("server", &["--listen", "127.0.0.1:0"]).await;
    let example = example.unwrap();
    let client = Client::new(example.url());
    for path in ["/operations/", "/operations"] {
        let refused = client.get(path).await;
        assert_problem(&refused, 400, "urn:tower-operations:missing-id");
    }
}

async fn order(client: &Client, order: &'static str, headers: &[(&str, &str)]) -> Answer {
    let mut request = client.request(Method::POST, "/reports");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request, order.into()).await
}

/// Sends a request of a tenant, or of no tenant if `tenant` is empty.
async fn ask(client: &Client, method: &Method, location: &str, tenant: &str) -> Answer {
    let mut request = client.request(method.clone(), location);
    if !tenant.is_empty() {
        request = request.header("x-tenant", tenant);
    }
    client.send(request, "".into()).await
}

/// Returns the ids of a tenant's operations.
async fn list_ids(client: &Client, tenant: &str, query: &str) -> Vec<String> {
    let path = format!("/operations/{query}");
    ids(&ask(client, &Method::GET, &path, tenant).await)
}
