//! Paths of sub-resources that do not exist.

use super::*;

/// Services of every dialect over one operation, each with its mount path or `""`.
async fn services_of_every_dialect(
    id: &str,
    state: State,
) -> Vec<(PollService<MemoryStore>, &'static str)> {
    let store = store_with(id, state).await;
    let mut services = Vec::new();
    for dialect in every_dialect() {
        let polls = Operations::new(store.clone())
            .dialect(dialect)
            .poll_service()
            .listing();
        services.push((polls.clone().mounted_at("/operations"), "/operations"));
        services.push((polls, ""));
    }
    services
}

#[tokio::test]
async fn an_unknown_sub_resource_is_named_at_any_depth() {
    for (polls, root) in services_of_every_dialect("q3", State::Succeeded).await {
        for name in [
            "foo",
            "foo/bar",
            "foo/bar/baz",
            "result/x",
            "results/report",
            "events/x",
            "terminate/x",
            "raiseEvent/foo",
        ] {
            let line = format!("GET {root}/q3/{name}");
            let answer = ask(&polls, &line, &[]).await;
            assert_eq!(answer.status, 404, "{polls:?} {line}: {answer:?}");
            let detail = format!("There is no sub-resource q3/{name}.");
            assert!(
                answer.text().contains(&detail),
                "{polls:?} {line}: {answer:?}"
            );
            // The operation itself may exist.
            for wrong in ["no-such-job", "no such operation"] {
                assert!(!answer.text().contains(wrong), "{polls:?}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_empty_segment_is_no_sub_resource_and_no_list() {
    for (polls, root) in services_of_every_dialect("q3", State::Running).await {
        for path in ["/q3//", "/q3///", "/q3/foo//", "/q3/result//"] {
            for method in ["GET", "POST", "DELETE", "OPTIONS"] {
                let line = format!("{method} {root}{path}");
                let answer = ask(&polls, &line, &[]).await;
                assert_eq!(answer.status, 404, "{polls:?} {line}: {answer:?}");
                assert!(answer.text().contains("q3/"), "{line}: {answer:?}");
            }
        }
        if !root.is_empty() {
            let answer = ask(&polls, &format!("GET {root}//"), &[]).await;
            assert_eq!(answer.status, 400, "{polls:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_sub_resource_allows_no_method() {
    for (polls, root) in services_of_every_dialect("q3", State::Running).await {
        for name in ["foo", "foo/bar", "result/x", "foo/"] {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let line = format!("{method} {root}/q3/{name}");
                let answer = ask(&polls, &line, &[]).await;
                assert_eq!(answer.status, 404, "{polls:?} {line}: {answer:?}");
                assert_eq!(answer.field("allow"), "", "{polls:?} {line}");
            }
        }
        // An invalid name is refused alike for every method.
        for path in ["/q3:foo", "/q%003", "/a%2Fb"] {
            let get = ask(&polls, &format!("GET {root}{path}"), &[]).await;
            for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let line = format!("{method} {root}{path}");
                let answer = ask(&polls, &line, &[]).await;
                assert_eq!(
                    answer.status, get.status,
                    "{polls:?} {line}: {answer:?} {get:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_verb_is_404() {
    for dialect in [
        Arc::new(Azure::default()) as Arc<dyn Dialect>,
        Arc::new(Arm::default()),
        Arc::new(Google::default()),
        Arc::new(Ipa::default()),
    ] {
        let polls = Operations::new(store_with("q3", State::Running).await)
            .dialect(dialect)
            .poll_service();
        for line in [
            "GET /q3:foo",
            "POST /q3:foo",
            "POST /q3%3Afoo",
            "OPTIONS /q3:foo",
            "POST /q3:",
        ] {
            let answer = ask(&polls, line, &[]).await;
            assert_eq!(answer.status, 404, "{polls:?} {line}: {answer:?}");
            assert!(answer.text().contains("no sub-resource q3:"), "{answer:?}");
        }
        let answer = ask(&polls, "GET /q3:cancel", &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.field("allow")),
            (405, "POST, OPTIONS")
        );
    }
}

#[tokio::test]
async fn allow_lists_the_methods_of_operations_and_results() {
    const READ: &str = "GET, HEAD, OPTIONS";
    const ALL: &str = "GET, HEAD, DELETE, OPTIONS";
    let owner = |parts: &Parts| {
        let user = parts.headers.get("x-user")?;
        Some(Owner::new(user.to_str().unwrap()))
    };
    let store = MemoryStore::new();
    let new = NewOperation::new("q3".parse().unwrap()).with_owner(Some(Owner::new("ada")));
    add(&store, new, State::Running).await;
    let polls = Operations::new(store.clone()).owner(owner).poll_service();
    for (path, allow) in [
        ("/q3", ALL),
        ("/none", ALL),
        ("/q3/result", READ),
        ("/none/result", READ),
        // The service does not know that its operations are below another path.
        ("/jobs/q3", ALL),
        ("/jobs/q3/result", READ),
    ] {
        for (method, status) in [("POST", 405), ("OPTIONS", 204)] {
            let line = format!("{method} {path}");
            let answer = ask(&polls, &line, &[("x-user", "ada")]).await;
            assert_eq!(answer.status, status, "{line}: {answer:?}");
            assert_eq!(answer.field("allow"), allow, "{line}");
        }
    }
    // The method reveals nothing about another owner's operation.
    let eve = [("x-user", "eve")];
    let answer = ask(&polls, "POST /jobs/q3", &eve).await;
    let unknown = ask(&polls, "POST /jobs/q4", &eve).await;
    assert_eq!(answer.status, 404);
    assert_eq!(unknown.text().replace("q4", "q3"), answer.text());
    let polls = Operations::new(store).owner(owner).read_only_poll_service();
    for (line, status) in [("DELETE /q3", 405), ("DELETE /q3/foo", 404)] {
        let answer = ask(&polls, line, &[("x-user", "ada")]).await;
        assert_eq!(answer.status, status, "{line}: {answer:?}");
    }
}

#[tokio::test]
async fn the_404_titles_of_sub_resources_and_operations_differ() {
    for dialect in [
        Arc::new(Plain::default()) as Arc<dyn Dialect>,
        Arc::new(Ogc::default()),
    ] {
        let polls = Operations::new(store_with("q3", State::Running).await)
            .dialect(dialect)
            .poll_service();
        let answer = ask(&polls, "GET /q3/foo", &[]).await;
        answer.detail(404, "not-found");
        assert_eq!(answer.json()["title"], "There is no such sub-resource");
        let answer = ask(&polls, "GET /foo", &[]).await;
        assert_eq!(answer.json()["title"], "There is no such operation");
    }
}
