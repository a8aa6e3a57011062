//! Paths that name more than there is.

use super::*;

/// Every dialect over the same operation, by paths below the service and by whole ones.
async fn everywhere(id: &str, state: State) -> Vec<(PollService<MemoryStore>, &'static str)> {
    let store = one(id, state).await;
    let mut all = Vec::new();
    for dialect in every_dialect() {
        let polls = Operations::new(store.clone())
            .dialect(dialect)
            .poll_service()
            .listing();
        all.push((polls.clone().mounted_at("/operations"), "/operations"));
        all.push((polls, ""));
    }
    all
}

#[tokio::test]
async fn what_is_not_below_an_operation_names_the_operation_however_deep_it_would_be() {
    for (polls, root) in everywhere("q3", State::Succeeded).await {
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
            // The operation itself may well be there.
            for untrue in ["no-such-job", "no such operation"] {
                assert!(!answer.text().contains(untrue), "{polls:?}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_empty_segment_is_nothing_of_an_operation_and_no_list() {
    for (polls, root) in everywhere("q3", State::Running).await {
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
async fn no_method_is_allowed_of_what_is_not_there() {
    for (polls, root) in everywhere("q3", State::Running).await {
        for name in ["foo", "foo/bar", "result/x", "foo/"] {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let line = format!("{method} {root}/q3/{name}");
                let answer = ask(&polls, &line, &[]).await;
                assert_eq!(answer.status, 404, "{polls:?} {line}: {answer:?}");
                assert_eq!(answer.field("allow"), "", "{polls:?} {line}");
            }
        }
        // What is no name of anything is said to be none, whatever the method.
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
async fn a_verb_that_a_dialect_with_verbs_does_not_have_is_not_found() {
    for dialect in [
        Arc::new(Azure::default()) as Arc<dyn Dialect>,
        Arc::new(Arm::default()),
        Arc::new(Google::default()),
        Arc::new(Ipa::default()),
    ] {
        let polls = Operations::new(one("q3", State::Running).await)
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
async fn the_methods_of_what_is_there_are_told_wherever_the_service_is() {
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
        // Nothing tells this service that its operations are below another path.
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
    // Nobody learns by a method what they may not know.
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
async fn what_is_not_there_has_a_title_of_its_own() {
    for dialect in [
        Arc::new(Plain::default()) as Arc<dyn Dialect>,
        Arc::new(Ogc::default()),
    ] {
        let polls = Operations::new(one("q3", State::Running).await)
            .dialect(dialect)
            .poll_service();
        let answer = ask(&polls, "GET /q3/foo", &[]).await;
        answer.detail(404, "not-found");
        assert_eq!(answer.json()["title"], "There is no such sub-resource");
        let answer = ask(&polls, "GET /foo", &[]).await;
        assert_eq!(answer.json()["title"], "There is no such operation");
    }
}
