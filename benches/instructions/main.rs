//! Instructions that an accept, a poll and an end take: counted, so they are the same
//! on every run, and a change that costs some is seen.
//!
//! ```not_rust
//! bash benches/instructions.sh            # counts, prints, and fails if it is too many
//! bash benches/instructions.sh --update   # makes what is counted the new measure
//! ```
//!
//! It needs valgrind and `gungraun-runner`, which the script installs; with both there,
//! `cargo bench -p tower-operations-instructions` does too. Each benchmark does
//! [`OPERATIONS`] of its kind; what comes before and after them is not counted.
//!
//! What an operation may take stands in `instructions.toml`. It may be exceeded by
//! [`TOLERANCE`] percent: another compiler or C library moves the numbers by less.

// The macros make items that have none.
#![allow(missing_docs)]

#[path = "../support/hand.rs"]
mod hand;
#[path = "../support/report.rs"]
mod report;

mod by_hand;
mod ours;
mod prepared;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use serde_json::{Value, value::RawValue};

use by_hand::{accepting_by_hand, polling_by_hand};
use ours::{accepting, accepting_what_waits, accepting_when_full, ending, polling, spawning};
use prepared::Prepared;

const OPERATIONS: usize = 1_000;

/// Percent.
const TOLERANCE: u64 = 5;

const NUMBERS: &str = include_str!("../instructions.toml");

/// What `OPERATIONS` of this kind may take.
fn limit(kind: &str) -> LibraryBenchmarkConfig {
    let number = NUMBERS.lines().find_map(|line| {
        let (name, number) = line.split_once('=')?;
        (name.trim() == kind).then(|| number.trim().parse::<u64>())
    });
    let number = number
        .unwrap_or_else(|| panic!("{kind} is not in instructions.toml"))
        .unwrap_or_else(|error| panic!("instructions.toml: {kind}: {error}"));
    let limit = number * OPERATIONS as u64 * (100 + TOLERANCE) / 100;
    let callgrind = Callgrind::default()
        .hard_limits([(EventKind::Ir, limit)])
        .clone();
    LibraryBenchmarkConfig::default().tool(callgrind).clone()
}

// Accepted, run, and its result of 1 KiB of JSON recorded.
#[library_benchmark(config = limit("accept"))]
#[bench::thousand(accepting())]
fn accept(prepared: Prepared) {
    prepared();
}

// The same work, which waits once.
#[library_benchmark(config = limit("accept_waiting"))]
#[bench::thousand(accepting_what_waits())]
fn accept_waiting(prepared: Prepared) {
    prepared();
}

// Work as before, in a store that is full, and forgets the oldest.
#[library_benchmark(config = limit("accept_full"))]
#[bench::thousand(accepting_when_full())]
fn accept_full(prepared: Prepared) {
    prepared();
}

// The same work spawned, and nothing else: no accept can beat it.
#[library_benchmark(config = limit("spawn"))]
#[bench::thousand(spawning())]
fn spawn(prepared: Prepared) {
    prepared();
}

// The outcome recorded.
#[library_benchmark(config = limit("finish"))]
#[bench::thousand(ending())]
fn finish(prepared: Prepared) {
    prepared();
}

// From the request to the answer, of an operation that has succeeded with 1 KiB.
#[library_benchmark(config = limit("poll"))]
#[bench::thousand(polling())]
fn poll(prepared: Prepared) {
    prepared();
}

// What is written by hand is there to be compared with, and has no limit.
#[library_benchmark]
#[bench::thousand(accepting_by_hand::<Value>())]
fn accept_by_hand(prepared: Prepared) {
    prepared();
}

#[library_benchmark]
#[bench::thousand(accepting_by_hand::<Box<RawValue>>())]
fn accept_by_careful_hand(prepared: Prepared) {
    prepared();
}

#[library_benchmark]
#[bench::thousand(polling_by_hand::<Value>())]
fn poll_by_hand(prepared: Prepared) {
    prepared();
}

#[library_benchmark]
#[bench::thousand(polling_by_hand::<Box<RawValue>>())]
fn poll_by_careful_hand(prepared: Prepared) {
    prepared();
}

library_benchmark_group!(
    name = operations,
    benchmarks = [
        accept,
        accept_waiting,
        accept_full,
        spawn,
        finish,
        poll,
        accept_by_hand,
        accept_by_careful_hand,
        poll_by_hand,
        poll_by_careful_hand
    ]
);
main!(library_benchmark_groups = operations);
