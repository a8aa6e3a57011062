//! What the services of both sides have in common, chosen by the letters of an input's
//! first line.

use std::{cell::RefCell, future::Future, sync::Arc};

use http::request::Parts;
use tokio::runtime::{Builder, Runtime};
use tower_operations::{
    dialect::{Arm, Azure, Dialect, Durable, Fhir, Google, Ipa, OData, Ogc, Plain},
    store::Owner,
};

/// Runs on a clock that stands still while there is something to do.
pub(crate) fn run(future: impl Future<Output = ()>) {
    thread_local! {
        static RUNTIME: RefCell<Runtime> = RefCell::new(runtime());
    }
    RUNTIME.with_borrow(|runtime| runtime.block_on(future));
}

/// The same, and ends whatever goes on after it.
pub(crate) fn run_alone(future: impl Future<Output = ()>) {
    runtime().block_on(future);
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// Letters, each of which chooses something.
#[derive(Clone, Copy)]
pub(crate) struct Choice<'a>(pub(crate) &'a [u8]);

impl Choice<'_> {
    pub(crate) fn has(self, letter: u8) -> bool {
        self.0.contains(&letter)
    }

    /// By the first letter.
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
            b'd' => Arc::new(Durable::default()),
            b'i' => Arc::new(Ipa::default()),
            b'j' => Arc::new(Ipa::default().custom_method("render")),
            _ => Arc::new(Plain::default()),
        }
    }
}

/// Who says who they are.
pub(crate) fn owner(parts: &Parts) -> Option<Owner> {
    let name = parts.headers.get("x-owner")?.to_str().ok()?;
    Some(Owner::new(name))
}

pub(crate) const BASE: &str = "https://api.example.com/v1";
