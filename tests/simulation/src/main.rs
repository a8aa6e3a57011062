//! Simulates operations with faults, and prints a `name: value` a line.
//!
//!     cargo run --release -p simulation -- --operations 1000000 --kills 1000 --seed 1 --store engine
//!
//! The exit status is 1 if a law was broken. The seed of the world, the shortest prefix of its
//! faults that still shows the violation, and the history of the operation are printed then.

use std::{panic, process::ExitCode, time::Instant};

use simulation::{Outcome, Plan, StoreKind, run, shortest_prefix};
use test_customers::Random;

/// The number of operations in a world.
const IN_A_WORLD: usize = 5_000;

struct Options {
    operations: usize,
    kills: usize,
    seed: u64,
    store: StoreKind,
    /// Whether there is one world, whose seed is `seed` itself.
    one_world: bool,
}

/// The sum of all worlds.
#[derive(Default)]
struct Sum {
    worlds: usize,
    operations: usize,
    kills: usize,
    stops: usize,
    drains: usize,
    outages: usize,
    reruns: usize,
    calls: usize,
    store_calls: u64,
    lost_requests: u64,
    lost_answers: u64,
    lost_notices: u64,
    simulated_seconds: f64,
    violations: usize,
}

const USAGE: &str = "usage: simulation [--operations N] [--kills N] [--seed S] \
                     [--store engine|memory] [--one-world]";

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
        if info.payload_as_str() != Some(simulation::ORDERED_PANIC) {
            usual(info);
        }
    }));

    let begun = Instant::now();
    let mut sum = Sum::default();
    for plan in options.plans() {
        let outcome = run(&plan);
        if !outcome.violations.is_empty() {
            show(&plan);
        }
        sum.add(&outcome);
    }
    sum.print(begun.elapsed().as_secs_f64());
    match sum.violations {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
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

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            operations: 10_000,
            kills: 100,
            seed: 1,
            store: StoreKind::Engine,
            one_world: false,
        };
        while let Some(name) = arguments.next() {
            if name == "--one-world" {
                options.one_world = true;
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name}: no value"))?;
            let number = || value.parse().map_err(|_| format!("{name}: no number"));
            match &*name {
                "--operations" => options.operations = number()?,
                "--kills" => options.kills = number()?,
                "--seed" => options.seed = value.parse().map_err(|_| "--seed: no number")?,
                "--store" => {
                    options.store = match &*value {
                        "engine" => StoreKind::Engine,
                        "memory" => StoreKind::Memory,
                        _ => return Err(format!("--store: there is no {value}")),
                    };
                }
                _ => return Err(format!("{name}: unknown")),
            }
        }
        Ok(options)
    }

    /// Returns the plans of the worlds, which share operations and kills.
    fn plans(&self) -> impl Iterator<Item = Plan> + use<'_> {
        let worlds = match self.one_world {
            true => 1,
            false => self.operations.div_ceil(IN_A_WORLD).max(1),
        };
        let mut seeds = Random::new(self.seed);
        (0..worlds).map(move |world| {
            let seed = match self.one_world {
                true => self.seed,
                false => seeds.next_u64(),
            };
            let share = |all: usize| all * (world + 1) / worlds - all * world / worlds;
            Plan::new(seed, self.store, share(self.operations), share(self.kills))
        })
    }
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        let Outcome {
            counts, network, ..
        } = outcome;
        self.worlds += 1;
        self.operations += counts.accepted;
        self.kills += counts.kills;
        self.stops += counts.stops;
        self.drains += counts.drains;
        self.outages += counts.outages;
        self.reruns += counts.reruns;
        self.calls += counts.calls;
        self.store_calls += network.calls;
        self.lost_requests += network.lost_requests;
        self.lost_answers += network.lost_answers;
        self.lost_notices += network.lost_notices;
        self.simulated_seconds += outcome.elapsed.as_secs_f64();
        self.violations += outcome.violations.len();
    }

    fn print(&self, wall_seconds: f64) {
        println!("worlds: {}", self.worlds);
        println!("operations: {}", self.operations);
        println!("requests: {}", self.calls);
        println!("kills: {}", self.kills);
        println!("stops: {}", self.stops);
        println!("drains: {}", self.drains);
        println!("outages: {}", self.outages);
        println!("store calls: {}", self.store_calls);
        println!("lost requests: {}", self.lost_requests);
        println!("lost answers: {}", self.lost_answers);
        println!("lost notices: {}", self.lost_notices);
        println!("reruns: {}", self.reruns);
        println!("simulated hours: {:.1}", self.simulated_seconds / 3600.0);
        println!("wall seconds: {wall_seconds:.1}");
        println!("violations: {}", self.violations);
    }
}
