//! Law 6: the holder of an operation, and reclaims.

mod claiming;
mod holding;
mod racing;
mod reclaiming;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tower_operations::{
    operation::{OperationId, RecordedResponse},
    store::{Lease, LeaseConfig, LeaseHandle, NewOperation, NodeId},
};

use super::subject::{Seen, create, in_time, law, ok, start, unique};

/// The term of a lease that is to expire.
const TERM: Duration = Duration::from_millis(200);

/// Checks leases as far as one node alone can see.
pub(super) async fn check_holding<R: Lease<Output = RecordedResponse>>(store: &Arc<R>) {
    holding::a_lease_is_not_taken_over_while_it_lasts(&**store).await;
    holding::renewing_names_what_is_lost(&**store).await;
    holding::renewing_changes_nothing(&**store).await;
    holding::a_forced_finish_revokes(store).await;
    holding::nothing_recalls_for_nothing(&**store).await;
}

/// Checks reclaims.
pub(super) async fn check_reclaiming<R: Lease<Output = RecordedResponse>>(store: &Arc<R>) {
    reclaiming::an_expired_lease_is_reclaimed(&**store).await;
    reclaiming::a_reclaimed_operation_has_its_request(&**store).await;
    reclaiming::a_renewed_lease_is_not(&**store).await;
    reclaiming::renewing_names_reclaimed_leases(&**store).await;
    reclaiming::a_released_lease_is_reclaimed_at_once(&**store).await;
    reclaiming::only_released_operations_count_as_released(&**store).await;
    reclaiming::ended_operations_are_not_reclaimed(&**store).await;
    reclaiming::taking_over_is_bounded(&**store).await;
    claiming::a_claimed_operation_has_another_holder(&**store).await;
    claiming::of_many_claims_one_succeeds(store).await;
    claiming::a_claim_lasts_for_the_term_of_the_claimant(&**store).await;
    racing::one_node_takes_over(store).await;
    racing::one_of_reclaiming_and_ending_wins(store).await;
}

/// Checks that released leases are distinguished from expired ones.
pub(super) async fn check_releasing<R: Lease<Output = RecordedResponse>>(store: &Arc<R>) {
    reclaiming::released_operations_count_as_released(&**store).await;
    reclaiming::released_leases_are_not_renewed(&**store).await;
}

fn node() -> NodeId {
    NodeId::named(unique())
}

fn lease(term: Duration) -> LeaseConfig {
    LeaseConfig::new(node(), term)
}

fn held(record: &Seen) -> LeaseHandle {
    LeaseHandle::new(record.operation().id().clone(), record.token())
}

/// Creates a running operation with this lease.
async fn held_by<R>(store: &R, lease: &LeaseConfig) -> Seen
where
    R: Lease<Output = RecordedResponse>,
{
    let new = NewOperation::new(OperationId::new()).with_lease(lease.clone());
    let pending = create(store, new).await;
    law!(
        6,
        pending.node() == Some(&lease.node),
        "it is not its creator who holds {pending:?}"
    );
    start(store, &pending).await
}

/// Reclaims expired leases, and returns the wanted operations among them.
async fn try_to_take<R>(store: &R, by: &LeaseConfig, wanted: &[OperationId]) -> Vec<Seen>
where
    R: Lease<Output = RecordedResponse>,
{
    let taken = ok(store.reclaim(by, 100).await);
    let records = taken.into_iter().map(|taken| taken.record);
    records
        .filter(|record| wanted.contains(record.operation().id()))
        .collect()
}

/// Reclaims an operation whose lease has expired.
async fn take<R>(store: &R, by: &LeaseConfig, record: &Seen) -> Seen
where
    R: Lease<Output = RecordedResponse>,
{
    let id = record.operation().id();
    let what = "reclaiming an operation with an expired lease";
    in_time(6, what, async {
        loop {
            if let Some(taken) = try_to_take(store, by, std::slice::from_ref(id)).await.pop() {
                return taken;
            }
            // Clocks may differ a little.
            sleep(TERM / 8).await;
        }
    })
    .await
}
