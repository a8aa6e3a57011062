//! Pages that are about more than one item.
//!
//! They are the files of the folder `docs`, where they can be read as they are.

/// The link targets of the pages. In the files each of these labels leads to docs.rs, or to the next
/// file; of two definitions the first counts.
macro_rules! links {
    () => {
        r"
[AsyncAcceptLayer]: crate::AsyncAcceptLayer
[AsyncAcceptLayer::after]: crate::AsyncAcceptLayer::after
[Operations::public_url]: crate::Operations::public_url
[AsyncAcceptLayer::cancel_grace]: crate::AsyncAcceptLayer::cancel_grace
[AsyncAcceptLayer::create_timeout]: crate::AsyncAcceptLayer::create_timeout
[AsyncAcceptLayer::store_credentials]: crate::AsyncAcceptLayer::store_credentials
[Operations::lease]: crate::Operations::lease
[Operations::max_in_flight]: crate::Operations::max_in_flight
[Operations::max_in_flight_per_owner]: crate::Operations::max_in_flight_per_owner
[Operations::max_bytes_in_flight]: crate::Operations::max_bytes_in_flight
[Operations::max_bytes_in_flight_per_owner]: crate::Operations::max_bytes_in_flight_per_owner
[AsyncAcceptLayer::max_wait]: crate::AsyncAcceptLayer::max_wait
[AsyncAcceptLayer::rerun_if]: crate::AsyncAcceptLayer::rerun_if
[AsyncAcceptLayer::pending_timeout]: crate::AsyncAcceptLayer::pending_timeout
[AsyncAcceptLayer::when_preferred]: crate::AsyncAcceptLayer::when_preferred
[AsyncAcceptLayer::result_limit]: crate::AsyncAcceptLayer::result_limit
[AsyncAcceptLayer::running_timeout]: crate::AsyncAcceptLayer::running_timeout
[AsyncAcceptLayer::when_signaled]: crate::AsyncAcceptLayer::when_signaled
[AsyncAcceptLayer::original_uri]: crate::AsyncAcceptLayer::original_uri
[Operations::trust_forwarded]: crate::Operations::trust_forwarded
[AsyncAcceptLayer::body_limit]: crate::AsyncAcceptLayer::body_limit
[AsyncAcceptLayer::create_timeout]: crate::AsyncAcceptLayer::create_timeout
[Operations::on_terminal]: crate::Operations::on_terminal
[Operations::result_store]: crate::Operations::result_store
[Operations::result_threshold]: crate::Operations::result_threshold
[Operations::result_limit]: crate::Operations::result_limit
[results::EncryptedResults]: crate::results::EncryptedResults
[results::ResultStore]: crate::results::ResultStore
[Dispatch]: crate::Dispatch
[Drain]: crate::Drain
[Drain::drain]: crate::Drain::drain
[Drain::in_flight]: crate::Drain::in_flight
[DrainReport]: crate::DrainReport
[MemoryStore]: crate::MemoryStore
[OperationHandle::cancellation]: crate::OperationHandle::cancellation
[OperationId]: crate::OperationId
[OperationView::error_code]: crate::OperationView::error_code
[OperationView::is_retryable]: crate::OperationView::is_retryable
[PollService]: crate::PollService
[PollService::max_held_per_owner]: crate::PollService::max_held_per_owner
[PollService::max_streams_per_owner]: crate::PollService::max_streams_per_owner
[Operations::map_replay]: crate::Operations::map_replay
[Recovery]: crate::Recovery
[Recovery::rerun_with]: crate::Recovery::rerun_with
[RunService]: crate::RunService
[contract]: crate::contract
[run]: crate::run
[testing::Environment]: crate::testing::Environment
[dialect::Arm]: crate::dialect::Arm
[dialect::Azure]: crate::dialect::Azure
[dialect::Dialect]: crate::dialect::Dialect
[dialect::DurableFunctions]: crate::dialect::DurableFunctions
[dialect::Fhir]: crate::dialect::Fhir
[dialect::Google]: crate::dialect::Google
[dialect::Ipa]: crate::dialect::Ipa
[dialect::OData]: crate::dialect::OData
[dialect::Ogc]: crate::dialect::Ogc
[dialect::Plain]: crate::dialect::Plain
[dialect::not_replayed]: crate::dialect::not_replayed
[engine]: crate::engine
[engine::CellReader::reads]: crate::engine::CellReader::reads
[engine::Engine]: crate::engine::Engine
[engine::Engine::insert]: crate::engine::Engine::insert
[engine::Engine::release]: crate::engine::Engine::release
[engine::Engine::renew]: crate::engine::Engine::renew
[engine::EngineKeys]: crate::engine::EngineKeys
[engine::EngineList]: crate::engine::EngineList
[guide::growing]: crate::guide::growing
[poll#progress-while-waiting]: crate::poll#progress-while-waiting
[store::NodeId]: crate::store::NodeId
[store::Owner]: crate::store::Owner
[store::Polling]: crate::store::Polling
[store::Purge::purge]: crate::store::Purge::purge
[store::Record]: crate::store::Record
[store::RepositoryFn]: crate::store::RepositoryFn
[store::SingleNode]: crate::store::SingleNode
[store::StoreFn]: crate::store::StoreFn
"
    };
}

#[doc = links!()]
///
#[doc = include_str!("../docs/modes.md")]
pub mod modes {}

#[doc = links!()]
///
#[doc = include_str!("../docs/handler.md")]
pub mod handler {}

#[doc = links!()]
///
#[doc = include_str!("../docs/dialects.md")]
pub mod dialects {}

#[doc = links!()]
///
#[doc = include_str!("../docs/deployment.md")]
pub mod deployment {}

// Plots are beside the pages, but not in these docs.
#[doc = include_str!("../docs/workers.plot")]
///
#[doc = links!()]
///
#[doc = include_str!("../docs/growing.md")]
pub mod growing {}

#[doc = links!()]
///
#[doc = include_str!("../docs/results.md")]
pub mod results {}

#[doc = links!()]
///
#[doc = include_str!("../docs/stores.md")]
pub mod stores {}

#[doc = include_str!("../docs/wire.plot")]
#[doc = include_str!("../docs/durable.plot")]
///
#[doc = links!()]
///
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

#[doc = links!()]
///
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}
