//! The laws of the store traits: every store of the crate keeps the laws, and the
//! checks detect a store that breaks one.

#[path = "conformance/table.rs"]
mod table;

/// The store of the documentation.
#[allow(unreachable_pub)]
mod custom_store {
    include!("../../../src/store/custom_store.rs");
}

/// The engine of the documentation.
#[allow(unreachable_pub)]
mod map_engine {
    include!("../../../src/engine/map_engine.rs");
}

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_operations::{
    MemoryStore, OperationId, RecordedResponse,
    engine::EngineStore,
    store::{
        AnyStore, Change, Lease, LeaseConfig, LeaseHandle, NewOperation, NodeId, Polling, Record,
        Repository, RepositoryFn, SingleNode, StoreError,
    },
};
use tower_operations_conformance::{self as conformance, Nodes};

use self::{
    custom_store::MapStore,
    map_engine::MapEngine,
    table::{Fault, Table},
};

const OFTEN: Duration = Duration::from_millis(5);

async fn memory(ttl: Duration) -> MemoryStore {
    MemoryStore::new().ttl(ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_keeps_the_laws() {
    conformance::all(memory).await;
    conformance::released_lease(memory).await;
}

#[tokio::test(start_paused = true)]
async fn the_memory_store_keeps_the_laws_on_one_thread() {
    conformance::all(memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clones_of_a_memory_store_keep_the_laws() {
    conformance::all(async |ttl| {
        let store = memory(ttl).await;
        Nodes::new([store.clone(), store.clone(), store])
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_populated_memory_store_keeps_the_laws() {
    let store = MemoryStore::new();
    conformance::all(async |ttl| store.clone().ttl(ttl)).await;
}

#[tokio::test(start_paused = true)]
async fn an_erased_store_keeps_the_laws() {
    conformance::all(async |ttl| AnyStore::new(memory(ttl).await)).await;
}

#[tokio::test(start_paused = true)]
async fn a_polling_store_keeps_the_laws() {
    conformance::all(async |ttl| AnyStore::new(Polling::new(memory(ttl).await, OFTEN))).await;
    let erased = async |ttl| AnyStore::new(Polling::new(memory(ttl).await, OFTEN));
    conformance::released_lease(erased).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_table_keeps_the_laws() {
    conformance::all(async |ttl| Table::new(ttl)).await;
}

#[tokio::test(start_paused = true)]
async fn a_table_keeps_the_laws_on_one_thread() {
    conformance::all(async |ttl| Table::new(ttl)).await;
    conformance::released_lease(async |ttl| Table::new(ttl)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_documented_store_keeps_the_laws_of_its_traits() {
    conformance::repository(async |ttl| MapStore::new(ttl)).await;
    conformance::watch(async |ttl| Polling::new(MapStore::new(ttl), OFTEN)).await;
    conformance::single_node_lease(async |ttl| SingleNode::new(MapStore::new(ttl))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_documented_engine_keeps_the_laws_of_its_traits() {
    let store = async |ttl| EngineStore::new(MapEngine::default()).ttl(ttl);
    conformance::repository(store).await;
    conformance::watch(store).await;
    conformance::lease(store).await;
    conformance::released_lease(store).await;
    conformance::purge(store).await;
}

/// Returns a store of two closures over a map.
fn closures(ttl: Duration) -> impl Repository<Output = RecordedResponse> {
    type Rows = Mutex<HashMap<OperationId, Record<RecordedResponse>>>;
    let rows: Arc<Rows> = Arc::default();
    let table = Arc::clone(&rows);
    let read = move |id: OperationId| {
        let row = table.lock().unwrap().get(&id).cloned();
        async move {
            // Lets other tasks run between the read and the write.
            tokio::task::yield_now().await;
            Ok::<_, StoreError>(row)
        }
    };
    let write = move |change: Change<RecordedResponse>| {
        let mut rows = rows.lock().unwrap();
        let current = rows.get(&change.id).and_then(Record::stamp);
        let matches = current == change.expected;
        if matches {
            match change.record {
                Some(record) => rows.insert(change.id, record),
                None => rows.remove(&change.id),
            };
        }
        async move { Ok::<_, StoreError>(matches) }
    };
    RepositoryFn::new(read, write).ttl(ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closures_keep_the_laws_of_a_repository() {
    conformance::repository(async |ttl| closures(ttl)).await;
    conformance::watch(async |ttl| Polling::new(closures(ttl), OFTEN)).await;
    conformance::single_node_lease(async |ttl| SingleNode::new(closures(ttl))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wrapped_closures_keep_the_laws() {
    let complete = async |ttl| SingleNode::new(Polling::new(closures(ttl), OFTEN));
    conformance::repository(complete).await;
    conformance::watch(complete).await;
    conformance::single_node_lease(complete).await;
}

/// Law 9.
#[tokio::test]
async fn errors_keep_their_source_and_transience() {
    use std::error::Error;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is on fire")]
    struct OnFire;

    let read =
        |_| async { Err::<Option<Record<RecordedResponse>>, _>(StoreError::refused(OnFire)) };
    let write = |_: Change<RecordedResponse>| async { Err::<bool, _>(OnFire) };
    let store = RepositoryFn::new(read, write);
    let error = store
        .create(NewOperation::new(OperationId::new()))
        .await
        .unwrap_err();
    assert!(!error.is_transient(), "a refusal is permanent");
    assert!(error.source().unwrap().is::<OnFire>());

    let read = |_| async { Ok::<Option<Record<RecordedResponse>>, OnFire>(None) };
    let store = RepositoryFn::new(read, write);
    let error = store
        .create(NewOperation::new(OperationId::new()))
        .await
        .unwrap_err();
    assert!(
        error.is_transient(),
        "an unclassified error counts as transient"
    );
    assert!(error.source().unwrap().is::<OnFire>());
    assert!(
        !error.to_string().contains("fire"),
        "the message must not contain the source"
    );

    assert!(StoreError::Full.is_transient());
}

/// Returns the message of a panic.
fn panic_message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

/// Defines one test for each fault: the named part of the checks detects the fault and
/// names the law.
macro_rules! broken {
    ($($name:ident: $part:ident, $fault:ident, $law:literal;)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let make = |ttl| async move { Table::breaking(Fault::$fault, ttl) };
                let error = tokio::spawn(conformance::$part(make))
                    .await
                    .expect_err("the fault was not detected");
                assert!(error.is_panic());
                let message = panic_message(error.into_panic());
                let law = concat!($law, ": ");
                assert!(message.contains(law), "{law:?} is not in {message:?}");
            }
        )*
    };
}

broken! {
    an_overwriting_create_is_detected: repository, CreateOverwrites, "law 1";
    a_create_for_another_owner_is_detected: repository, CreateIgnoresTheOwner, "law 1";
    a_racing_create_is_detected: repository, CreateIsNotAtomic, "law 1";
    a_late_read_is_detected: repository, CreateIsSeenLate, "law 1";
    a_lost_owner_is_detected: repository, CreateLosesTheOwner, "law 1";
    a_lost_start_is_detected: repository, CreateLosesTheStart, "law 1";
    differing_reads_are_detected: repository, GetNowIsStale, "law 1";
    results_for_other_owners_are_detected: repository, ResultsIgnoreTheOwner, "law 7";
    case_insensitive_ids_are_detected: repository, IdsLoseTheirCase, "law 1";
    a_place_that_ignores_its_holder_is_detected: repository, PlacesIgnoreTheToken, "law 2";
    a_place_that_is_new_twice_is_detected: repository, PlacesAreCreatedTwice, "law 1";
    a_place_that_loses_its_outcome_is_detected: repository, PlacesLoseTheOutcome, "law 2";
    a_place_that_loses_its_start_is_detected: repository, PlacesLoseTheStart, "law 1";

    a_start_without_the_token_is_detected: repository, StartIgnoresTheToken, "law 2";
    progress_without_the_token_is_detected: repository, ReportIgnoresTheToken, "law 2";
    a_finish_without_the_token_is_detected: repository, FinishIgnoresTheToken, "law 2";
    a_forced_finish_of_any_version_is_detected: repository, ForceFinishIgnoresTheVersion, "law 2";
    a_forced_finish_of_a_later_operation_is_detected: repository, ForceFinishIgnoresTheToken, "law 2";
    a_forced_finish_that_keeps_the_holder_is_detected: repository, ForceFinishKeepsTheHolder, "law 3";
    a_delete_of_any_version_is_detected: repository, DeleteIgnoresTheVersion, "law 2";
    a_delete_of_a_later_operation_is_detected: repository, DeleteIgnoresTheToken, "law 2";
    a_delete_of_a_live_operation_is_detected: repository, DeleteTakesLiveOperations, "law 2";
    an_overwritten_outcome_is_detected: repository, OutcomesAreOverwritten, "law 3";
    constant_versions_are_detected: repository, VersionsAreConstant, "law 4";
    skipped_versions_are_detected: repository, VersionsSkip, "law 4";
    racing_changes_are_detected: repository, ChangesAreNotAtomic, "law 4";
    recounted_starts_are_detected: repository, StartsAreCountedAgain, "law 2";
    a_refused_repeated_finish_is_detected: repository, RepeatedFinishesAreLost, "law 2";
    a_new_version_for_repeated_progress_is_detected: repository, RepeatedReportsAreChanges, "law 2";
    lost_final_progress_is_detected: repository, LastProgressIsLost, "law 2";

    reordered_headers_are_detected: repository, HeadersAreSorted, "law 7";
    lost_repeated_headers_are_detected: repository, RepeatedHeadersAreLost, "law 7";
    headers_converted_to_text_are_detected: repository, HeadersBecomeUtf8, "law 7";
    lost_trailers_are_detected: repository, TrailersAreLost, "law 7";
    bodies_converted_to_text_are_detected: repository, BodiesBecomeUtf8, "law 7";
    truncated_bodies_are_detected: repository, BodiesAreCut, "law 7";
    long_bodies_cut_for_readers_of_short_ones_are_detected: repository, LongBodiesAreCut, "law 7";
    long_results_hidden_from_readers_of_short_ones_are_detected: repository, LongResultsAreHidden, "law 7";
    rounded_statuses_are_detected: repository, StatusesAreRounded, "law 7";
    lost_problem_extensions_are_detected: repository, ProblemsLoseTheirExtensions, "law 2";
    kinds_derived_from_problems_are_detected: repository, KindsAreReadFromProblems, "law 2";
    a_lost_cancel_reason_is_detected: repository, CancelReasonsAreLost, "law 2";

    a_readable_expired_operation_is_detected: repository, ExpiredIsReadable, "law 8";
    an_id_blocked_by_an_expired_operation_is_detected: repository, ExpiredBlocksItsId, "law 1";
    expiry_counted_from_creation_is_detected: repository, ExpiresFromCreation, "law 8";
    expiry_of_a_live_operation_is_detected: repository, LiveExpires, "law 8";

    a_late_subscription_is_detected: watch, WaitsSubscribeLate, "law 5";
    a_wait_that_misses_changes_is_detected: watch, WaitsMissChanges, "law 5";
    a_late_time_out_is_detected: watch, WaitsTimeOutLate, "law 5";
    an_early_time_out_is_detected: watch, WaitsTimeOutEarly, "law 5";
    progress_without_a_wake_up_is_detected: watch, ProgressWakesNoWaiter, "law 5";
    a_delete_without_a_wake_up_is_detected: watch, DeleteWakesNoWaiter, "law 5";
    a_lost_history_is_detected: watch, HistoryIsLost, "law 5";

    a_reclaim_of_a_held_lease_is_detected: lease, LeasesAreIgnored, "law 6";
    a_reclaim_without_a_higher_token_is_detected: lease, ReclaimKeepsTheToken, "law 6";
    a_reclaim_without_a_new_version_is_detected: lease, ReclaimKeepsTheVersion, "law 4";
    a_racing_reclaim_is_detected: lease, ReclaimIsNotAtomic, "law 6";
    a_reclaim_over_the_limit_is_detected: lease, ReclaimIgnoresTheLimit, "law 6";
    a_claim_without_the_token_is_detected: lease, ClaimsIgnoreTheToken, "law 6";
    a_claim_that_keeps_the_token_is_detected: lease, ClaimsKeepTheToken, "law 6";
    a_racing_claim_is_detected: lease, ClaimsAreNotAtomic, "law 6";
    a_claim_without_a_new_term_is_detected: lease, ClaimsKeepTheTerm, "law 6";
    a_reclaim_without_a_new_term_is_detected: lease, ReclaimKeepsTheTerm, "law 6";
    a_reclaim_of_an_ended_operation_is_detected: lease, ReclaimTakesEndedOperations, "law 3";
    a_reclaim_without_the_request_is_detected: lease, ReclaimLosesTheRequest, "law 6";
    a_renewal_that_reports_no_loss_is_detected: lease, RenewReportsNoLoss, "law 6";
    a_renewal_without_an_extension_is_detected: lease, RenewExtendsNothing, "law 6";
    a_new_version_for_a_renewal_is_detected: lease, RenewIsAChange, "law 4";
    a_renewal_without_the_token_is_detected: lease, RenewIgnoresTheToken, "law 6";
    a_release_without_the_token_is_detected: lease, ReleaseIgnoresTheToken, "law 6";
    a_release_without_effect_is_detected: lease, ReleaseDoesNothing, "law 6";
    a_renewal_of_a_released_lease_is_detected: released_lease, RenewIgnoresTheRelease, "law 6";
    a_lost_revocation_is_detected: lease, RevocationsAreLost, "law 6";
    a_revocation_for_another_node_is_detected: lease, RevocationsReachEveryNode, "law 6";
    a_lost_revocation_on_a_single_node_is_detected: single_node_lease, RevocationsAreLost, "law 6";

    an_ignored_key_is_detected: keys, KeysAreIgnored, "law 1";
    an_ignored_fingerprint_is_detected: keys, FingerprintsAreIgnored, "law 1";
    an_ignored_owner_of_a_key_is_detected: keys, OwnersOfKeysAreIgnored, "law 1";
    colliding_owners_and_keys_are_detected: keys, OwnersAndKeysCollide, "law 1";
    a_collision_of_unowned_and_owned_keys_is_detected: keys, UnownedAndOwnedKeysCollide, "law 1";
    a_reservation_of_another_owner_is_detected: keys, ReservationsIgnoreTheOwner, "law 1";
    a_key_stored_for_a_taken_id_is_detected: keys, KeysAreTakenBeforeTheId, "law 1";
    a_deleted_operation_under_its_key_is_detected: keys, DeletedIsReturned, "law 1";
    an_ignored_reservation_is_detected: keys, ReservationsAreIgnored, "law 1";
    a_reservation_without_expiry_is_detected: keys, ReservationsNeverExpire, "law 1";
    a_reservation_without_renewal_is_detected: keys, ReservationsAreNotRenewed, "law 1";
    a_racing_reservation_is_detected: keys, ReserveIsNotAtomic, "law 1";
    a_completion_without_the_token_is_detected: keys, CompleteIgnoresTheToken, "law 1";
    a_key_release_without_the_token_is_detected: keys, ReleaseKeyIgnoresTheToken, "law 1";
    reused_key_tokens_are_detected: keys, KeyTokensAreReused, "law 1";
    a_key_deleted_with_its_operation_is_detected: keys, KeysAreDeleted, "law 1";
    a_key_without_expiry_is_detected: keys, KeysNeverExpire, "law 8";
    a_lost_early_response_is_detected: keys, EarlyResponsesAreLost, "law 1";

    a_list_of_other_owners_is_detected: list, ListIgnoresTheOwner, "listing";
    an_oldest_first_list_is_detected: list, ListsTheOldestFirst, "listing";
    an_offset_list_is_detected: list, ListsByOffset, "listing";
    an_ignored_state_filter_is_detected: list, ListIgnoresTheState, "listing";
    a_truncated_state_filter_is_detected: list, ListTakesTheFirstState, "listing";
    a_list_over_the_limit_is_detected: list, ListIgnoresTheLimit, "listing";
    a_list_of_expired_operations_is_detected: list, ListsExpiredOperations, "law 8";
    an_endless_list_is_detected: list, ListHasNoEnd, "listing";
    a_truncated_list_is_detected: list, ListEndsEarly, "listing";
    a_numeric_cursor_is_detected: list, CursorsAreNumbers, "law 9";
    a_sequential_cursor_is_detected: list, CursorsCount, "listing";
    a_cursor_of_another_owner_is_detected: list, CursorsIgnoreTheOwner, "law 9";
    a_cursor_of_other_states_is_detected: list, CursorsIgnoreTheState, "law 9";
    an_unchecked_cursor_is_detected: list, CursorsAreUnchecked, "law 9";
    a_transient_cursor_error_is_detected: list, CursorErrorsAreTransient, "law 9";

    a_purge_of_live_operations_is_detected: purge, PurgeTakesLiveOperations, "law 8";
    a_purge_of_unexpired_operations_is_detected: purge, PurgeTakesUnexpiredOperations, "law 8";
    a_purge_over_the_limit_is_detected: purge, PurgeIgnoresTheLimit, "law 8";
}

/// Asserts that `released` completes at once on a release, and not before one.
async fn assert_release_notifies<R: Repository + Lease>(store: &R) {
    let lease = LeaseConfig::new(NodeId::new(), Duration::from_secs(60));
    let new = NewOperation::new(OperationId::new()).with_lease(lease);
    let held = LeaseHandle::new(new.id.clone(), new.token);
    store.create(new).await.unwrap();
    let mut released = std::pin::pin!(store.released());
    let second = Duration::from_secs(1);
    let before = tokio::time::timeout(second, released.as_mut()).await;
    assert!(before.is_err(), "nothing was released");
    store.release(&[held]).await.unwrap();
    let notified = tokio::time::timeout(second, released).await;
    assert!(notified.is_ok(), "`released` did not complete");
}

#[tokio::test(start_paused = true)]
async fn store_wrappers_forward_releases() {
    let store = MemoryStore::new();
    assert_release_notifies(&store).await;
    assert_release_notifies(&AnyStore::new(store.clone())).await;
    assert_release_notifies(&Polling::new(store.clone(), OFTEN)).await;
    assert_release_notifies(&AnyStore::new(Polling::new(store.clone(), OFTEN))).await;
    assert_release_notifies(&Nodes::new([store.clone(), store])).await;
}
