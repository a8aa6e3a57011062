//! What `DELETE` does to what has ended, and what holds it back.

use super::*;

#[tokio::test]
async fn a_dismissed_job_is_removed_by_a_second_delete() {
    let store = one("q3", State::Running).await;
    let polls = Operations::new(store.clone())
        .dialect(Ogc::default())
        .poll_service();
    for (status, left) in [(200, Some(State::Canceled)), (200, None), (404, None)] {
        let answer = ask(&polls, "DELETE /q3", &[]).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 200 {
            assert_eq!(answer.json()["status"], "dismissed");
            assert_eq!(answer.json()["jobID"], "q3");
        }
        assert_eq!(state_of(&store, "q3").await, left);
    }
    assert_eq!(ask(&polls, "GET /q3", &[]).await.status, 404);
}

#[tokio::test]
async fn what_was_canceled_goes_wherever_what_has_ended_goes() {
    for (dialect, _) in deleting() {
        let mut left = Vec::new();
        for state in [State::Succeeded, State::Failed, State::Canceled] {
            let store = one("q3", state).await;
            let polls = Operations::new(store.clone())
                .dialect(Arc::clone(&dialect))
                .poll_service();
            ask(&polls, "DELETE /q3", &[]).await;
            // What its clients see no more is gone to them.
            let is_there = ask(&polls, "GET /q3", &[]).await.status != 404;
            left.push(is_there);
        }
        assert!(
            left.iter().all(|it| *it == left[0]),
            "{dialect:?}: {left:?}"
        );
    }
}

#[tokio::test]
async fn a_dismissal_that_loses_to_another_removes_nothing() {
    let memory = one("q3", State::Running).await;
    let was_canceled = Arc::new(AtomicBool::new(false));
    let store = Hooked::new(memory.clone(), {
        let memory = memory.clone();
        move |call, when| {
            let (memory, was_canceled) = (memory.clone(), Arc::clone(&was_canceled));
            async move {
                let is_cancel = (call, when) == (Call::ForceFinish, When::Before);
                if is_cancel && !was_canceled.swap(true, SeqCst) {
                    let id = "q3".parse().unwrap();
                    let version = memory.get(&id).await?.unwrap().version().unwrap();
                    memory.force_finish(&id, version, Outcome::Canceled).await?;
                }
                Ok(())
            }
        }
    });
    let polls = Operations::new(store)
        .dialect(Ogc::default())
        .poll_service();
    let answer = ask(&polls, "DELETE /q3", &[]).await;
    assert_eq!(answer.json()["status"], "dismissed");
    assert_eq!(state_of(&memory, "q3").await, Some(State::Canceled));
}

#[tokio::test]
async fn a_star_deletes_no_result_in_any_dialect() {
    for (dialect, deleted) in deleting() {
        for state in [State::Succeeded, State::Failed] {
            let store = one("q3", state).await;
            let plain = PollService::new(store.clone());
            let etag = ask(&plain, "GET /q3", &[]).await.field("etag").to_owned();
            let polls = Operations::new(store.clone())
                .dialect(Arc::clone(&dialect))
                .poll_service();
            let answer = ask(&polls, "DELETE /q3", &[("if-match", "*")]).await;
            // To Plain it is a cancel that comes too late.
            assert!(
                [409, 412].contains(&answer.status.as_u16()),
                "{dialect:?}: {answer:?}"
            );
            assert_eq!(state_of(&store, "q3").await, Some(state), "{dialect:?}");
            let answer = ask(&polls, "DELETE /q3", &[("if-match", &etag)]).await;
            assert_eq!(answer.status, deleted, "{dialect:?}: {answer:?}");
            assert_eq!(state_of(&store, "q3").await, None, "{dialect:?}");
        }
    }
}

#[tokio::test]
async fn an_if_match_without_a_tag_is_malformed() {
    for (dialect, _) in deleting() {
        for state in [State::Running, State::Succeeded] {
            let store = one("q3", state).await;
            let polls = Operations::new(store.clone())
                .dialect(Arc::clone(&dialect))
                .poll_service();
            for value in ["", " ", " , ,"] {
                let answer = ask(&polls, "DELETE /q3", &[("if-match", value)]).await;
                assert_eq!(answer.status, 400, "{dialect:?} {value}: {answer:?}");
                assert_eq!(state_of(&store, "q3").await, Some(state));
            }
        }
    }
}

#[tokio::test]
async fn a_delete_that_if_none_match_holds_back_says_so() {
    for (dialect, _) in deleting() {
        let store = one("q3", State::Succeeded).await;
        let plain = PollService::new(store.clone());
        let etag = ask(&plain, "GET /q3", &[]).await.field("etag").to_owned();
        let polls = Operations::new(store.clone())
            .dialect(Arc::clone(&dialect))
            .poll_service();
        for value in ["*", &etag] {
            let answer = ask(&polls, "DELETE /q3", &[("if-none-match", value)]).await;
            assert_eq!(answer.status, 412, "{dialect:?}: {answer:?}");
            let text = answer.text();
            assert!(text.contains("If-None-Match"), "{dialect:?}: {text}");
            assert!(!text.contains("another version"), "{dialect:?}: {text}");
        }
        let answer = ask(&polls, "DELETE /q3", &[("if-match", "\"x\"")]).await;
        assert_eq!(answer.status, 412, "{dialect:?}: {answer:?}");
        assert!(answer.text().contains("If-Match"), "{answer:?}");
    }
    let polls = PollService::new(one("q3", State::Succeeded).await);
    let answer = ask(&polls, "DELETE /q3", &[("if-none-match", "*")]).await;
    answer.detail(412, "precondition-failed");
}

#[tokio::test]
async fn a_read_holds_to_if_match_in_every_dialect() {
    for dialect in every_dialect() {
        for state in [State::Running, State::Succeeded] {
            let polls = Operations::new(one("q3", state).await)
                .dialect(Arc::clone(&dialect))
                .poll_service();
            for line in ["GET /q3", "HEAD /q3"] {
                let bare = ask(&polls, line, &[]).await;
                let status = bare.status.as_u16();
                // A condition concerns what would succeed (RFC 9110, section 13.2.1), and
                // here what has a validator.
                let is_conditional = bare.status.is_success() && bare.headers.contains_key("etag");
                let refused = |by: u16| if is_conditional { by } else { status };
                let mut expected = vec![
                    ("*".to_owned(), status),
                    ("\"other\"".into(), refused(412)),
                    ("".into(), refused(400)),
                    ("x".into(), refused(400)),
                    ("*, \"x\"".into(), refused(400)),
                ];
                let etag = bare.headers.get("etag");
                expected.extend(etag.map(|etag| (etag.to_str().unwrap().into(), status)));
                for (value, status) in expected {
                    let answer = ask(&polls, line, &[("if-match", &value)]).await;
                    assert_eq!(answer.status, status, "{dialect:?} {line} {value}");
                }
            }
        }
    }
}
