//! Common settings of the services, chosen by the letters of an input's first line.

use std::{cell::RefCell, future::Future, sync::Arc};

use http::request::Parts;
use tokio::runtime::{Builder, Runtime};
use tower_operations::{
    MemoryStore, Operations,
    dialect::{Arm, Azure, Dialect, DurableFunctions, Fhir, Google, Ipa, OData, Ogc, Plain},
    store::Owner,
};

/// Runs a future on a paused clock.
pub(crate) fn run(future: impl Future<Output = ()>) {
    thread_local! {
        static RUNTIME: RefCell<Runtime> = RefCell::new(runtime());
    }
    RUNTIME.with_borrow(|runtime| runtime.block_on(future));
}

/// Runs a future on a paused clock, and drops the tasks that it leaves.
pub(crate) fn run_alone(future: impl Future<Output = ()>) {
    runtime().block_on(future);
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// Letters, each of which selects a setting.
#[derive(Clone, Copy)]
pub(crate) struct Choice<'a>(pub(crate) &'a [u8]);

impl Choice<'_> {
    pub(crate) fn has(self, letter: u8) -> bool {
        self.0.contains(&letter)
    }

    /// Returns the dialect of the first letter.
    pub(crate) fn dialect(self) -> Arc<dyn Dialect> {
        match self.0.first().copied().unwrap_or_default() {
            b'w' => Arc::new(Plain::default().accepted_while_unfinished()),
            b'z' => Arc::new(Azure::default()),
            b'a' => Arc::new(Arm::default()),
            b'g' => Arc::new(Google::default()),
            b'h' => Arc::new(Google::default().parent("projects/p")),
            b'o' => Arc::new(OData::default()),
            b'f' => Arc::new(Fhir::default()),
            b'c' => Arc::new(Ogc::default()),
            b'd' => Arc::new(DurableFunctions::default()),
            b'i' => Arc::new(Ipa::default()),
            b'j' => Arc::new(Ipa::default().custom_method("render")),
            _ => Arc::new(Plain::default()),
        }
    }
}

/// Returns the settings that a layer and a poll service share.
pub(crate) fn operations(choice: Choice<'_>, store: &MemoryStore) -> Operations<MemoryStore> {
    let mut operations = Operations::new(store.clone()).dialect(choice.dialect());
    if choice.has(b'B') {
        operations = operations.public_url(BASE).unwrap();
    }
    if choice.has(b'F') {
        operations = operations.trust_forwarded(|_| true);
    }
    if choice.has(b'X') {
        operations = operations.trust_x_forwarded(|_| true);
    }
    operations
}

/// Returns the owner that a request names.
pub(crate) fn owner(parts: &Parts) -> Option<Owner> {
    let name = parts.headers.get("x-owner")?.to_str().ok()?;
    Some(Owner::new(name))
}

pub(crate) const BASE: &str = "https://api.example.com/v1";
