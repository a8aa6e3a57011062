//! Simulates operations with faults, and prints a `name: value` a line.
//!
//!     cargo run --release -p simulation -- --operations 1000000 --kills 1000 --seed 1 --store engine
//!
//! The operations are shared by worlds, which run one after the other. The exit status is 1 if a
//! law was broken. The plan of the first world that broke one, the shortest prefix of its faults
//! that still shows it, and the history of the operation are printed then. `--one-world` with the
//! printed seed runs that world again.
//!
//!     cargo run --release -p simulation -- --mutants --seed 1
//!
//! plants bugs, and prints how many operations it took to find each. The exit status is 1 if one
//! survives.

mod mutants;
mod options;
mod sum;

use std::{panic, process::ExitCode, time::Instant};

use simulation::{ORDERED_PANIC, Plan, run, shortest_prefix};

use self::{
    options::{Options, USAGE},
    sum::Sum,
};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // Orders ask for panics.
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some(ORDERED_PANIC) {
            usual(info);
        }
    }));
    let is_good = match options.mutants {
        true => mutants::all_found(options.seed),
        false => no_law_is_broken(&options),
    };
    match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Runs all worlds, and prints what came of them.
fn no_law_is_broken(options: &Options) -> bool {
    let begun = Instant::now();
    let mut sum = Sum::default();
    for plan in options.plans() {
        let outcome = run(&plan);
        if !outcome.violations.is_empty() && sum.is_good() {
            show(&plan);
        }
        sum.add(&outcome);
    }
    let is_good = sum.is_good();
    sum.print(begun.elapsed());
    is_good
}

/// Prints a world that breaks a law.
fn show(plan: &Plan) {
    let (prefix, outcome) = shortest_prefix(plan);
    println!("seed of the world: {}", plan.seed);
    println!("operations of the world: {}", plan.operations);
    println!("kills of the world: {}", plan.faults.kills);
    println!("faults that show it: {prefix} of {}", plan.faults.all());
    for violation in &outcome.violations {
        println!("violation: {violation}");
    }
    print!("{}", outcome.log.histories());
}
