//! The checker reports a store that breaks a law, by the answers to its clients, and
//! reports nothing for the same store without the fault.
//!
//! Two nodes share a store, in one process and on a paused clock. Each test plays the
//! scenario in which its law matters.

#[path = "checker/lawless.rs"]
mod lawless;
#[path = "checker/stage.rs"]
mod stage;

use std::time::Duration;

use lawless::Law;
use stage::{A, B, Stage, TENANT};
use tokio::time::sleep;
use tower_operations::State;
use tower_operations_conformance::checker::{CallAnswer, Reading, Verdict, Violation};

/// A node is suspended past its lease, its operation is reclaimed and ends, and the node
/// resumes its run.
async fn zombie(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.post_accepted(A, "Q3", None).await;
    stage.wait_until_running(&id).await;
    stage.stop(A);
    stage.interrupt_expired(B).await;
    assert_eq!(stage.poll(B, &id).await, Some(State::Failed));
    stage.resume(A);
    stage.print();
    stage.settle().await;
    stage.poll(B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn a_write_after_a_lost_lease_is_reported() {
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

/// A node is killed as soon as its 202 is sent.
async fn sudden_death(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.post_accepted(A, "Q3", None).await;
    stage.kill(A);
    stage.interrupt_expired(B).await;
    stage.poll(B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn an_operation_lost_after_its_202_is_reported() {
    assert!(sudden_death(None).await.is_good());
    let verdict = sudden_death(Some(Law::Durability)).await;
    assert!(
        matches!(verdict.violations[..], [Violation::Lost { .. }]),
        "{verdict}"
    );
}

/// One client waits, and another sees the end.
async fn wait_and_poll(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.post_accepted(A, "Q3", None).await;
    stage.wait_until_running(&id).await;
    let wait = stage.poll_for_end(B, &id, Duration::from_secs(20));
    let poll = async {
        sleep(Duration::from_secs(1)).await;
        stage.print();
        stage.settle().await;
        assert_eq!(stage.poll(A, &id).await, Some(State::Succeeded));
    };
    let (state, ()) = tokio::join!(wait, poll);
    assert_eq!(state, Some(State::Succeeded));
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_wake_up_is_reported() {
    assert!(wait_and_poll(None).await.is_good());
    let verdict = wait_and_poll(Some(Law::Waking)).await;
    let [Violation::Overslept { by, .. }] = verdict.violations[..] else {
        panic!("{verdict}");
    };
    assert!(by > Duration::from_secs(15), "{by:?}");
}

/// Two reads, one after the other, at two nodes.
async fn two_readers(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.post_accepted(A, "Q3", None).await;
    stage.wait_until_running(&id).await;
    stage.poll(B, &id).await;
    stage.print();
    stage.settle().await;
    assert_eq!(stage.poll(A, &id).await, Some(State::Succeeded));
    stage.settle().await;
    stage.poll(B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_reported() {
    assert!(two_readers(None).await.is_good());
    let verdict = two_readers(Some(Law::Freshness)).await;
    let [
        Violation::WentBack {
            before: Reading::Version(2),
            then: Reading::Version(1),
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
        let id = stage.post_accepted(node, "Q3", key).await;
        stage.poll_for_end(node, &id, Duration::from_secs(5)).await;
    }
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn two_operations_of_one_key_are_reported() {
    assert!(repetition(None).await.is_good());
    let verdict = repetition(Some(Law::KeysAcrossNodes)).await;
    assert!(
        matches!(verdict.violations[..], [Violation::KeyForked { .. }]),
        "{verdict}"
    );
}

/// A cancel, and the end of the canceled run.
async fn cancel(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    let id = stage.post_accepted(A, "Q3", None).await;
    stage.wait_until_running(&id).await;
    let answer = stage.cancel(B, &id).await;
    assert!(matches!(answer, CallAnswer::Operation(_)), "{answer:?}");
    stage.print();
    stage.settle().await;
    stage.poll(B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn an_undone_cancel_is_reported() {
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
            stage.settle().await;
            stage.poll_as(tenant, node, &operation).await;
        }
    }
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn an_operation_shared_through_a_key_is_reported() {
    assert!(two_tenants(None).await.is_good());
    let verdict = two_tenants(Some(Law::Keys)).await;
    let is_shown = |violation: &Violation| matches!(violation, Violation::ShownToAnother { .. });
    assert!(verdict.violations.iter().any(is_shown), "{verdict}");
}

/// Another tenant knows the id of an operation.
async fn foreign_poll(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    stage.print();
    let id = stage.post_accepted(A, "Q3", None).await;
    stage.settle().await;
    stage.poll(A, &id).await;
    stage.poll_as("another", B, &id).await;
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn an_operation_shown_to_another_owner_is_reported() {
    assert!(foreign_poll(None).await.is_good());
    let verdict = foreign_poll(Some(Law::Owners)).await;
    assert!(
        matches!(verdict.violations[..], [Violation::ShownToAnother { .. }]),
        "{verdict}"
    );
}

/// A report is deleted, and its id is reused for another.
async fn delete_and_reuse(law: Option<Law>) -> Verdict {
    let stage = Stage::new(law);
    stage.print();
    for (title, key, name) in [("Q3", "first", "q"), ("Q4", "second", "q#2")] {
        let answer = stage.post(TENANT, A, title, Some(key), Some(name)).await;
        let operation = name.to_owned();
        if answer != (CallAnswer::Accepted { operation }) {
            break;
        }
        stage.settle().await;
        assert_eq!(stage.poll(A, name).await, Some(State::Succeeded));
        stage.delete(A, name).await;
        stage.settle().await;
        stage.poll(A, name).await;
    }
    stage.verdict()
}

#[tokio::test(start_paused = true)]
async fn an_undone_delete_is_reported() {
    let verdict = delete_and_reuse(None).await;
    assert!(verdict.is_good(), "{verdict}");
    assert_eq!((verdict.counts.accepted, verdict.counts.deleted), (2, 2));
    let verdict = delete_and_reuse(Some(Law::Deletion)).await;
    let is_undone = |violation: &Violation| matches!(violation, Violation::DeleteUndone { .. });
    assert!(verdict.violations.iter().any(is_undone), "{verdict}");
}
