//! Benchmark of the crate over HTTP, compared with the lower bounds and with an
//! implementation by hand.
//!
//! ```not_rust
//! cargo bench -p tower-operations-wire
//! ```
//!
//! prints everything as Markdown and draws `docs/wire.svg`, in about five minutes.
//! `-- --quick` takes less than a minute, is less precise, and does not draw the plot.
//! `-- --plot FILE` sets the file of the plot, also for a quick run.
//!
//! A server is a process of its own with one thread on core 0. The client has core 1 and 64
//! persistent connections. The contenders take turns, in reversed order every other round.
//! The result is a ratio within one round: the user and system CPU time of the *limit* per
//! request, divided by that of the contender. Requests per second say little on a shared
//! machine.
//!
//! | contender | description |
//! | --- | --- |
//! | limit | hyper; reads and drops the body, and sends a prepared answer of the crate |
//! | floor | the limit, which also spawns the handler and drops its result; for polls, the limit with as many separate bodies as there are operations, of which it sends one at random |
//! | ours | [`AsyncAcceptLayer`](tower_operations::AsyncAcceptLayer) and [`PollService`](tower_operations::PollService) over a [`MemoryStore`](tower_operations::MemoryStore), on hyper |
//! | ours, axum | the same in a router of axum, served as the implementation by hand is |
//! | hand | an implementation by hand: axum, a `DashMap` of `serde_json::Value`, `tokio::spawn` |
//! | hand, careful | an implementation by hand that stores results unparsed: `RawValue` |
//!
//! `cargo bench -p tower-operations-wire --profile lto --features mimalloc -- --plot FILE` builds
//! all contenders with thin link-time optimization, one code generation unit, and mimalloc.

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

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: tower_operations_wire::MiMalloc = tower_operations_wire::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The benchmark starts itself as a server.
    if let Some(("serve", names)) = arguments.split_first().map(|(a, b)| (a.as_str(), b)) {
        return serve::serve(names);
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
