//! Counts of instructions for an accept, a poll and a finish. Counts are the same on every
//! run, so they show the cost of a change.
//!
//! ```not_rust
//! bash benches/instructions.sh            # counts, prints, and fails above the limits
//! bash benches/instructions.sh --update   # makes the counts the new limits
//! ```
//!
//! The benchmark needs valgrind and `gungraun-runner`, which the script installs. With both
//! installed, `cargo bench -p tower-operations-instructions` works as well. Each benchmark
//! makes [`OPERATIONS`] operations of its kind; set-up and clean-up are not counted.
//!
//! The limits of an operation are in `instructions.toml`: instructions, and misses of the
//! first-level cache for code, which cost more than the instructions over a network. A limit may
//! be exceeded by [`TOLERANCE`] percent, and that of misses by [`TOLERANCE_OF_MISSES`] percent,
//! since another compiler or C library changes the counts by less.

// The macros create undocumented items.
#![allow(missing_docs)]

#[path = "../support/hand.rs"]
mod hand;
#[path = "../support/report.rs"]
mod report;

mod by_hand;
mod ours;
mod prepared;

use gungraun::{
    Callgrind, EntryPoint, EventKind, LibraryBenchmarkConfig, library_benchmark,
    library_benchmark_group, main,
};
use serde_json::{Value, value::RawValue};

use by_hand::{accept_by_hand_routine, accept_live_by_hand_routine, poll_by_hand_routine};
use ours::{
    accept_full_routine, accept_live_routine, accept_redb_routine, accept_routine,
    accept_waiting_routine, finish_routine, poll_routine, spawn_routine,
};
use prepared::Routine;

const OPERATIONS: usize = 1_000;

/// The tolerance above a limit, in percent.
const TOLERANCE: u64 = 5;

/// The tolerance above a limit of misses, in percent: they depend on where the linker places the
/// code.
const TOLERANCE_OF_MISSES: u64 = 15;

const NUMBERS: &str = include_str!("../instructions.toml");

/// Counts with the caches of a core: 32 KiB for code, 32 KiB for data, and 512 KiB for both.
fn caches() -> Callgrind {
    Callgrind::with_args([
        "--cache-sim=yes",
        "--I1=32768,8,64",
        "--D1=32768,8,64",
        "--LL=524288,8,64",
    ])
}

/// The configuration of a benchmark without a limit.
fn unlimited() -> LibraryBenchmarkConfig {
    LibraryBenchmarkConfig::default().tool(caches()).clone()
}

/// The configuration of a benchmark that counts all threads.
fn whole_process() -> LibraryBenchmarkConfig {
    let callgrind = caches().entry_point(EntryPoint::None).clone();
    LibraryBenchmarkConfig::default().tool(callgrind).clone()
}

/// Returns the limits for `OPERATIONS` operations of this kind: instructions, and misses of the
/// cache for code.
fn limit(kind: &str) -> LibraryBenchmarkConfig {
    let line = NUMBERS
        .lines()
        .find_map(|line| line.strip_prefix(kind)?.trim().strip_prefix('='))
        .unwrap_or_else(|| panic!("{kind} is not in instructions.toml"));
    let number = |name: &str| {
        let (_, rest) = line.split_once(name).unwrap_or_default();
        let digits = rest.trim_start_matches([' ', '=']);
        let end = digits.find(|it: char| !it.is_ascii_digit());
        let number = digits[..end.unwrap_or(digits.len())].parse::<u64>();
        number.unwrap_or_else(|error| panic!("instructions.toml: {kind}: {name}: {error}"))
    };
    // A few misses are none: they are those of the first operations.
    let least = |name| if name == "misses" { 20 } else { 0 };
    let limit = |name, tolerance| {
        (number(name) * (100 + tolerance) / 100 + least(name)) * OPERATIONS as u64
    };
    let callgrind = caches()
        .hard_limits([
            (EventKind::Ir, limit("instructions", TOLERANCE)),
            (EventKind::I1mr, limit("misses", TOLERANCE_OF_MISSES)),
        ])
        .clone();
    LibraryBenchmarkConfig::default().tool(callgrind).clone()
}

// A request that is accepted and run, and whose result of 1 KiB of JSON is recorded.
#[library_benchmark(config = limit("accept"))]
#[bench::thousand(accept_routine())]
fn accept(routine: Routine) {
    routine();
}

// A request whose handler waits once.
#[library_benchmark(config = limit("accept_waiting"))]
#[bench::thousand(accept_waiting_routine())]
fn accept_waiting(routine: Routine) {
    routine();
}

// A request whose operation is live together with a thousand others.
#[library_benchmark(config = limit("accept_live"))]
#[bench::thousand(accept_live_routine())]
fn accept_live(routine: Routine) {
    routine();
}

// A request to a full store, which deletes the oldest operation.
#[library_benchmark(config = limit("accept_full"))]
#[bench::thousand(accept_full_routine())]
fn accept_full(routine: Routine) {
    routine();
}

// A durable accept, and the end of its operation. The writer of the store has a thread of its
// own, so the whole process is counted: the script takes the difference to no request at all.
#[library_benchmark(config = whole_process())]
#[bench::thousand(accept_redb_routine(OPERATIONS))]
fn accept_redb(routine: Routine) {
    routine();
}

#[library_benchmark(config = whole_process())]
#[bench::thousand(accept_redb_routine(0))]
fn accept_redb_nothing(routine: Routine) {
    routine();
}

// A spawned call of the handler, which is the lower bound of an accept.
#[library_benchmark(config = limit("spawn"))]
#[bench::thousand(spawn_routine())]
fn spawn(routine: Routine) {
    routine();
}

// The record of an outcome.
#[library_benchmark(config = limit("finish"))]
#[bench::thousand(finish_routine())]
fn finish(routine: Routine) {
    routine();
}

// A poll from the request to the answer, of an operation that has succeeded with 1 KiB.
#[library_benchmark(config = limit("poll"))]
#[bench::thousand(poll_routine())]
fn poll(routine: Routine) {
    routine();
}

// The implementation by hand is measured for comparison, without a limit.
#[library_benchmark(config = unlimited())]
#[bench::thousand(accept_by_hand_routine::<Value>())]
fn accept_by_hand(routine: Routine) {
    routine();
}

#[library_benchmark(config = unlimited())]
#[bench::thousand(accept_by_hand_routine::<Box<RawValue>>())]
fn accept_by_careful_hand(routine: Routine) {
    routine();
}

#[library_benchmark(config = unlimited())]
#[bench::thousand(accept_live_by_hand_routine::<Box<RawValue>>())]
fn accept_live_by_careful_hand(routine: Routine) {
    routine();
}

#[library_benchmark(config = unlimited())]
#[bench::thousand(poll_by_hand_routine::<Value>())]
fn poll_by_hand(routine: Routine) {
    routine();
}

#[library_benchmark(config = unlimited())]
#[bench::thousand(poll_by_hand_routine::<Box<RawValue>>())]
fn poll_by_careful_hand(routine: Routine) {
    routine();
}

library_benchmark_group!(
    name = operations,
    benchmarks = [
        accept,
        accept_waiting,
        accept_live,
        accept_full,
        accept_redb,
        accept_redb_nothing,
        spawn,
        finish,
        poll,
        accept_by_hand,
        accept_by_careful_hand,
        accept_live_by_careful_hand,
        poll_by_hand,
        poll_by_careful_hand
    ]
);
main!(library_benchmark_groups = operations);
