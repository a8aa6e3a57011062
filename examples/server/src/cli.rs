//! The command line.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, ValueEnum, builder::ArgPredicate};

use crate::{dialects::DialectKind, queue::QueueUrl, results::LongResults, stores::StoreKind};

/// A slow service whose requests are accepted at once.
#[derive(Parser)]
#[command(name = "server")]
pub struct Args {
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    pub listen: SocketAddr,
    /// Where operations are kept: `memory`, `redb:PATH`, `postgres://…` or
    /// `redis://…`. With `--queue` they are where the queue is.
    #[arg(long, value_name = "STORE", default_value = "memory")]
    #[arg(conflicts_with("queue"))]
    pub store: StoreKind,
    /// Dispatches accepted reports to the workers of this queue: `postgres://…` or
    /// `redis://…`.
    #[arg(long, value_name = "URL")]
    pub queue: Option<QueueUrl>,
    /// How long a report may be in the queue before it is dispatched again.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = positive_seconds)]
    pub claimed_within: Duration,
    /// The name of this node, where several share a store.
    #[arg(long, value_name = "NAME", default_value = "server")]
    pub node: String,
    /// The time after which other nodes reclaim the operations of a silent node. With
    /// `--queue` it only determines how soon the operations of a dead worker are found, and
    /// is 10 by default.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = positive_seconds)]
    #[arg(default_value_if("queue", ArgPredicate::IsPresent, "10"))]
    pub lease: Duration,
    /// The policy for operations whose node has died: they `fail`, or they are rerun, with at most
    /// N attempts in all (`rerun:N`). With `--queue` the default is 3 attempts.
    #[arg(long, value_name = "POLICY", default_value = "fail")]
    #[arg(default_value_if("queue", ArgPredicate::IsPresent, "rerun:3"))]
    pub on_interrupted: OnInterrupted,
    /// A file to which a line is added whenever a report is begun, ended or dropped.
    #[arg(long, value_name = "PATH")]
    pub runs: Option<PathBuf>,
    /// The dialect of the answers, which also sets the paths by which reports are ordered
    /// and polled.
    #[arg(long, value_name = "DIALECT", default_value = "plain")]
    pub dialect: DialectKind,
    /// When a request is answered with a 202: `always`, `preferred` (only with
    /// `Prefer: respond-async`), `signaled` (once the order has been read), or
    /// `after:SECONDS` (if its answer takes longer than that).
    #[arg(long, value_name = "WHEN", default_value = "always")]
    pub accept: Acceptance,
    /// The handling of an `Idempotency-Key`.
    #[arg(long, value_name = "KEYS", default_value = "off")]
    pub idempotency: Keys,
    /// Lets clients choose the ids of their operations, in `Operation-Id`; the dialect
    /// `azure` always does.
    #[arg(long)]
    pub client_ids: bool,
    /// Lets a tenant list its operations, with `GET /operations/`; the dialects that
    /// have a list of their own always do, those that have none never.
    #[arg(long)]
    pub list: bool,
    /// Makes every `Location` absolute; by default they are where the dialect's
    /// clients need it, with the address that is listened on.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The maximum number of operations pending or running; past it the answer is 503. Each tenant may
    /// have a quarter of them, and so may all orders without a tenant together.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// The maximum number of bytes of request bodies and results in memory; past it the answer is
    /// 503. The bodies of each tenant may take a quarter of them.
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024 * 1024)]
    pub max_bytes_in_flight: usize,
    /// The maximum number of reports rendered at a time; the others are pending.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    /// How long a report may take.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = positive_seconds)]
    pub timeout: Duration,
    /// How long an operation is kept after it ended.
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = seconds)]
    pub ttl: Duration,
    /// The largest request body.
    #[arg(long, value_name = "BYTES", default_value_t = 2 * 1024 * 1024)]
    pub body_limit: usize,
    #[command(flatten)]
    pub long_results: LongResults,
    /// How long a drain waits for running operations.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub drain: Duration,
}

/// Parses a positive number of seconds, for leases and time-outs.
pub fn positive_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("expected more than 0 seconds".into()),
        positive => Ok(positive),
    }
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[derive(Clone, Copy)]
pub enum OnInterrupted {
    Fail,
    Rerun(u32),
}

impl FromStr for OnInterrupted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let attempts = text.strip_prefix("rerun:").map(str::parse);
        match (text, attempts) {
            ("fail", _) => Ok(Self::Fail),
            (_, Some(Ok(attempts @ 1..))) => Ok(Self::Rerun(attempts)),
            _ => Err("expected `fail` or `rerun:N`, N at least 1".into()),
        }
    }
}

#[derive(Clone, Copy)]
pub enum Acceptance {
    Always,
    Preferred,
    Signaled,
    After(Duration),
}

impl FromStr for Acceptance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("after:")) {
            ("always", _) => Ok(Self::Always),
            ("preferred", _) => Ok(Self::Preferred),
            ("signaled", _) => Ok(Self::Signaled),
            (_, Some(limit)) => seconds(limit).map(Self::After),
            _ => Err("expected `always`, `preferred`, `signaled` or `after:SECONDS`".into()),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Keys {
    Off,
    Optional,
    Required,
}
