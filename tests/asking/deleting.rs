//! `DELETE` of ended operations, and its preconditions.

use super::*;

#[tokio::test]
async fn a_dismissed_job_is_removed_by_a_second_delete() {
    let store = store_with("q3", State::Running).await;
    let polls = Operations::new(store.clone())
        .dialect(Ogc::default())
        .poll_service();
    for (status, remaining) in [(200, Some(State::Canceled)), (200, None), (404, None)] {
        let answer = ask(&polls, "DELETE /q3", &[]).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 200 {
            assert_eq!(answer.json()["status"], "dismissed");
            assert_eq!(answer.json()["jobID"], "q3");
        }
        assert_eq!(state_of(&store, "q3").await, remaining);
    }
    assert_eq!(ask(&polls, "GET /q3", &[]).await.status, 404);
}

#[tokio::test]
async fn a_delete_treats_canceled_operations_like_other_ended_ones() {
    for (dialect, _) in delete_statuses() {
        let mut visible = Vec::new();
        for state in [State::Succeeded, State::Failed, State::Canceled] {
            let store = store_with("q3", state).await;
            let polls = Operations::new(store.clone())
                .dialect(Arc::clone(&dialect))
                .poll_service();
            ask(&polls, "DELETE /q3", &[]).await;
            // An operation that clients no longer see counts as deleted.
            let is_visible = ask(&polls, "GET /q3", &[]).await.status != 404;
            visible.push(is_visible);
        }
        assert!(
            visible.iter().all(|other| *other == visible[0]),
            "{dialect:?}: {visible:?}"
        );
    }
}

#[tokio::test]
async fn a_dismissal_that_loses_a_race_deletes_nothing() {
    let memory = store_with("q3", State::Running).await;
    let has_canceled = Arc::new(AtomicBool::new(false));
    let store = Hooked::new(memory.clone(), {
        let memory = memory.clone();
        move |call, when| {
            let (memory, has_canceled) = (memory.clone(), Arc::clone(&has_canceled));
            async move {
                let is_cancel = (call, when) == (Call::ForceFinish, When::Before);
                if is_cancel && !has_canceled.swap(true, SeqCst) {
                    let id = "q3".parse().unwrap();
                    let stamp = memory.get(&id).await?.unwrap().stamp().unwrap();
                    memory.force_finish(&id, stamp, Outcome::Canceled).await?;
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
async fn if_match_star_deletes_no_result_in_any_dialect() {
    for (dialect, delete_status) in delete_statuses() {
        for state in [State::Succeeded, State::Failed] {
            let store = store_with("q3", state).await;
            let plain = PollService::new(store.clone());
            let etag = ask(&plain, "GET /q3", &[]).await.field("etag").to_owned();
            let polls = Operations::new(store.clone())
                .dialect(Arc::clone(&dialect))
                .poll_service();
            let answer = ask(&polls, "DELETE /q3", &[("if-match", "*")]).await;
            // In Plain the request is a late cancel.
            assert!(
                [409, 412].contains(&answer.status.as_u16()),
                "{dialect:?}: {answer:?}"
            );
            assert_eq!(state_of(&store, "q3").await, Some(state), "{dialect:?}");
            let answer = ask(&polls, "DELETE /q3", &[("if-match", &etag)]).await;
            assert_eq!(answer.status, delete_status, "{dialect:?}: {answer:?}");
            assert_eq!(state_of(&store, "q3").await, None, "{dialect:?}");
        }
    }
}

#[tokio::test]
async fn an_if_match_without_a_tag_is_malformed() {
    for (dialect, _) in delete_statuses() {
        for state in [State::Running, State::Succeeded] {
            let store = store_with("q3", state).await;
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
async fn a_delete_refused_by_if_none_match_names_the_header() {
    for (dialect, _) in delete_statuses() {
        let store = store_with("q3", State::Succeeded).await;
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
    let polls = PollService::new(store_with("q3", State::Succeeded).await);
    let answer = ask(&polls, "DELETE /q3", &[("if-none-match", "*")]).await;
    answer.detail(412, "precondition-failed");
}

#[tokio::test]
async fn reads_honor_if_match_in_every_dialect() {
    for dialect in every_dialect() {
        for state in [State::Running, State::Succeeded] {
            let polls = Operations::new(store_with("q3", state).await)
                .dialect(Arc::clone(&dialect))
                .poll_service();
            for line in ["GET /q3", "HEAD /q3"] {
                let bare = ask(&polls, line, &[]).await;
                let status = bare.status.as_u16();
                // A condition applies to a response that would succeed (RFC 9110, section
                // 13.2.1) and that has a validator.
                let is_conditional = bare.status.is_success() && bare.headers.contains_key("etag");
                let status_if_refused = |by: u16| if is_conditional { by } else { status };
                let mut expected = vec![
                    ("*".to_owned(), status),
                    ("\"other\"".into(), status_if_refused(412)),
                    ("".into(), status_if_refused(400)),
                    ("x".into(), status_if_refused(400)),
                    ("*, \"x\"".into(), status_if_refused(400)),
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
