//! Properties of any input, with one module for each target. `fuzz/run.sh` runs the targets.

mod answer;
mod message;
mod world;

pub mod accept;
pub mod json;
pub mod parsers;
pub mod poll;
pub mod stored;
