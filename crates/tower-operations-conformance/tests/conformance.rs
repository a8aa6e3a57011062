//! The laws of the store traits: every store of the crate keeps them, and the
//! checks notice when one is broken.

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
async fn the_memory_store_keeps_every_law() {
    conformance::all(memory).await;
    conformance::released_lease(memory).await;
}

#[tokio::test(start_paused = true)]
async fn the_memory_store_keeps_every_law_on_one_thread() {
    conformance::all(memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clones_of_the_memory_store_keep_every_law_together() {
    conformance::all(async |ttl| {
        let store = memory(ttl).await;
        Nodes::new([store.clone(), store.clone(), store])
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_memory_store_keeps_every_law_whatever_is_in_it() {
    let store = MemoryStore::new();
    conformance::all(async |ttl| store.clone().ttl(ttl)).await;
}

#[tokio::test(start_paused = true)]
async fn an_erased_store_keeps_every_law() {
    conformance::all(async |ttl| AnyStore::new(memory(ttl).await)).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_completed_by_polling_keeps_every_law() {
    conformance::all(async |ttl| AnyStore::new(Polling::new(memory(ttl).await, OFTEN))).await;
    let erased = async |ttl| AnyStore::new(Polling::new(memory(ttl).await, OFTEN));
    conformance::released_lease(erased).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plain_table_keeps_every_law() {
    conformance::all(async |ttl| Table::new(ttl)).await;
}

#[tokio::test(start_paused = true)]
async fn a_plain_table_keeps_every_law_on_one_thread() {
    conformance::all(async |ttl| Table::new(ttl)).await;
    conformance::released_lease(async |ttl| Table::new(ttl)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_of_the_documentation_keeps_the_laws_of_its_powers() {
    conformance::repository(async |ttl| MapStore::new(ttl)).await;
    conformance::watch(async |ttl| Polling::new(MapStore::new(ttl), OFTEN)).await;
    conformance::single_node_lease(async |ttl| SingleNode::new(MapStore::new(ttl))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_engine_of_the_documentation_keeps_the_laws_of_its_powers() {
    let store = async |ttl| EngineStore::new(MapEngine::default()).ttl(ttl);
    conformance::repository(store).await;
    conformance::watch(store).await;
    conformance::lease(store).await;
    conformance::released_lease(store).await;
    conformance::purge(store).await;
}

/// A store made of two closures over a map.
fn closures(ttl: Duration) -> impl Repository<Output = RecordedResponse> {
    type Rows = Mutex<HashMap<OperationId, Record<RecordedResponse>>>;
    let rows: Arc<Rows> = Arc::default();
    let table = Arc::clone(&rows);
    let read = move |id: OperationId| {
        let row = table.lock().unwrap().get(&id).cloned();
        async move {
            // Gives the others a chance to come in between.
            tokio::task::yield_now().await;
            Ok::<_, StoreError>(row)
        }
    };
    let write = move |change: Change<RecordedResponse>| {
        let mut rows = rows.lock().unwrap();
        let current = rows.get(&change.id).and_then(Record::version);
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
async fn a_store_made_of_closures_keeps_the_laws_of_its_powers() {
    conformance::repository(async |ttl| closures(ttl)).await;
    conformance::watch(async |ttl| Polling::new(closures(ttl), OFTEN)).await;
    conformance::single_node_lease(async |ttl| SingleNode::new(closures(ttl))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_made_of_closures_keeps_them_when_it_is_completed() {
    let complete = async |ttl| SingleNode::new(Polling::new(closures(ttl), OFTEN));
    conformance::repository(complete).await;
    conformance::watch(complete).await;
    conformance::single_node_lease(complete).await;
}

/// Law 9.
#[tokio::test]
async fn errors_keep_their_source_and_whether_trying_again_helps() {
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
    assert!(!error.is_transient(), "a refusal stays one");
    assert!(error.source().unwrap().is::<OnFire>());

    let read = |_| async { Ok::<Option<Record<RecordedResponse>>, OnFire>(None) };
    let store = RepositoryFn::new(read, write);
    let error = store
        .create(NewOperation::new(OperationId::new()))
        .await
        .unwrap_err();
    assert!(error.is_transient(), "of any other error it is not known");
    assert!(error.source().unwrap().is::<OnFire>());
    assert!(
        !error.to_string().contains("fire"),
        "the source is not for clients"
    );

    assert!(StoreError::Full.is_transient());
}

/// What a check says when it panics.
fn said(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

/// A test each: the part of the checks that looks for it notices the fault, and
/// names the law.
macro_rules! broken {
    ($($name:ident: $part:ident, $fault:ident, $law:literal;)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let make = |ttl| async move { Table::breaking(Fault::$fault, ttl) };
                let error = tokio::spawn(conformance::$part(make))
                    .await
                    .expect_err("the fault was not noticed");
                assert!(error.is_panic());
                let said = said(error.into_panic());
                let law = concat!($law, ": ");
                assert!(said.contains(law), "{law:?} is not in {said:?}");
            }
        )*
    };
}

broken! {
    creating_over_an_operation_is_noticed: repository, CreateOverwrites, "law 1";
    giving_an_operation_to_another_owner_is_noticed: repository, CreateGivesAway, "law 1";
    creating_twice_at_the_same_moment_is_noticed: repository, CreateIsNotAtomic, "law 1";
    an_operation_that_is_seen_late_is_noticed: repository, CreateIsSeenLate, "law 1";
    an_owner_that_is_lost_is_noticed: repository, CreateLosesTheOwner, "law 1";
    a_start_that_is_lost_at_creating_is_noticed: repository, CreateForgetsTheStart, "law 1";
    two_ways_to_read_that_differ_are_noticed: repository, GetNowIsBehind, "law 1";
    results_that_everybody_reads_are_noticed: repository, ResultsAreForEverybody, "law 7";
    ids_that_lose_their_case_are_noticed: repository, IdsLoseTheirCase, "law 1";
    writes_that_wait_although_they_never_do_are_noticed: repository, WaitsAllTheSame, "never waits";

    a_start_by_anybody_is_noticed: repository, StartIgnoresTheToken, "law 2";
    progress_by_anybody_is_noticed: repository, ReportIgnoresTheToken, "law 2";
    a_finish_by_anybody_is_noticed: repository, FinishIgnoresTheToken, "law 2";
    overruling_any_version_is_noticed: repository, OverruleIgnoresTheVersion, "law 2";
    overruling_that_leaves_the_holder_in_is_noticed: repository, OverruleLeavesTheHolderIn, "law 3";
    forgetting_any_version_is_noticed: repository, ForgetIgnoresTheVersion, "law 2";
    forgetting_what_is_live_is_noticed: repository, ForgetTakesWhatIsLive, "law 2";
    an_end_that_can_be_overwritten_is_noticed: repository, EndsAreOverwritten, "law 3";
    versions_that_do_not_grow_are_noticed: repository, VersionsStand, "law 4";
    versions_that_skip_are_noticed: repository, VersionsSkip, "law 4";
    changes_that_are_not_atomic_are_noticed: repository, ChangesAreNotAtomic, "law 4";
    starts_that_count_again_are_noticed: repository, StartsAreCountedAgain, "law 2";
    a_repeated_finish_that_is_refused_is_noticed: repository, RepeatedFinishesAreLost, "law 2";
    repeated_progress_that_is_a_change_is_noticed: repository, RepeatedReportsAreChanges, "law 2";
    progress_that_is_lost_at_the_end_is_noticed: repository, LastProgressIsLost, "law 2";

    headers_in_another_order_are_noticed: repository, HeadersAreSorted, "law 7";
    repeated_headers_that_are_lost_are_noticed: repository, RepeatedHeadersAreLost, "law 7";
    headers_that_became_text_are_noticed: repository, HeadersBecomeUtf8, "law 7";
    trailers_that_are_lost_are_noticed: repository, TrailersAreLost, "law 7";
    bodies_that_became_text_are_noticed: repository, BodiesBecomeUtf8, "law 7";
    bodies_that_are_cut_are_noticed: repository, BodiesAreCut, "law 7";
    statuses_that_are_rounded_are_noticed: repository, StatusesAreRounded, "law 7";
    problems_without_their_extensions_are_noticed: repository, ProblemsLoseTheirExtensions, "law 2";
    kinds_that_are_read_from_problems_are_noticed: repository, KindsAreReadFromProblems, "law 2";
    a_cancel_without_its_reason_is_noticed: repository, ReasonsAreLost, "law 2";

    what_is_there_after_its_time_is_noticed: repository, ExpiredIsThere, "law 8";
    what_keeps_its_id_after_its_time_is_noticed: repository, ExpiredIsCounted, "law 1";
    a_time_to_live_from_creation_is_noticed: repository, ExpiresFromCreation, "law 8";
    what_is_live_and_expires_is_noticed: repository, LiveExpires, "law 8";

    a_wait_that_checks_before_it_subscribes_is_noticed: watch, WaitsCheckFirst, "law 5";
    a_wait_that_sleeps_through_changes_is_noticed: watch, WaitsSleepThrough, "law 5";
    a_wait_that_overstays_is_noticed: watch, WaitsOverstay, "law 5";
    a_wait_that_is_over_without_a_change_is_noticed: watch, WaitsComeBackEarly, "law 5";
    progress_that_wakes_nobody_is_noticed: watch, ProgressWakesNobody, "law 5";
    forgetting_that_wakes_nobody_is_noticed: watch, ForgettingWakesNobody, "law 5";
    a_record_that_forgets_what_was_is_noticed: watch, WhatWasIsForgotten, "law 5";

    taking_over_what_is_held_is_noticed: lease, LeasesAreIgnored, "law 6";
    taking_over_without_a_higher_token_is_noticed: lease, TakeOverKeepsTheToken, "law 6";
    taking_over_without_a_version_is_noticed: lease, TakeOverKeepsTheVersion, "law 4";
    taking_over_twice_at_the_same_moment_is_noticed: lease, TakeOverIsNotAtomic, "law 6";
    taking_over_more_than_was_asked_for_is_noticed: lease, TakeOverIgnoresTheLimit, "law 6";
    a_claim_by_anybody_is_noticed: lease, ClaimsIgnoreTheToken, "law 6";
    a_claim_that_leaves_the_holder_in_is_noticed: lease, ClaimsKeepTheToken, "law 6";
    claiming_twice_at_the_same_moment_is_noticed: lease, ClaimsAreNotAtomic, "law 6";
    claiming_for_the_time_that_is_left_is_noticed: lease, ClaimsKeepTheTerm, "law 6";
    taking_over_for_no_time_is_noticed: lease, TakeOverGivesNoTerm, "law 6";
    taking_over_what_has_ended_is_noticed: lease, TakeOverTakesWhatHasEnded, "law 3";
    taking_over_without_the_request_is_noticed: lease, TakeOverLosesTheRequest, "law 6";
    renewing_that_names_nothing_is_noticed: lease, RenewNamesNothing, "law 6";
    renewing_that_extends_nothing_is_noticed: lease, RenewExtendsNothing, "law 6";
    renewing_that_is_a_change_is_noticed: lease, RenewIsAChange, "law 4";
    renewing_by_anybody_is_noticed: lease, RenewIgnoresTheToken, "law 6";
    releasing_by_anybody_is_noticed: lease, ReleaseIgnoresTheToken, "law 6";
    releasing_that_does_nothing_is_noticed: lease, ReleaseDoesNothing, "law 6";
    renewing_what_was_released_is_noticed: released_lease, RenewTakesBack, "law 6";
    a_node_that_is_not_told_is_noticed: lease, NothingIsRecalled, "law 6";
    a_node_that_is_told_of_others_is_noticed: lease, EverythingIsRecalled, "law 6";
    a_single_node_that_is_not_told_is_noticed: single_node_lease, NothingIsRecalled, "law 6";

    a_key_that_is_ignored_is_noticed: keys, KeysAreIgnored, "law 1";
    a_fingerprint_that_is_ignored_is_noticed: keys, FingerprintsAreIgnored, "law 1";
    an_owner_of_a_key_that_is_ignored_is_noticed: keys, OwnersOfKeysAreIgnored, "law 1";
    owners_and_keys_that_run_into_each_other_are_noticed: keys, OwnersRunIntoTheirKeys, "law 1";
    a_key_that_may_be_nobodys_is_noticed: keys, OwnersKeysMayBeNobodys, "law 1";
    a_reservation_that_reaches_another_owner_is_noticed: keys, ReservationsGoByTheName, "law 1";
    a_key_that_is_taken_though_its_id_is_not_free_is_noticed: keys, KeysAreTakenBeforeTheId, "law 1";
    a_deleted_operation_that_is_given_is_noticed: keys, ForgottenIsAsIfThere, "law 1";
    a_reservation_that_is_ignored_is_noticed: keys, ReservationsAreIgnored, "law 1";
    a_reservation_that_never_lapses_is_noticed: keys, ReservationsNeverLapse, "law 1";
    a_reservation_that_is_not_renewed_is_noticed: keys, ReservationsAreNotRenewed, "law 1";
    reserving_twice_at_the_same_moment_is_noticed: keys, ReserveIsNotAtomic, "law 1";
    settling_by_anybody_is_noticed: keys, SettleIgnoresTheToken, "law 1";
    releasing_a_key_by_anybody_is_noticed: keys, ReleaseKeyIgnoresTheToken, "law 1";
    tokens_of_keys_that_come_back_are_noticed: keys, KeyTokensComeBack, "law 1";
    a_key_that_is_forgotten_is_noticed: keys, KeysAreForgotten, "law 1";
    a_key_that_never_expires_is_noticed: keys, KeysNeverExpire, "law 8";
    an_early_answer_that_is_lost_is_noticed: keys, EarlyAnswersAreLost, "law 1";

    listing_what_is_others_is_noticed: list, ListsEverybodys, "listing";
    listing_the_oldest_first_is_noticed: list, ListsTheOldestFirst, "listing";
    listing_by_offset_is_noticed: list, ListsByOffset, "listing";
    listing_any_state_is_noticed: list, ListIgnoresTheState, "listing";
    listing_one_state_of_two_is_noticed: list, ListTakesTheFirstState, "listing";
    listing_more_than_was_asked_for_is_noticed: list, ListIgnoresTheLimit, "listing";
    listing_what_has_expired_is_noticed: list, ListsWhatHasExpired, "law 8";
    listing_without_an_end_is_noticed: list, ListHasNoEnd, "listing";
    listing_that_ends_early_is_noticed: list, ListEndsEarly, "listing";
    listing_from_a_number_is_noticed: list, CursorsAreNumbers, "law 9";
    listing_with_cursors_that_count_is_noticed: list, CursorsCount, "listing";
    listing_from_another_owners_cursor_is_noticed: list, CursorsAreEverybodys, "law 9";
    listing_from_a_cursor_of_other_states_is_noticed: list, CursorsAreOfAnyState, "law 9";
    listing_from_any_cursor_is_noticed: list, AnyCursorWillDo, "law 9";
    a_refusal_that_may_be_tried_again_is_noticed: list, CursorsMayBeTriedAgain, "law 9";

    purging_what_is_live_is_noticed: purge, PurgeTakesWhatIsLive, "law 8";
    purging_what_has_just_ended_is_noticed: purge, PurgeTakesWhatHasJustEnded, "law 8";
    purging_more_than_was_asked_for_is_noticed: purge, PurgeIgnoresTheLimit, "law 8";
}

/// Insists on a release being heard of at once by who waited for one, and by nobody before.
async fn tells_of_releases<R: Repository + Lease>(store: &R) {
    let lease = LeaseConfig::new(NodeId::new(), Duration::from_secs(60));
    let new = NewOperation::new(OperationId::new()).with_lease(lease);
    let held = LeaseHandle::new(new.id.clone(), new.token);
    store.create(new).await.unwrap();
    let mut released = std::pin::pin!(store.released());
    let second = Duration::from_secs(1);
    let before = tokio::time::timeout(second, released.as_mut()).await;
    assert!(before.is_err(), "nothing was released");
    store.release(&[held]).await.unwrap();
    let heard = tokio::time::timeout(second, released).await;
    assert!(heard.is_ok(), "it was not told");
}

#[tokio::test(start_paused = true)]
async fn a_release_is_heard_of_at_once_through_whatever_is_around_the_store() {
    let store = MemoryStore::new();
    tells_of_releases(&store).await;
    tells_of_releases(&AnyStore::new(store.clone())).await;
    tells_of_releases(&Polling::new(store.clone(), OFTEN)).await;
    tells_of_releases(&AnyStore::new(Polling::new(store.clone(), OFTEN))).await;
    tells_of_releases(&Nodes::new([store.clone(), store])).await;
}
