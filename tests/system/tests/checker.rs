//! The checker convicts a store that breaks a law, by what its clients saw, and
//! acquits the same store with the law kept.
//!
//! Two nodes share a store, in one process and on a paused clock. Each test
//! plays the very scene in which its law matters.

#[path = "checker/lawless.rs"]
mod lawless;
#[path = "checker/stage.rs"]
mod stage;
#[path = "chaos/wish.rs"]
mod wish;

use std::time::Duration;

use lawless::Law;
use stage::{A, B, Stage, TENANT};
use tokio::time::sleep;
use tower_operations::State;
use tower_operations_conformance::checker::{CallAnswer, Reading, Verdict, Violation};

/// A node is stopped past its lease, its operation is taken over and ends, and
/// the node wakes up and goes on.
async fn zombie(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.accepted(A, "Q3", None).await;
    stage.running(&id).await;
    stage.stop(A);
    stage.take_over(B).await;
    assert_eq!(stage.poll(B, &id).await, Some(State::Failed));
    stage.goes_on(A);
    stage.print();
    stage.a_while().await;
    stage.poll(B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn fencing() {
    assert!(zombie(None).await.is_good());
    let verdict = zombie(Some(Law::Fencing)).await;
    let [
        Violation::TwoOutcomes {
            first: State::Failed,
            second: State::Succeeded,
            ..
        },
    ] = verdict.violations[..]
    else {
        panic!("{verdict}");
    };
}

/// A node dies as soon as its 202 is out.
async fn sudden_death(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.accepted(A, "Q3", None).await;
    stage.kill(A);
    stage.take_over(B).await;
    stage.poll(B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn created_before_it_is_answered() {
    assert!(sudden_death(None).await.is_good());
    let verdict = sudden_death(Some(Law::Durability)).await;
    assert!(
        matches!(verdict.violations[..], [Violation::Lost { .. }]),
        "{verdict}"
    );
}

/// One waits, another sees the end.
async fn patience(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.accepted(A, "Q3", None).await;
    stage.running(&id).await;
    let waits = stage.held(B, &id, Duration::from_secs(20));
    let sees = async {
        sleep(Duration::from_secs(1)).await;
        stage.print();
        stage.a_while().await;
        assert_eq!(stage.poll(A, &id).await, Some(State::Succeeded));
    };
    let (state, ()) = tokio::join!(waits, sees);
    assert_eq!(state, Some(State::Succeeded));
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn wake_ups() {
    assert!(patience(None).await.is_good());
    let verdict = patience(Some(Law::Waking)).await;
    let [Violation::Overslept { by, .. }] = verdict.violations[..] else {
        panic!("{verdict}");
    };
    assert!(by > Duration::from_secs(15), "{by:?}");
}

/// Two readers, one after the other, at two nodes.
async fn two_readers(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.accepted(A, "Q3", None).await;
    stage.running(&id).await;
    stage.poll(B, &id).await;
    stage.print();
    stage.a_while().await;
    assert_eq!(stage.poll(A, &id).await, Some(State::Succeeded));
    stage.a_while().await;
    stage.poll(B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn reads_of_what_was_written() {
    assert!(two_readers(None).await.is_good());
    let verdict = two_readers(Some(Law::Freshness)).await;
    let [
        Violation::WentBack {
            before: Reading::Version(3),
            then: Reading::Version(2),
            ..
        },
    ] = verdict.violations[..]
    else {
        panic!("{verdict}");
    };
}

/// The same key at two nodes.
async fn repetition(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    stage.print();
    let key = Some("8e03978e-40d5-43dd");
    for node in [A, B] {
        let id = stage.accepted(node, "Q3", key).await;
        stage.held(node, &id, Duration::from_secs(5)).await;
    }
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn keys() {
    assert!(repetition(None).await.is_good());
    let verdict = repetition(Some(Law::Once)).await;
    assert!(
        matches!(verdict.violations[..], [Violation::KeyForked { .. }]),
        "{verdict}"
    );
}

/// A cancel, and the end of the run after it.
async fn cancel(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.accepted(A, "Q3", None).await;
    stage.running(&id).await;
    let answer = stage.cancel(B, &id).await;
    assert!(matches!(answer, CallAnswer::Operation(_)), "{answer:?}");
    stage.print();
    stage.a_while().await;
    stage.poll(B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn what_is_canceled() {
    assert!(cancel(None).await.is_good());
    let verdict = cancel(Some(Law::Fencing)).await;
    let [
        Violation::CancelUndone {
            state: State::Succeeded,
            ..
        },
    ] = verdict.violations[..]
    else {
        panic!("{verdict}");
    };
}

/// The same key of two tenants, at two nodes.
async fn two_tenants(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    stage.print();
    let key = Some("8e03978e-40d5-43dd");
    for (tenant, node) in [(TENANT, A), ("another", B)] {
        if let CallAnswer::Accepted { operation } = stage.post(tenant, node, "Q3", key, None).await
        {
            stage.a_while().await;
            stage.poll_as(tenant, node, &operation).await;
        }
    }
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn keys_of_two_owners() {
    assert!(two_tenants(None).await.is_good());
    let verdict = two_tenants(Some(Law::Keys)).await;
    let is_shown = |violation: &Violation| matches!(violation, Violation::ShownToAnother { .. });
    assert!(verdict.violations.iter().any(is_shown), "{verdict}");
}

/// Somebody has found an id.
async fn stranger(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    stage.print();
    let id = stage.accepted(A, "Q3", None).await;
    stage.a_while().await;
    stage.poll(A, &id).await;
    stage.poll_as("another", B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn owners() {
    assert!(stranger(None).await.is_good());
    let verdict = stranger(Some(Law::Owners)).await;
    assert!(
        matches!(verdict.violations[..], [Violation::ShownToAnother { .. }]),
        "{verdict}"
    );
}

/// A report is forgotten, and its id is chosen for another.
async fn again(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    stage.print();
    for (title, key, name) in [("Q3", "first", "q"), ("Q4", "second", "q#2")] {
        let answer = stage.post(TENANT, A, title, Some(key), Some(name)).await;
        let operation = name.to_owned();
        if answer != (CallAnswer::Accepted { operation }) {
            break;
        }
        stage.a_while().await;
        assert_eq!(stage.poll(A, name).await, Some(State::Succeeded));
        stage.forget(A, name).await;
        stage.a_while().await;
        stage.poll(A, name).await;
    }
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten() {
    let verdict = again(None).await;
    assert!(verdict.is_good(), "{verdict}");
    assert_eq!((verdict.counts.accepted, verdict.counts.forgotten), (2, 2));
    let verdict = again(Some(Law::Forgetting)).await;
    let is_undone = |violation: &Violation| matches!(violation, Violation::ForgetUndone { .. });
    assert!(verdict.violations.iter().any(is_undone), "{verdict}");
}
