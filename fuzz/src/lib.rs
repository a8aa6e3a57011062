//! What must hold for any input, a module a target. `fuzz/run.sh` runs them.

mod answer;
mod message;
mod world;

pub mod accept;
pub mod json;
pub mod parsers;
pub mod poll;
pub mod stored;
