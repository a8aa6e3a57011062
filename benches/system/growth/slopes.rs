//! The slopes of the measured times.

use std::fmt::Write;

use super::{
    calls::{CALLS, median, times},
    load::{FullStore, Load, load},
};

const ROUNDS: usize = 3;

/// Prints the table of a store, of which `fresh` creates an empty one.
pub(crate) async fn print<S: FullStore>(name: &str, fresh: impl AsyncFn() -> S, base: Load) {
    let measure = async |size: Load| {
        let store = fresh().await;
        let loaded = load(&store, size).await;
        times(&store, &loaded, size).await
    };
    // The first measurement warms up.
    measure(base).await;
    let (mut slopes, mut before) = (Vec::new(), Vec::new());
    let mut header = format!("| {name} | µs |");
    for (name_of_load, larger, times) in base.larger() {
        let mut rounds = vec![Vec::new(); CALLS.len()];
        for _ in 0..ROUNDS {
            // The two measurements are consecutive, because the load of the machine changes.
            before = measure(base).await;
            let after = measure(larger).await;
            for (index, (before, after)) in before.iter().zip(&after).enumerate() {
                rounds[index].push((after / before).ln() / (times as f64).ln());
            }
        }
        slopes.push(rounds.into_iter().map(median).collect::<Vec<_>>());
        let _ = write!(header, " {name_of_load} ×{times} |");
    }
    println!("{header}\n| --- | --- | --- | --- | --- | --- |");
    for (index, call) in CALLS.iter().enumerate() {
        let mut line = format!("| {call} | {:.1} |", before[index] / 1e3);
        for slopes in &slopes {
            // Adding zero removes the sign of a negative zero.
            let slope = (slopes[index] * 100.0).round() / 100.0 + 0.0;
            let _ = write!(line, " {slope:.2} |");
        }
        println!("{line}");
    }
    println!();
}
