//! The parts of the example `server`, which the example `workers` uses as well.
#![allow(missing_docs, missing_debug_implementations)]

pub mod app;
pub mod cli;
pub mod dialects;
pub mod orders;
pub mod queue;
pub mod reports;
pub mod results;
pub mod runs;
pub mod serve;
pub mod stores;
