use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use simulation::{CUSTOMER_PANIC, Mutant, Plan, run};
use test_customers::Random;

/// The number of seeds that each bug is planted with.
const SEEDS: usize = 10;
/// The number of these seeds that have to find the bug.
const FOUND: usize = 9;
/// The maximum number of operations of a seed.
const OPERATIONS: usize = 10_000;
/// The number of operations and kills in a world.
const IN_A_WORLD: (usize, usize) = (100, 4);

/// Plants each bug with several seeds, and prints how many operations it took to find the bug.
/// Returns whether every bug was found with nearly every seed.
pub(crate) fn all_found(seed: u64) -> bool {
    println!("| bug | found with seeds | operations needed, median | most | first violation |");
    println!("| --- | --- | --- | --- | --- |");
    let mut survivors = 0;
    for mutant in Mutant::ALL {
        let mut seeds = Random::new(seed);
        let (mut needed, mut first) = (Vec::new(), None);
        for _ in 0..SEEDS {
            if let Some((operations, violation)) = hunt(mutant, seeds.next_u64()) {
                needed.push(operations);
                first.get_or_insert(violation);
            }
        }
        needed.sort_unstable();
        let found = needed.len();
        survivors += usize::from(found < FOUND);
        let text = |number: Option<&usize>| number.map_or("–".into(), ToString::to_string);
        println!(
            "| {mutant} | {found} of {SEEDS} | {} | {} | {} |",
            text(needed.get(found / 2)),
            text(needed.last()),
            first.unwrap_or_else(|| "–".into()),
        );
    }
    println!("survivors: {survivors}");
    survivors == 0
}

/// Runs worlds with a bug until a law is broken. Returns the number of operations that it took,
/// and the violation without its subject.
fn hunt(mutant: Mutant, seed: u64) -> Option<(usize, String)> {
    let mut seeds = Random::new(seed);
    let (in_a_world, kills) = IN_A_WORLD;
    for operations in (in_a_world..=OPERATIONS).step_by(in_a_world) {
        let mut plan = Plan::new(seeds.next_u64(), mutant.store(), in_a_world, kills);
        (plan.mutant, plan.workers) = (Some(mutant), mutant.workers());
        // Some bugs make an answer that no customer can read.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&plan)));
        let violation = match outcome {
            Ok(outcome) => outcome.violations.first().cloned(),
            Err(panic) if is_of_a_customer(&*panic) => {
                Some("the customer: an answer cannot be read".into())
            }
            Err(panic) => resume_unwind(panic),
        };
        if let Some(violation) = violation {
            let text = violation
                .split_once(": ")
                .map_or(&*violation, |(_, text)| text);
            return Some((operations, text.to_owned()));
        }
    }
    None
}

/// Returns whether a customer has panicked, and not the simulation.
fn is_of_a_customer(panic: &(dyn Any + Send)) -> bool {
    let text = panic.downcast_ref::<String>();
    text.is_some_and(|text| text.starts_with(CUSTOMER_PANIC))
}
