//! The server, run as a process and called over sockets.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::{
    client::{Answer, Client},
    operations::{assert_problem, progress_of, wait_until_running},
    process::{Example, Exit, PATIENCE, run},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep},
};

/// A conformance class is declared if the server supports each of its parameters.
#[tokio::test]
async fn an_ogc_server_declares_its_conformance_classes() {
    let arguments = ["--dialect", "ogc", "--listen", "127.0.0.1:0"];
    let example = Example::start("server", &arguments).await.unwrap();
    let client = Client::new(example.url());
    let declared = client.get("/conformance").await.json();
    let declares = |class: &str| {
        let classes = declared["conformsTo"].as_array().unwrap();
        let mut classes = classes.iter().filter_map(Value::as_str);
        classes.any(|uri| uri.ends_with(&format!("/conf/{class}")))
    };
    let mut supports_all = true;
    for filter in [
        "type=process",
        "processID=report",
        "status=successful",
        "datetime=2026-01-01T00:00:00Z/..",
        "minDuration=1",
        "maxDuration=1",
        "limit=1",
    ] {
        let list = client.get(&format!("/jobs?{filter}")).await;
        supports_all &= list.status() == StatusCode::OK;
    }
    assert_eq!(declares("job-list"), supports_all, "{declared}");
    assert!(declares("core") && declares("dismiss"));

    let landing = client.get("/").await.json();
    let links = landing["links"].as_array().unwrap();
    for (name, href) in [("conformance", "/conformance"), ("processes", "/processes")] {
        let rel = format!("http://www.opengis.net/def/rel/ogc/1.0/{name}");
        let link = links.iter().find(|link| link["rel"] == rel);
        assert_eq!(link.unwrap()["href"], href, "{landing}");
    }
}

async fn server(arguments: &[&str]) -> (Example, Client) {
    let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
    let example = Example::start("server", &arguments).await.unwrap();
    let client = Client::new(example.url());
    (example, client)
}

#[tokio::test]
async fn a_report_is_accepted_and_rendered() {
    let (_example, client) = server(&[]).await;
    let accepted = client
        .post("/reports", r#"{"title":"Q3","pages":5,"page_ms":200}"#)
        .await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(accepted.header("cache-control"), "no-store");
    assert!(accepted.header("retry-after").parse::<u64>().unwrap() >= 1);
    let location = accepted.header("location");
    let id = location.strip_prefix("/operations/").unwrap();
    assert_eq!(
        accepted.header("link"),
        format!("<{location}/result>; rel=\"result\"")
    );
    assert_eq!(
        accepted.json(),
        json!({ "id": id, "state": "pending", "location": location })
    );

    let early = client.get(&format!("{location}/result")).await;
    assert_eq!(early.status(), StatusCode::ACCEPTED);
    assert_eq!(early.header("location"), location);

    let progress = progress_of(&client, location).await;
    assert!(progress.len() > 1, "{progress:?}");
    for (progress, next) in progress.iter().zip(&progress[1..]) {
        assert!(progress["completed"].as_u64() < next["completed"].as_u64());
    }
    let pages = json!({ "percent": 100.0, "completed": 5, "total": 5, "unit": "pages" });
    assert_eq!(progress.last(), Some(&pages));

    let ended = client.get(location).await;
    assert!(!ended.has("retry-after"));
    assert_eq!(ended.json()["state"], "succeeded");
    assert_eq!(ended.json()["result"], json!({ "title": "Q3", "pages": 5 }));
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.status(), StatusCode::OK);
    assert_eq!(result.header("content-type"), "application/json");
    assert_eq!(result.body(), r#"{"title":"Q3","pages":5}"#);
    assert_eq!(client.delete(location).await.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_report_takes_pages_times_page_time() {
    let (_example, client) = server(&[]).await;
    for (order, millis) in [
        (r#"{"title":"Q3","pages":4,"page_ms":100}"#, 400),
        (r#"{"title":"Q3","pages":0,"page_ms":60000}"#, 0),
        (r#"{"title":"Q3"}"#, 0),
    ] {
        let begun = Instant::now();
        let location = client.post_accepted("/reports", order).await;
        assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(millis), "{order}: {took:?}");
        assert!(took < Duration::from_secs(10), "{order}: {took:?}");
    }
}

#[tokio::test]
async fn a_report_can_fail() {
    let (_example, client) = server(&[]).await;
    let bad = |outcome| json!({ "title": "Q3", "outcome": outcome }).to_string();

    let location = client.post_accepted("/reports", bad("problem")).await;
    let ended = client.wait_for_end(&location).await;
    assert_eq!(ended["state"], "failed");
    let problem = json!({
        "title": "Report failed",
        "status": 422,
        "detail": "page 3 has no data",
        "code": "InvalidInput",
    });
    assert_eq!(ended["problem"], problem);
    let result = client.get(&format!("{location}/result")).await;
    assert_problem(&result, 422, "about:blank");
    assert_eq!(result.json(), problem);
    assert_eq!(result.header("operation-result"), "422");

    for (outcome, kind, status) in [
        ("error", "urn:tower-operations:inner-error", 502),
        ("panic", "urn:tower-operations:panicked", 500),
    ] {
        let location = client.post_accepted("/reports", bad(outcome)).await;
        let ended = client.wait_for_end(&location).await;
        assert_eq!(ended["state"], "failed");
        assert_eq!(ended["problem"]["type"], kind);
        let result = client.get(&format!("{location}/result")).await;
        assert_problem(&result, status, kind);
        let text = String::from_utf8_lossy(result.body()).into_owned();
        assert!(!text.contains("printer"), "{text}");
    }

    let location = client.post_accepted("/reports", bad("hang")).await;
    wait_until_running(&client, &location).await;
    assert_eq!(client.delete(&location).await.json()["state"], "canceled");
    assert_eq!(client.delete(&location).await.status(), StatusCode::OK);
    let result = client.get(&format!("{location}/result")).await;
    assert_problem(&result, 410, "urn:tower-operations:canceled");
}

#[tokio::test]
async fn a_pdf_is_returned_byte_for_byte() {
    let (_example, client) = server(&[]).await;
    for bytes in [0, 1, 300_000] {
        let order = json!({ "title": "Q3", "format": "pdf", "bytes": bytes });
        let location = client.post_accepted("/reports", order.to_string()).await;
        let ended = client.wait_for_end(&location).await;
        assert_eq!(ended["state"], "succeeded");
        assert_eq!(ended.get("result"), None);
        let result = client.get(&format!("{location}/result")).await;
        assert_eq!(result.status(), StatusCode::OK);
        assert_eq!(result.header("content-type"), "application/pdf");
        assert_eq!(result.header("operation-result"), "200");
        assert_eq!(result.body().len(), bytes);
        let digest = Sha256::digest(result.body());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(result.header("x-checksum"), digest);
    }
}

#[tokio::test]
async fn an_unreadable_order_is_a_failed_operation() {
    let (_example, client) = server(&[]).await;
    for order in [
        "",
        "this is no JSON",
        "[]",
        r#"{"pages":1}"#,
        r#"{"title":"Q3","pages":-1}"#,
        r#"{"title":"Q3","page_ms":1e30}"#,
        r#"{"title":"Q3","outcome":"surprise"}"#,
        r#"{"title":"Q3","format":"docx"}"#,
        r#"{"title":"Q3","format":"pdf","bytes":-1}"#,
    ] {
        let location = client.post_accepted("/reports", order).await;
        let ended = client.wait_for_end(&location).await;
        assert_eq!(ended["state"], "failed", "{order}");
        assert_eq!(ended["problem"]["status"], 400, "{order}");
        let result = client.get(&format!("{location}/result")).await;
        assert_problem(&result, 400, "about:blank");
    }
}

#[tokio::test]
async fn only_posted_reports_are_accepted() {
    let (_example, client) = server(&[]).await;
    let healthy = client.get("/healthz").await;
    assert_eq!(healthy.status(), StatusCode::OK);
    let order = r#"{"title":"Q3"}"#;
    assert_eq!(
        client.post("/nope", order).await.status(),
        StatusCode::NOT_FOUND
    );
    for method in [Method::DELETE, Method::PUT, Method::PATCH, Method::GET] {
        let request = client.request(method.clone(), "/reports");
        let answer = client.send(request, order.into()).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.header("allow"), "POST");
    }
}

#[tokio::test]
async fn http2_works_with_prior_knowledge() {
    let (example, _) = server(&[]).await;
    let client = Client::http2(example.url());
    let location = client.post_accepted("/reports", r#"{"title":"Q3"}"#).await;
    assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.body(), r#"{"title":"Q3","pages":1}"#);
}

const HANG: &str = r#"{"title":"Q3","outcome":"hang"}"#;

#[tokio::test]
async fn max_in_flight_limits_accepted_operations() {
    let (_example, client) = server(&["--max-in-flight", "2"]).await;
    let post = async |tenant| {
        let request = client.request(Method::POST, "/reports");
        let request = request.header("x-tenant", tenant);
        client.send(request, HANG.into()).await
    };
    // The share of a tenant is one.
    for tenant in ["acme", "globex"] {
        assert_eq!(post(tenant).await.status(), StatusCode::ACCEPTED);
    }
    let refused = post("initech").await;
    assert_problem(&refused, 503, "urn:tower-operations:overloaded");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn max_bytes_in_flight_limits_the_bodies_in_memory() {
    let (example, client) = server(&["--max-bytes-in-flight", "4000"]).await;
    let address = example.url().strip_prefix("http://").unwrap();
    let stall = async || {
        let mut stalled = TcpStream::connect(address).await.unwrap();
        let head = "POST /reports HTTP/1.1\r\nhost: server\r\nx-tenant: acme\r\n\
                    content-length: 3500\r\n\r\n";
        let sent = [head.as_bytes(), &[b'x'; 3000]].concat();
        stalled.write_all(&sent).await.unwrap();
        stalled
    };
    let post = async || {
        let large = json!({ "title": "Q".repeat(2000) }).to_string();
        let request = client.request(Method::POST, "/reports");
        client.send(request, large.into()).await
    };
    // The bytes count once the server has read them. If the other request comes first, it is
    // accepted, the stalled one may be refused, and the next one may exceed the share of its owner.
    let begun = Instant::now();
    let (stalled, refused) = loop {
        let stalled = stall().await;
        let answer = post().await;
        if answer.json()["title"] == "Too many bytes are in flight" {
            break (stalled, answer);
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert_problem(&refused, 503, "urn:tower-operations:overloaded");
    drop(stalled);
    while post().await.status() != StatusCode::ACCEPTED {
        assert!(begun.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn concurrency_limits_running_and_not_pending_operations() {
    let (_example, client) = server(&["--concurrency", "1"]).await;
    let first = client.post_accepted("/reports", HANG).await;
    wait_until_running(&client, &first).await;
    let second = client.post_accepted("/reports", r#"{"title":"Q3"}"#).await;
    let waited = client.get(&format!("{second}?wait=1")).await;
    assert_eq!(waited.json()["state"], "pending");
    client.delete(&first).await;
    assert_eq!(client.wait_for_end(&second).await["state"], "succeeded");
}

#[tokio::test]
async fn a_report_times_out() {
    let (_example, client) = server(&["--timeout", "0.2"]).await;
    let location = client.post_accepted("/reports", HANG).await;
    let ended = client.wait_for_end(&location).await;
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["problem"]["type"], "urn:tower-operations:timed-out");
    let result = client.get(&format!("{location}/result")).await;
    assert_problem(&result, 504, "urn:tower-operations:timed-out");
}

#[tokio::test]
async fn a_result_above_the_limit_fails_the_operation() {
    let (_example, client) = server(&["--result-limit", "1000"]).await;
    let pdf = |bytes| json!({ "title": "Q3", "format": "pdf", "bytes": bytes }).to_string();
    let location = client.post_accepted("/reports", pdf(1000)).await;
    assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
    let location = client.post_accepted("/reports", pdf(1001)).await;
    let kind = "urn:tower-operations:result-too-large";
    assert_eq!(
        client.wait_for_end(&location).await["problem"]["type"],
        kind
    );
    let result = client.get(&format!("{location}/result")).await;
    assert_problem(&result, 500, kind);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let (example, client) = server(&["--body-limit", "100"]).await;
    let order = |bytes: usize| format!(r#"{{"title":"{}"}}"#, "x".repeat(bytes - 12));
    let location = client.post_accepted("/reports", order(100)).await;
    assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
    for client in [client, Client::http2(example.url())] {
        for bytes in [101, 5_000_000] {
            let refused = client.post("/reports", order(bytes)).await;
            assert_problem(&refused, 413, "urn:tower-operations:body-too-large");
        }
    }
}

#[tokio::test]
async fn an_operation_expires_a_ttl_after_its_end() {
    let (_example, client) = server(&["--ttl", "1.5"]).await;
    let unfinished = client.post_accepted("/reports", HANG).await;
    let location = client.post_accepted("/reports", r#"{"title":"Q3"}"#).await;
    let ended = client.wait_for_end(&location).await;
    assert!(ended["expires_at"].is_string(), "{ended}");
    let expired = poll_until(&client, &location, |answer| {
        answer.status() == StatusCode::NOT_FOUND
    });
    assert_problem(&expired.await, 404, "urn:tower-operations:not-found");
    assert_eq!(client.get(&unfinished).await.json()["state"], "running");
}

#[tokio::test]
async fn a_base_url_makes_every_location_absolute() {
    let base = "https://api.example.com/v1";
    let (_example, client) = server(&["--base-url", base]).await;
    let accepted = client.post("/reports", HANG).await;
    let location = accepted.header("location").to_owned();
    let path = location.strip_prefix(base).unwrap().to_owned();
    assert!(path.starts_with("/operations/"), "{path}");
    assert_eq!(accepted.json()["location"], location.as_str());
    let early = client.get(&format!("{path}/result")).await;
    assert_eq!(early.status(), StatusCode::ACCEPTED);
    assert_eq!(early.header("location"), location);
}

#[tokio::test]
async fn polls_are_answered_while_the_server_drains() {
    let (example, client) = server(&["--drain", "3"]).await;
    let short = r#"{"title":"Q3","pages":10,"page_ms":100}"#;
    let short = client.post_accepted("/reports", short).await;
    let hanging = client.post_accepted("/reports", HANG).await;
    wait_until_running(&client, &short).await;
    wait_until_running(&client, &hanging).await;
    let held = tokio::spawn({
        let (client, hanging) = (client.clone(), hanging.clone());
        async move { client.get(&format!("{hanging}?wait=30")).await }
    });

    example.signal("TERM").await;
    let begun = Instant::now();
    let held = held.await.unwrap();
    assert_eq!(held.json()["state"], "running");
    let refused = client.post("/reports", HANG).await;
    assert_problem(&refused, 503, "urn:tower-operations:shutting-down");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);

    // A new connection, as other clients have.
    let client = Client::new(example.url());
    assert_eq!(client.get("/healthz").await.status(), StatusCode::OK);
    let ended = poll_until(&client, &short, |answer| {
        answer.json()["state"] != "running"
    });
    assert_eq!(ended.await.json()["state"], "succeeded");
    let result = client.get(&format!("{short}/result")).await;
    assert_eq!(result.body(), r#"{"title":"Q3","pages":10}"#);
    assert_eq!(client.get(&hanging).await.json()["state"], "running");

    let Exit { status, output, .. } = example.wait().await;
    assert_eq!(status.code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    let id = hanging.strip_prefix("/operations/").unwrap();
    let mut lines = output.lines();
    let line = lines.next().unwrap();
    assert!(
        line.starts_with("drained in ")
            && line.ends_with(": 1 finished, 1 interrupted, 0 unrecorded"),
        "{line}"
    );
    assert_eq!(lines.next(), Some(format!("interrupted {id}").as_str()));
    assert_eq!(lines.next(), None);
}

#[tokio::test]
async fn a_drain_ends_with_the_last_operation() {
    for signal in ["TERM", "INT"] {
        let (example, client) = server(&[]).await;
        let order = r#"{"title":"Q3","pages":3,"page_ms":500}"#;
        let location = client.post_accepted("/reports", order).await;
        wait_until_running(&client, &location).await;
        let begun = Instant::now();
        example.signal(signal).await;
        let Exit { status, output, .. } = example.wait().await;
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(
            output.ends_with(": 1 finished, 0 interrupted, 0 unrecorded\n"),
            "{output}"
        );
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_server_with_a_closed_output_drains() {
    let (mut example, client) = server(&["--drain", "0"]).await;
    client.post_accepted("/reports", HANG).await;
    example.close_output();
    example.signal("TERM").await;
    let Exit { status, errors, .. } = example.wait().await;
    assert_eq!(status.code(), Some(0), "{errors}");
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let (example, client) = server(&["--drain", "600"]).await;
    let location = client.post_accepted("/reports", HANG).await;
    wait_until_running(&client, &location).await;
    example.signal("TERM").await;
    let waited = client.get(&format!("{location}?wait=30")).await;
    assert_eq!(waited.json()["state"], "running");
    example.signal("TERM").await;
    let Exit { status, .. } = example.wait().await;
    assert_eq!(status.code(), Some(1));
}

/// Runs a server that must not start, whatever listens at the default address.
async fn run_anywhere(arguments: &[&str]) -> std::process::Output {
    let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
    run("server", &arguments).await
}

#[tokio::test]
async fn unknown_arguments_are_refused() {
    for (flag, value) in [
        ("--store", "floppy"),
        ("--store", ""),
        ("--dialect", "klingon"),
        ("--accept", "never"),
        ("--accept", "after"),
        ("--accept", "after:"),
        ("--accept", "after:-1"),
        ("--accept", "after:soon"),
        ("--accept", "signaled:1"),
        ("--idempotency", "maybe"),
        ("--list", "yes"),
        ("--base-url", "example.com"),
        ("--base-url", "ftp://example.com"),
        ("--listen", "nowhere"),
        ("--max-in-flight", "-1"),
        ("--max-in-flight", "0"),
        ("--lease", "0"),
        ("--lease", "-1"),
        ("--timeout", "0"),
        ("--concurrency", "0"),
        ("--timeout", "soon"),
        ("--timeout", "-1"),
        ("--ttl", "NaN"),
        ("--drain", "inf"),
        ("--body-limit", "2MB"),
        ("--result-limit", "1.5"),
    ] {
        let argument = format!("{flag}={value}");
        let ended = run_anywhere(&[&argument]).await;
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{argument}: {errors}");
        assert!(errors.contains(flag), "{argument}: {errors}");
    }
    let ended = run_anywhere(&["--surprise"]).await;
    assert_eq!(ended.status.code(), Some(2));
}

#[tokio::test]
async fn the_help_lists_the_defaults() {
    let ended = run("server", &["--help"]).await;
    assert!(ended.status.success());
    let help = String::from_utf8(ended.stdout).unwrap();
    for expected in [
        "--listen <ADDR>",
        "[default: 127.0.0.1:3000]",
        "--store <",
        "[default: memory]",
        "--dialect <",
        "[default: plain]",
        "--accept <",
        "[default: always]",
        "after:SECONDS",
        "--idempotency <",
        "[default: off]",
        "--client-ids",
        "--list",
        "--base-url <URL>",
        "--max-in-flight <N>",
        "--concurrency <N>",
        "--timeout <SECONDS>",
        "--ttl <SECONDS>",
        "--body-limit <BYTES>",
        "--result-limit <BYTES>",
        "--drain <SECONDS>",
    ] {
        assert!(help.contains(expected), "{expected} in {help}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let (example, _) = server(&[]).await;
    let in_use = example.url().strip_prefix("http://").unwrap();
    let ended = run("server", &["--listen", in_use]).await;
    assert_eq!(ended.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(errors.contains(in_use), "{errors}");
}

#[tokio::test]
async fn an_unavailable_store_is_an_error_with_its_cause() {
    let ended = run_anywhere(&["--store", "redb:/nowhere/operations.redb"]).await;
    assert_eq!(ended.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&ended.stderr);
    let line = errors.lines().last().unwrap();
    assert!(
        line.contains("os error 2") && !line.contains('"'),
        "{errors}"
    );
    assert_eq!(line.matches("os error 2").count(), 1, "{errors}");
}

/// Polls until `reached`, where the server does not hold polls or there is no change to
/// wait for.
async fn poll_until(client: &Client, location: &str, reached: impl Fn(&Answer) -> bool) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = client.get(location).await;
        if reached(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
