//! Helpers shared by the tests of several packages: private servers, processes, clients, and
//! stores that fail on demand.
#![allow(missing_docs, missing_debug_implementations)]

pub mod client;
pub mod encryption;
pub mod hooked;
pub mod large_results;
pub mod operations;
pub mod pages;
pub mod postgres;
pub mod private;
pub mod process;
pub mod ready_later;
pub mod redis;
pub mod repetition;
pub mod results;
pub mod runs;
pub mod runtime;
#[cfg(feature = "s3")]
pub mod s3;
pub mod said;
pub mod server;
pub mod stranger;
pub mod versions;
