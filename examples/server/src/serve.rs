//! A listening process, and its shutdown.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use axum::serve::ListenerExt;
use clap::{Command, error::ErrorKind};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::timeout,
};
use tower::BoxError;
use tower_operations::DrainReport;

use crate::{app::AppError, cli::Args};

/// The shortest time for the last answers after the drain.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Logs to standard error.
pub fn log() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Prints an error with its causes to standard error, and returns the exit code.
pub fn exit(ended: Result<(), BoxError>) -> ExitCode {
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors already name their cause.
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

/// Serves until the drain is over. `command` reports arguments that conflict.
pub async fn serve(args: &Args, mut command: Command) -> Result<(), BoxError> {
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let app = args.app(listener.local_addr()?).await;
    let (app, drain) = app.map_err(|error| match error {
        AppError::BaseUrl(_) => command.error(ErrorKind::ValueValidation, error).exit(),
        AppError::AcceptConflictsWithQueue => {
            command.error(ErrorKind::ArgumentConflict, error).exit()
        }
        AppError::Queue(_) | AppError::Results(_) => error.to_string(),
        AppError::Runs(_) | AppError::Store(_) => error.to_string(),
    })?;
    let mut signals = Signals::new()?;
    print_line(format_args!(
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
    // Later requests, and requests outside of the layer, have the rest of the time.
    let left = args.drain.saturating_sub(report.took);
    let _ = timeout(left.max(LAST_ANSWERS), server).await;
    print_report(&report);
    Ok(())
}

/// SIGTERM and Ctrl-C, from the creation of this value.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

pub fn print_report(report: &DrainReport) {
    let (finished, took) = (report.finished, report.took);
    let (interrupted, unrecorded) = (&report.interrupted, &report.unrecorded);
    let (released, answered) = (&report.released, report.answered);
    let (refused, unanswered) = (report.refused, report.unanswered);
    print_line(format_args!(
        "drained in {took:.1?}: {finished} finished, {} interrupted, {} unrecorded",
        interrupted.len(),
        unrecorded.len(),
    ));
    if answered + refused + unanswered > 0 {
        print_line(format_args!(
            "requests: {answered} answered, {refused} refused, {unanswered} unanswered"
        ));
    }
    for id in interrupted {
        print_line(format_args!("interrupted {id}"));
    }
    for id in released {
        print_line(format_args!("released {id}"));
    }
    for id in unrecorded {
        print_line(format_args!("unrecorded {id}"));
    }
}

/// Prints a line at once. Errors are ignored, because the reader of the output may be gone.
pub fn print_line(line: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
