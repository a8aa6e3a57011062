//! Claims of queued operations.

use std::sync::Arc;

use tokio::time::sleep;
use tower_operations::{
    operation::{OperationId, RecordedResponse},
    store::{Lease, LeaseHandle, Written},
};

use super::{
    super::subject::{
        LONG, assert_follows, assert_unchanged, done, finish, gone, law, lost, no_token, ok, start,
        success, together,
    },
    TERM, held, held_by, lease, take, try_to_take,
};

pub(super) async fn a_claimed_operation_has_another_holder<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let (old, new) = (lease(LONG), lease(LONG));
    let before = held_by(store, &old).await;
    let (id, token) = (before.operation().id(), before.token());
    for wrong in [no_token(), token.next()] {
        let wrong = LeaseHandle::new(id.clone(), wrong);
        let what = "a claim by a token that does not hold it";
        lost(6, ok(store.claim(&new, &wrong).await), what);
    }
    assert_unchanged(
        6,
        store,
        &before,
        "a claim by a token that does not hold it",
    )
    .await;

    let claimed = done(6, ok(store.claim(&new, &held(&before)).await), "a claim");
    law!(
        6,
        claimed.token() > token && claimed.node() == Some(&new.node),
        "a claim of {before:?} left {claimed:?}"
    );
    law!(
        6,
        claimed.attempts() == before.attempts(),
        "claiming is not starting: {claimed:?}"
    );
    assert_follows(&before, &claimed, "a claim");
    assert_unchanged(6, store, &claimed, "reading").await;
    let what = "a second claim by the same token";
    lost(6, ok(store.claim(&lease(LONG), &held(&before)).await), what);
    let what = "a late write of a holder whose operation was claimed";
    lost(6, ok(store.start(id, token).await), what);
    lost(
        6,
        ok(store.finish(id, token, success("late"), None).await),
        what,
    );
    let renewed = ok(store.renew(&old, &[held(&before)]).await);
    law!(6, renewed == [held(&before)], "a lost lease was renewed");
    let taken = try_to_take(store, &lease(LONG), std::slice::from_ref(id)).await;
    law!(
        6,
        taken.is_empty(),
        "a claimed operation counts as released"
    );
    assert_unchanged(6, store, &claimed, what).await;

    let started = start(store, &claimed).await;
    law!(
        6,
        started.attempts() == 2,
        "a start was not counted: {started:?}"
    );
    let ended = finish(store, &started).await;
    let what = "a claim of an ended operation";
    lost(6, ok(store.claim(&new, &held(&started)).await), what);
    assert_unchanged(6, store, &ended, what).await;
    let unknown = LeaseHandle::new(OperationId::new(), token);
    let what = "a claim of an absent operation";
    gone(6, &ok(store.claim(&new, &unknown).await), what);
}

pub(super) async fn of_many_claims_one_succeeds<R>(store: &Arc<R>)
where
    R: Lease<Output = RecordedResponse>,
{
    for _ in 0..20 {
        let before = held_by(&**store, &lease(LONG)).await;
        let claims = (0..4).map(|_| {
            let (store, held, by) = (Arc::clone(store), held(&before), lease(LONG));
            async move { ok(store.claim(&by, &held).await) }
        });
        let claims = together(claims).await;
        let succeeded = claims
            .iter()
            .filter(|write| matches!(write, Written::Done(_)));
        let succeeded = succeeded.count();
        law!(6, succeeded == 1, "{succeeded} of 4 claims succeeded");
    }
}

/// The lease after a claim has the term of the claim, whatever the term before: a worker
/// has its whole term even after a long queue, and its death is noticed soon even if the
/// queue had a long term.
pub(super) async fn a_claim_lasts_for_the_term_of_the_claimant<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let (short, long) = (lease(TERM), lease(LONG));
    let waited = held_by(store, &short).await;
    let waiting = held_by(store, &long).await;
    let claim = ok(store.claim(&long, &held(&waited)).await);
    let waited = done(6, claim, "a claim");
    let claim = ok(store.claim(&short, &held(&waiting)).await);
    let left = done(6, claim, "a claim");
    sleep(TERM).await;
    let taken = take(store, &lease(LONG), &left).await;
    law!(
        6,
        taken.token() > left.token(),
        "a claim for {TERM:?} was reclaimed as {taken:?}"
    );
    let id = [waited.operation().id().clone()];
    let taken = try_to_take(store, &lease(LONG), &id).await;
    law!(
        6,
        taken.is_empty(),
        "a claim for {LONG:?} lasted for as long as the lease before it: {taken:?}"
    );
}
