//! Reclaims, one step after another.

use bytes::Bytes;
use tokio::time::sleep;
use tower_operations::{
    operation::{OperationId, Progress, RecordedResponse},
    store::{Lease, LeaseHandle, NewOperation, Reclaimed},
};

use super::{
    super::subject::{
        LONG, Seen, Stopwatch, assert_follows, assert_unchanged, create, finish, in_time, law,
        lost, no_token, ok, start, success,
    },
    TERM, held, held_by, lease, take, try_to_take,
};

pub(super) async fn an_expired_lease_is_reclaimed<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let (old, new) = (lease(TERM), lease(LONG));
    let before = held_by(store, &old).await;
    let (id, token) = (before.operation().id(), before.token());
    sleep(TERM).await;
    let taken = take(store, &new, &before).await;
    law!(
        6,
        taken.token() > token,
        "the token of {before:?} was not raised: {taken:?}"
    );
    law!(
        6,
        taken.node() == Some(&new.node),
        "another node has {taken:?}"
    );
    let (was, is) = (before.operation().state(), taken.operation().state());
    law!(6, is == was, "reclaiming changed {was} to {is}");
    law!(
        6,
        taken.attempts() == 1,
        "reclaiming does not start: {taken:?}"
    );
    assert_follows(&before, &taken, "reclaiming");
    assert_unchanged(6, store, &taken, "reading").await;

    let what = "a late write of a holder that lost its lease";
    lost(6, ok(store.start(id, token).await), what);
    lost(
        6,
        ok(store
            .report(id, token, Progress::from_message("late"))
            .await),
        what,
    );
    lost(
        6,
        ok(store.finish(id, token, success("late"), None).await),
        what,
    );
    ok(store.release(&[held(&before)]).await);
    let again = try_to_take(store, &lease(LONG), std::slice::from_ref(id)).await;
    law!(
        6,
        again.is_empty(),
        "a holder that lost its lease gave it up: {again:?}"
    );
    assert_unchanged(6, store, &taken, what).await;

    let started = start(store, &taken).await;
    law!(
        6,
        started.attempts() == 2,
        "a second start was not counted: {started:?}"
    );
    assert_follows(&taken, &started, "a second start");
    let ended = finish(store, &started).await;
    let what = "a late outcome of a holder that lost its lease";
    lost(
        6,
        ok(store.finish(id, token, success("done"), None).await),
        what,
    );
    assert_unchanged(6, store, &ended, what).await;
}

pub(super) async fn a_renewed_lease_is_not<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(TERM);
    let record = held_by(store, &mine).await;
    let id = [record.operation().id().clone()];
    let mut since = Stopwatch::start();
    for _ in 0..8 {
        let renewal = Stopwatch::start();
        let lost = ok(store.renew(&mine, &[held(&record)]).await);
        if since.elapsed() >= TERM {
            return; // too slow a machine proves nothing
        }
        law!(6, lost.is_empty(), "renewing lost {lost:?}, which was held");
        since = renewal;
        sleep(TERM / 4).await;
        let taken = try_to_take(store, &lease(LONG), &id).await;
        if since.elapsed() >= TERM {
            return;
        }
        law!(
            6,
            taken.is_empty(),
            "a lease was reclaimed that had been renewed: {taken:?}"
        );
    }
    assert_unchanged(6, store, &record, "renewing").await;
    sleep(TERM).await;
    take(store, &lease(LONG), &record).await;
}

pub(super) async fn renewing_names_reclaimed_leases<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let (old, new) = (lease(TERM), lease(LONG));
    let before = held_by(store, &old).await;
    sleep(TERM).await;
    let taken = take(store, &new, &before).await;
    let lost = ok(store.renew(&old, &[held(&before)]).await);
    law!(
        6,
        lost == [held(&before)],
        "renewing a reclaimed lease lost {lost:?}"
    );
    let lost = ok(store.renew(&new, &[held(&taken)]).await);
    law!(
        6,
        lost.is_empty(),
        "renewing its reclaimed lease lost {lost:?}"
    );
    assert_unchanged(6, store, &taken, "renewing").await;
}

pub(super) async fn a_released_lease_is_reclaimed_at_once<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(LONG);
    let (record, kept) = (held_by(store, &mine).await, held_by(store, &mine).await);
    let wrong = LeaseHandle {
        token: no_token(),
        ..held(&kept)
    };
    let unknown = LeaseHandle {
        id: OperationId::new(),
        ..held(&kept)
    };
    ok(store.release(&[wrong, held(&record), unknown]).await);
    ok(store.release(&[]).await);
    let by = lease(LONG);
    let taken = take(store, &by, &record).await;
    law!(
        6,
        taken.token() > record.token(),
        "the token of {record:?} was not raised: {taken:?}"
    );
    let id = [kept.operation().id().clone()];
    let taken = try_to_take(store, &by, &id).await;
    law!(
        6,
        taken.is_empty(),
        "another holder released the lease on {taken:?}"
    );
    assert_unchanged(6, store, &kept, "a release by another holder").await;
}

/// A holder that is merely silent may still be alive.
pub(super) async fn only_released_operations_count_as_released<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let (kept, lapsed) = (
        held_by(store, &lease(LONG)).await,
        held_by(store, &lease(TERM)).await,
    );
    let ended = held_by(store, &lease(LONG)).await;
    ok(store.release(&[held(&ended)]).await);
    let ended = finish(store, &ended).await;
    sleep(TERM * 2).await;
    for record in [&kept, &lapsed, &ended] {
        let taken = ok(store.reclaim_released(&lease(LONG), 100).await);
        let id = record.operation().id();
        let is_taken = taken
            .iter()
            .any(|taken| taken.record.operation().id() == id);
        law!(
            6,
            !is_taken,
            "an operation that was not released was reclaimed as released: {record:?}"
        );
        assert_unchanged(6, store, record, "reclaiming released operations").await;
    }
    // The expired lease can still be reclaimed by its expiry.
    take(store, &lease(LONG), &lapsed).await;
}

pub(super) async fn released_operations_count_as_released<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(LONG);
    let mut records = Vec::new();
    for _ in 0..4 {
        records.push(held_by(store, &mine).await);
    }
    let given_up: Vec<LeaseHandle> = records.iter().map(held).collect();
    ok(store.release(&given_up).await);
    let none = ok(store.reclaim_released(&lease(LONG), 0).await);
    law!(
        6,
        none.is_empty(),
        "asked for none, {none:?} were reclaimed"
    );
    let by = lease(LONG);
    let mut taken = Vec::new();
    loop {
        let some = ok(store.reclaim_released(&by, 3).await);
        law!(
            6,
            some.len() <= 3,
            "asked for 3, {} were reclaimed",
            some.len()
        );
        if some.is_empty() {
            break;
        }
        taken.extend(some.into_iter().map(|taken| taken.record));
    }
    for record in &records {
        let id = record.operation().id();
        let Some(taken) = taken.iter().find(|it| it.operation().id() == id) else {
            panic!("law 6: a released operation is not reclaimed: {record:?}");
        };
        law!(
            6,
            taken.token() > record.token() && taken.node() == Some(&by.node),
            "the holder of {record:?} is not another: {taken:?}"
        );
        let what = "a late write of a holder that released its lease";
        let late = store.finish(id, record.token(), success("late"), None);
        lost(6, ok(late.await), what);
        assert_unchanged(6, store, taken, what).await;
    }
}

/// A renewal on its way may arrive after the release.
pub(super) async fn released_leases_are_not_renewed<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(LONG);
    let (kept, given_up) = (held_by(store, &mine).await, held_by(store, &mine).await);
    ok(store.release(&[held(&given_up)]).await);
    let lost = ok(store.renew(&mine, &[held(&kept), held(&given_up)]).await);
    law!(
        6,
        lost == [held(&given_up)],
        "renewing one that is held and one that was released named {lost:?} as lost"
    );
    let taken = ok(store.reclaim_released(&lease(LONG), 100).await);
    let is_taken = |record: &Seen| {
        let id = record.operation().id();
        taken.iter().any(|it| it.record.operation().id() == id)
    };
    law!(
        6,
        is_taken(&given_up),
        "a lease that was released was renewed: {given_up:?}"
    );
    law!(6, !is_taken(&kept), "it was not released: {kept:?}");
}

pub(super) async fn ended_operations_are_not_reclaimed<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(TERM);
    let ended = finish(store, &held_by(store, &mine).await).await;
    ok(store.release(&[held(&ended)]).await);
    sleep(TERM * 2).await;
    let id = [ended.operation().id().clone()];
    let taken = try_to_take(store, &lease(LONG), &id).await;
    law!(
        3,
        taken.is_empty(),
        "an ended operation was reclaimed: {taken:?}"
    );
    assert_unchanged(3, store, &ended, "time").await;
}

/// Checks that the request also comes along at the second and third reclaim.
pub(super) async fn a_reclaimed_operation_has_its_request<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let everything: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for request in [None, Some(Bytes::new()), Some(everything.into())] {
        let holder = lease(LONG);
        let new = NewOperation::new(OperationId::new())
            .with_lease(holder.clone())
            .with_request(request.clone());
        let mut record = create(store, new).await;
        for _ in 0..3 {
            ok(store.release(&[held(&record)]).await);
            let what = "reclaiming released operations";
            let taken = in_time(6, what, async {
                loop {
                    let taken = ok(store.reclaim(&holder, 100).await);
                    let is_it = |taken: &Reclaimed<_>| {
                        taken.record.operation().id() == record.operation().id()
                    };
                    if let Some(taken) = taken.into_iter().find(is_it) {
                        return taken;
                    }
                    sleep(TERM / 8).await;
                }
            })
            .await;
            let (was, is) = (request.as_deref(), taken.request.as_deref());
            law!(
                6,
                was == is,
                "a request of {:?} bytes came back with {:?}",
                was.map(<[u8]>::len),
                is.map(<[u8]>::len)
            );
            record = taken.record;
        }
    }
}

pub(super) async fn taking_over_is_bounded<R>(store: &R)
where
    R: Lease<Output = RecordedResponse>,
{
    let mine = lease(LONG);
    let mut abandoned = Vec::new();
    for _ in 0..8 {
        abandoned.push(held(&held_by(store, &mine).await));
    }
    ok(store.release(&abandoned).await);
    for limit in [0, 3] {
        let taken = ok(store.reclaim(&lease(LONG), limit).await);
        law!(
            6,
            taken.len() <= limit,
            "asked for {limit}, {} were reclaimed",
            taken.len()
        );
    }
}
