//! The same slow service as `server`, where the processes that answer HTTP do not run the
//! requests: fronts put them into a queue of apalis, and workers run them. Queue and store
//! are in one PostgreSQL, or one Redis.
//!
//! Run with a PostgreSQL or a Redis that you have:
//!
//! ```not_rust
//! cargo run -p workers -- --help
//! W=target/debug/workers Q=postgres://user@127.0.0.1/db
//! $W front --queue $Q &
//! for NAME in one two three; do $W worker --queue $Q --name $NAME & done > workers.log
//! ```
//!
//! and try
//!
//! ```not_rust
//! for i in 1 2 3 4 5 6; do
//!   curl -s 127.0.0.1:3000/reports -d '{"title":"Q3","pages":20,"page_ms":200}'; echo
//! done
//! cat workers.log
//! set -- $(tail -n 1 workers.log)
//! kill -9 $7
//! curl -i "127.0.0.1:3000/operations/$4?wait=30"
//! cat workers.log
//! ```
//!
//! The log names the worker of each run, as `worker two runs ID in process PID`. The
//! operations of the killed worker are reclaimed when their leases expire, after 10
//! seconds, and run on another worker, where they succeed at the second attempt. A front
//! accepts all options of `server` (`workers front --help`).
//!
//! With `--results file:FOLDER` or `--results s3://BUCKET`, the same for the front and every worker,
//! requests and results of more than 256 KiB go there and not through the queue:
//!
//! ```not_rust
//! $W front --queue $Q --results file:results &
//! $W worker --queue $Q --results file:results --name one &
//! curl -s 127.0.0.1:3000/reports -d '{"title":"Q3","format":"pdf","bytes":100000000}'
//! ```
//!
//! SIGTERM or Ctrl-C drains a worker: the worker takes no more reports, finishes running
//! ones if there is time, and releases the rest to the other workers.

mod engine;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use server::{cli, serve};

/// A slow service whose requests are accepted by fronts and run by workers.
#[derive(Parser)]
#[command(name = "workers")]
enum Command {
    /// Answers HTTP, and puts accepted reports into the queue.
    Front(Box<cli::Args>),
    /// Takes reports from the queue and renders them.
    Worker(Box<worker::Args>),
}

#[tokio::main]
async fn main() -> ExitCode {
    serve::log();
    serve::exit(match Command::parse() {
        Command::Front(args) if args.queue.is_none() => Command::command()
            .error(
                ErrorKind::MissingRequiredArgument,
                "a front needs a --queue",
            )
            .exit(),
        Command::Front(args) => serve::serve(&args, Command::command()).await,
        Command::Worker(args) => worker::work(&args).await,
    })
}
