use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::InFlight;
use crate::store::{KeyPowers, LeaseTerm, NodeId};

/// One running instance: its store, its lease, and what it has in flight.
#[derive(Debug)]
pub(crate) struct Node<R> {
    pub(crate) store: R,
    pub(crate) lease: LeaseTerm,
    pub(crate) in_flight: Arc<InFlight>,
    /// Set once the application wants requests to be idempotent.
    pub(crate) keys: OnceLock<KeyPowers<R>>,
}

/// How long a node may be silent before its operations count as abandoned.
const LEASE_TERM: Duration = Duration::from_secs(30);

/// How many operations are pending or running at the most, unless said.
const MAX_IN_FLIGHT: usize = 10_000;

impl<R> Node<R> {
    pub(crate) fn new(store: R) -> Self {
        Self {
            store,
            lease: LeaseTerm {
                node: NodeId::new(),
                term: LEASE_TERM,
            },
            in_flight: Arc::new(InFlight::new(MAX_IN_FLIGHT)),
            keys: OnceLock::new(),
        }
    }
}
