//! Benchmark of the crate over HTTP.
//!
//! See `main.rs`, which is the benchmark.

// Linked by the benchmark where the feature is on.
#[cfg(feature = "mimalloc")]
pub use mimalloc::MiMalloc;
