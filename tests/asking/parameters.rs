//! Query parameters of other dialects, and parameters without an effect.

use super::*;

/// A dialect, its names of filter, page size and cursor, and names of other dialects.
type Vocabulary = (
    Arc<dyn Dialect>,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

#[tokio::test]
async fn a_parameter_of_another_dialect_is_400_and_names_the_right_one() {
    let store = store_with("q3", State::Succeeded).await;
    let dialects: [Vocabulary; 5] = [
        (
            Arc::new(Plain::default()),
            "state",
            "limit",
            "cursor",
            &[
                "status",
                "runtimeStatus",
                "filter",
                "$filter",
                "top",
                "$top",
                "pageSize",
                "page_size",
                "itemsPerPage",
                "pageToken",
                "offset",
                "$skip",
            ],
        ),
        (
            Arc::new(Ipa::default()),
            "status",
            "itemsPerPage",
            "cursor",
            &[
                "state",
                "runtimeStatus",
                "filter",
                "top",
                "$top",
                "pageSize",
                "pageToken",
                "offset",
            ],
        ),
        (
            Arc::new(Ogc::default()),
            "status",
            "limit",
            "cursor",
            &[
                "state",
                "runtimeStatus",
                "filter",
                "top",
                "pageSize",
                "itemsPerPage",
                "pageToken",
                "pageNum",
            ],
        ),
        (
            Arc::new(DurableFunctions::default()),
            "runtimeStatus",
            "top",
            "x-ms-continuation-token",
            &[
                "state",
                "status",
                "filter",
                "$top",
                "limit",
                "pageSize",
                "cursor",
                "pageToken",
            ],
        ),
        (
            Arc::new(Google::default()),
            "",
            "pageSize",
            "pageToken",
            &[
                "state",
                "status",
                "runtimeStatus",
                "$filter",
                "limit",
                "top",
                "cursor",
                "offset",
            ],
        ),
    ];
    for (dialect, states, limit, cursor, others) in dialects {
        let polls = Operations::new(store.clone())
            .dialect(Arc::clone(&dialect))
            .poll_service()
            .listing();
        assert_eq!(ask(&polls, "GET /", &[]).await.status, 200);
        // Parameters that no dialect has are ignored.
        assert_eq!(ask(&polls, "GET /?trace=1&v=2", &[]).await.status, 200);
        for filter in ["type", "minDuration", "createdTimeFrom", "instanceIdPrefix"] {
            let answer = ask(&polls, &format!("GET /?{filter}=nothing"), &[]).await;
            let expected = match (&*format!("{dialect:?}"), filter) {
                (name, "type" | "minDuration") if name.starts_with("Ogc") => 501,
                (name, "createdTimeFrom" | "instanceIdPrefix") if name.starts_with("Durable") => {
                    501
                }
                _ => 400,
            };
            assert_eq!(answer.status, expected, "{dialect:?} {filter}: {answer:?}");
            assert!(answer.text().contains(filter), "{dialect:?}: {answer:?}");
        }
        for other in others {
            let right = match other.trim_start_matches('$') {
                "state" | "status" | "runtimeStatus" | "filter" => states,
                "top" | "pageSize" | "page_size" | "itemsPerPage" | "limit" => limit,
                _ => cursor,
            };
            let line = format!("GET /?{other}=failed");
            let answer = ask(&polls, &line, &[]).await;
            assert_eq!(answer.status, 400, "{dialect:?} {line}: {answer:?}");
            let text = answer.text();
            assert!(text.contains(other), "{dialect:?} {line}: {text}");
            assert!(text.contains(right), "{dialect:?} {line}: {text}");
        }
    }
    let polls = PollService::new(store).listing();
    let answer = ask(&polls, "GET /?status=failed", &[]).await;
    assert_eq!(
        answer.detail(400, "invalid-query"),
        "The parameter status is not supported. Its name here is state."
    );
}

#[tokio::test]
async fn show_input_is_refused() {
    let store = store_with("q3", State::Succeeded).await;
    let polls = Operations::new(store)
        .dialect(DurableFunctions::default())
        .poll_service()
        .listing();
    for path in ["/q3", "/"] {
        for (query, status) in [
            ("showInput=true", 400),
            ("showInput=True", 400),
            ("showInput=false", 200),
            ("showInput=", 200),
            ("showInput=1", 400),
            ("showInput=yes", 400),
            ("showInput=false&showInput=false", 400),
            ("showHistory=false&showHistoryOutput=true", 200),
        ] {
            let line = format!("GET {path}?{query}");
            let answer = ask(&polls, &line, &[]).await;
            assert_eq!(answer.status, status, "{line}: {answer:?}");
            assert!(
                status == 200 || answer.text().contains("showInput"),
                "{answer:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_time_comes_from_the_query_and_not_from_the_body() {
    let store = store_with("q3", State::Running).await;
    let polls = Operations::new(store)
        .dialect(Google::default())
        .poll_service()
        .max_wait(Duration::from_secs(20));
    for (uri, seconds) in [
        ("/q3:wait?timeout=1s", 1),
        ("/q3:wait?timeout=1.5s", 1),
        ("/q3:wait", 20),
    ] {
        let start = tokio::time::Instant::now();
        let body = http_body_util::Full::new(Bytes::from_static(b"{\"timeout\":\"3s\"}"));
        let request = Request::post(uri).header("content-type", "application/json");
        let answer = polls
            .clone()
            .oneshot(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(start.elapsed().as_secs(), seconds, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_does_not_prolong_the_wait_of_a_poll() {
    let memory = store_with("q3", State::Running).await;
    let store = Hooked::new(memory, async |call, when| {
        match (call, when) {
            (Call::Get, When::Before) => tokio::time::sleep(Duration::from_secs(2)).await,
            // The last read takes too long.
            (Call::Changed, When::After) => return Err(StoreError::unavailable("no answer")),
            _ => {}
        }
        Ok(())
    });
    let polls = Operations::new(store).poll_service();
    for (line, seconds) in [
        ("GET /q3?wait=1", 2),
        ("GET /q3?wait=3", 3),
        ("GET /q3/result?wait=3", 3),
    ] {
        let start = tokio::time::Instant::now();
        let answer = ask(&polls, line, &[]).await;
        assert_eq!(start.elapsed().as_secs(), seconds, "{line}: {answer:?}");
        assert!(answer.status.is_success(), "{line}: {answer:?}");
    }
}
