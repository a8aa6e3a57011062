//! What the crate costs over HTTP, beside what cannot be had for less and what is
//! written by hand instead of it.
//!
//! ```not_rust
//! cargo bench --bench wire
//! ```
//!
//! prints everything as Markdown and draws `docs/wire.svg`, in some five minutes.
//! `-- --quick` takes less than one, says less precisely, and leaves the plot as it is;
//! `-- --plot FILE` says where it goes, also from a quick run.
//!
//! A server is a process of its own, with one thread on core 0. The client has core 1
//! and 64 connections, which are kept. The contenders take turns, in reversed order every
//! other round, and what counts is a ratio within one round: the CPU time, user and
//! system, that the *limit* takes for a request, by that of the contender. Requests a
//! second say little on a machine that others use too.
//!
//! | contender | what it is |
//! | --- | --- |
//! | limit | hyper, the body read and dropped, the same answer each time: ours, to the byte |
//! | floor | the same, and the work spawned, and its result dropped |
//! | ours | [`AsyncAcceptLayer`](tower_operations::AsyncAcceptLayer) and [`PollService`](tower_operations::PollService) over a [`MemoryStore`](tower_operations::MemoryStore), on hyper |
//! | hand | what is written by hand: axum, a `DashMap` of `serde_json::Value`, `tokio::spawn` |
//! | hand, careful | the same with the result kept as it came: `RawValue` |

#[path = "../support/hand.rs"]
mod by_hand;
#[path = "../support/report.rs"]
mod report;

mod answer;
mod child;
mod client;
mod contender;
mod cpu;
mod hand;
mod ids;
mod latency;
mod limit;
mod options;
mod ours;
#[path = "../support/plot/mod.rs"]
mod page;
mod plot;
mod rounds;
mod serve;
mod statistics;
mod table;
mod workload;

use self::{options::Options, table::Row, workload::Workload};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // What the benchmark starts: itself, as a server.
    if let Some(("serve", what)) = arguments.split_first().map(|(a, b)| (a.as_str(), b)) {
        return serve::serve(what);
    }
    let options = Options::parse(&arguments);
    let pinned = cpu::pin_this_process(cpu::CLIENT);

    let mut rows = Vec::new();
    let mut delays = Vec::new();
    for workload in Workload::ALL {
        let mut servers = child::start(workload, pinned.is_ok());
        let row = Row::new(workload, &rounds::measure(&mut servers, &options));
        if workload == Workload::AcceptLater {
            delays = latency::measure(&mut servers, row.slowest_rate() / 2.0, &options);
        }
        eprintln!(
            "{} {:?}",
            row.markdown(),
            row.cells.iter().map(|c| c.rate as u64).collect::<Vec<_>>()
        );
        rows.push(row);
    }

    println!("{}", table::costs(&rows));
    println!("{}", table::delays(&delays));
    if let Err(why) = pinned {
        println!("Nothing was pinned to a core, so these are no figures to compare: {why}.\n");
    }
    if let Some(path) = options.plot() {
        page::write(&path, &plot::svg(&rows));
        eprintln!("{} is drawn", path.display());
    }
}
