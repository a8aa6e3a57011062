//! From times to slopes.

use std::fmt::Write;

use super::{
    calls::{CALLS, median, times},
    load::{Load, Whole, load},
};

const ROUNDS: usize = 3;

/// A table of one store, of which `fresh` makes one that is empty.
pub(crate) async fn print<S: Whole>(name: &str, fresh: impl AsyncFn() -> S, base: Load) {
    let measured = async |size: Load| {
        let store = fresh().await;
        let loaded = load(&store, size).await;
        times(&store, &loaded, size).await
    };
    // The first one warms up.
    measured(base).await;
    let (mut slopes, mut before) = (Vec::new(), Vec::new());
    let mut header = format!("| {name} | µs |");
    for (what, larger, times) in base.larger() {
        let mut rounds = vec![Vec::new(); CALLS.len()];
        for _ in 0..ROUNDS {
            // One after the other: later the machine is another.
            before = measured(base).await;
            let after = measured(larger).await;
            for (index, (before, after)) in before.iter().zip(&after).enumerate() {
                rounds[index].push((after / before).ln() / (times as f64).ln());
            }
        }
        slopes.push(rounds.into_iter().map(median).collect::<Vec<_>>());
        let _ = write!(header, " {what} ×{times} |");
    }
    println!("{header}\n| --- | --- | --- | --- | --- | --- |");
    for (index, call) in CALLS.iter().enumerate() {
        let mut line = format!("| {call} | {:.1} |", before[index] / 1e3);
        for slopes in &slopes {
            // No minus before a zero.
            let slope = (slopes[index] * 100.0).round() / 100.0 + 0.0;
            let _ = write!(line, " {slope:.2} |");
        }
        println!("{line}");
    }
    println!();
}
