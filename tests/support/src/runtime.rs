//! Runtimes of tests that end one.

use tokio::runtime::{Builder, Runtime};

/// Returns a runtime with one worker thread of its own.
pub fn one_worker() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
