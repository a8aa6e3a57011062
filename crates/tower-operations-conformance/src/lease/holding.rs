//! The leases of a holding node.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tower_operations::{
    operation::{OperationId, Outcome, RecordedResponse},
    store::{Lease, LeaseHandle},
};

use super::{
    super::subject::{
        HELD, LONG, SETTLED, STUCK, assert_unchanged, done, finish, join, law, no_token, ok, stamp,
    },
    TERM, held, held_by, lease, try_to_take,
};

pub(super) async fn a_lease_is_not_taken_over_while_it_lasts<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let record = held_by(store, &lease(LONG)).await;
    let id = [record.operation().id().clone()];
    sleep(TERM).await;
    let taken = try_to_take(store, &lease(LONG), &id).await;
    law!(
        6,
        taken.is_empty(),
        "a lease was reclaimed while it lasted: {taken:?}"
    );
    assert_unchanged(6, store, &record, "an attempt to take it over").await;
}

pub(super) async fn renewing_names_what_is_lost<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(LONG);
    let kept = [held_by(store, &mine).await, held_by(store, &mine).await];
    let canceled = held_by(store, &mine).await;
    let force_finished = canceled.operation().id();
    let force_finished = store.force_finish(force_finished, stamp(&canceled), Outcome::Canceled);
    done(2, ok(force_finished.await), "force-finishing");
    let deleted = finish(store, &held_by(store, &mine).await).await;
    let id = deleted.operation().id();
    done(2, ok(store.delete(id, stamp(&deleted)).await), "deleting");
    let never = LeaseHandle::new(OperationId::new(), kept[0].token());
    let stranger = LeaseHandle {
        token: no_token(),
        ..held(&held_by(store, &mine).await)
    };

    let mut lost = vec![held(&canceled), held(&deleted), never, stranger];
    let mut all = lost.clone();
    all.insert(2, held(&kept[0]));
    all.push(held(&kept[1]));
    let mut answer = ok(store.renew(&mine, &all).await);
    for list in [&mut lost, &mut answer] {
        list.sort_by_key(|held| held.id.clone());
    }
    law!(
        6,
        answer == lost,
        "renewing {all:?} named {answer:?} as lost, not {lost:?}"
    );
    let none = ok(store.renew(&mine, &[]).await);
    law!(6, none.is_empty(), "renewing nothing lost {none:?}");
}

/// A version stands for a change that readers may see; a renewal is not such a change.
pub(super) async fn renewing_changes_nothing<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(LONG);
    let record = held_by(store, &mine).await;
    let lost = ok(store.renew(&mine, &[held(&record)]).await);
    law!(6, lost.is_empty(), "renewing lost {lost:?}, which was held");
    assert_unchanged(4, store, &record, "renewing").await;
}

pub(super) async fn a_forced_finish_revokes<R>(store: &Arc<R>)
where
    R: Lease<Output = RecordedResponse>,
{
    // A revocation may be missed once, but not every time.
    for is_last in [false, false, true] {
        let mine = lease(LONG);
        let record = held_by(&**store, &mine).await;
        let listening = {
            let (store, node) = (Arc::clone(store), mine.node.clone());
            tokio::spawn(async move { ok(store.revoked(&node, HELD).await) })
        };
        sleep(SETTLED).await;
        let id = record.operation().id();
        let force_finished = store.force_finish(id, stamp(&record), Outcome::Canceled);
        done(2, ok(force_finished.await), "force-finishing");
        let listening_to = listening.abort_handle();
        match timeout(STUCK, join(listening)).await {
            Ok(revoked) => {
                law!(
                    6,
                    revoked == [id.clone()],
                    "force-finishing  revoked {revoked:?}"
                );
                return;
            }
            Err(_) => {
                listening_to.abort();
                law!(
                    6,
                    !is_last,
                    "force-finishing an operation did not revoke its lease"
                );
            }
        }
    }
}

pub(super) async fn nothing_recalls_for_nothing<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let (mine, other) = (lease(LONG), lease(LONG));
    // Both nodes have listened before.
    for node in [&mine.node, &other.node] {
        ok(store.revoked(node, Duration::ZERO).await);
    }
    let record = held_by(store, &other).await;
    let id = record.operation().id();
    let force_finished = store.force_finish(id, stamp(&record), Outcome::Canceled);
    done(2, ok(force_finished.await), "force-finishing");
    let at_most = Duration::from_millis(200);
    let late = at_most + Duration::from_secs(2);
    match timeout(late, store.revoked(&mine.node, at_most)).await {
        Ok(revoked) => {
            let revoked = ok(revoked);
            law!(
                6,
                revoked.is_empty(),
                "{revoked:?} was revoked on a node without it"
            );
        }
        Err(_) => panic!("law 6: waiting {at_most:?} for a revocation was not over after {late:?}"),
    }
}
