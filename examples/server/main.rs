//! Everything under one command line: for people, for scripts and for
//! measuring.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --example server -- --listen 127.0.0.1:3000
//! cargo run --example server -- --help
//! ```
//!
//! and try
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","pages":5,"page_ms":200}'
//! curl -i 127.0.0.1:3000/operations/ID                where it stands
//! curl -i '127.0.0.1:3000/operations/ID?wait=30'      the same, once it is done
//! curl -i 127.0.0.1:3000/operations/ID/result         what the service answered
//! curl -i 127.0.0.1:3000/operations/ID -X DELETE      cancel it
//! ```
//!
//! A report can end otherwise:
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","outcome":"problem"}'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","outcome":"error"}'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","outcome":"panic"}'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","outcome":"hang"}'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","format":"pdf","bytes":100000}'
//! curl -i 127.0.0.1:3000/reports -d 'this is no JSON'
//! ```
//!
//! With `--accept preferred`, `signaled` or `after:SECONDS`, `--idempotency optional`
//! or `required`, and `--list`:
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3"}' -H 'prefer: respond-async'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3"}' -H 'idempotency-key: "8e03978e"'
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3"}' -H 'x-tenant: acme'
//! curl -i 127.0.0.1:3000/operations/ -H 'x-tenant: acme'
//! curl -N 127.0.0.1:3000/operations/ID/events -H 'x-tenant: acme'
//! ```
//!
//! With `--dialect azure`, `arm`, `google`, `odata`, `fhir`, `ogc`, `durable` or `ipa` its
//! clients can poll it as they are. Reports are ordered at `POST /reports`, but with
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/processes/report/execution -d '{"inputs":{"title":"Q3"}}'    ogc
//! curl -i 127.0.0.1:3000/orchestrators/report -d '{"title":"Q3"}'                     durable
//! curl -i '127.0.0.1:3000/$export?title=Q3' -H 'prefer: respond-async'                fhir
//! ```
//!
//! The header `x-tenant` says whose a request is. What is a tenant's is there for
//! that tenant alone.
//!
//! SIGTERM or Ctrl-C drains: no new work is taken, what is running may finish,
//! polls are answered meanwhile. A second one does not wait.

mod cli;
mod dialects;
mod reports;
mod runs;
mod stores;

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use axum::serve::ListenerExt;
use clap::{CommandFactory, Parser, error::ErrorKind};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::timeout,
};
use tower::BoxError;
use tower_operations::DrainReport;

use crate::cli::{Args, NoApp};

/// How long the last answers may take after the drain.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let app = args.app(listener.local_addr()?).await;
    let (app, drain) = app.map_err(|error| match error {
        NoApp::BaseUrl(_) => Args::command()
            .error(ErrorKind::ValueValidation, error)
            .exit(),
        NoApp::Runs(_) | NoApp::Store(_) => error.to_string(),
    })?;
    let mut signals = Signals::new()?;
    say(format_args!(
        "listening on http://{}",
        listener.local_addr()?
    ));

    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let (stop, stopped) = oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(async {
        let _: Result<(), _> = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    signals.next().await;
    let report = tokio::select! {
        report = drain.drain(args.drain) => report,
        () = signals.next() => return Err("stopped before the drain was over".into()),
    };
    let _ = stop.send(());
    let _ = timeout(LAST_ANSWERS, server).await;
    say_report(&report);
    Ok(())
}

/// SIGTERM and Ctrl-C, from when it is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn say_report(report: &DrainReport) {
    let (finished, took) = (report.finished, report.took);
    let (interrupted, unrecorded) = (&report.interrupted, &report.unrecorded);
    let released = &report.released;
    say(format_args!(
        "drained in {took:.1?}: {finished} finished, {} interrupted, {} unrecorded",
        interrupted.len(),
        unrecorded.len(),
    ));
    for id in interrupted {
        say(format_args!("interrupted {id}"));
    }
    for id in released {
        say(format_args!("released {id}"));
    }
    for id in unrecorded {
        say(format_args!("unrecorded {id}"));
    }
}

/// Prints a line at once. Whoever started this may have stopped reading.
fn say(line: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
