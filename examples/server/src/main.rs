//! A server with all settings on its command line, for people, scripts and benchmarks.
//!
//! Run with
//!
//! ```not_rust
//! cargo run -p server -- --listen 127.0.0.1:3000
//! cargo run -p server -- --help
//! ```
//!
//! and try
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","pages":5,"page_ms":200}'
//! curl -i 127.0.0.1:3000/operations/ID                its current state
//! curl -i '127.0.0.1:3000/operations/ID?wait=30'      the same, when it is done
//! curl -i 127.0.0.1:3000/operations/ID/result         what the service answered
//! curl -i 127.0.0.1:3000/operations/ID -X DELETE      cancel it
//! ```
//!
//! Reports with other outcomes:
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
//! With `--results file:FOLDER` or `--results s3://BUCKET` results may have any length:
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/reports -d '{"title":"Q3","format":"pdf","bytes":2147483648}'
//! curl 127.0.0.1:3000/operations/ID/result | sha256sum    its x-checksum
//! curl -r 1000000-1000099 127.0.0.1:3000/operations/ID/result
//! ```
//!
//! The bucket of another server than that of AWS has its address in the URL:
//! `s3://BUCKET?endpoint=http://127.0.0.1:9000`.
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
//! With `--dialect azure`, `arm`, `google`, `odata`, `fhir`, `ogc`, `durable` or `ipa` the
//! clients of that dialect can poll the server. Reports are ordered at `POST /reports`,
//! except with
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/processes/report/execution -d '{"inputs":{"title":"Q3"}}'    ogc
//! curl -i 127.0.0.1:3000/orchestrators/report -d '{"title":"Q3"}'                     durable
//! curl -i '127.0.0.1:3000/$export?title=Q3' -H 'prefer: respond-async'                fhir
//! ```
//!
//! The header `x-tenant` names the owner of a request. A tenant sees only its own
//! operations.
//!
//! With `--queue postgres://…` or `redis://…` accepted requests run in `workers worker`
//! processes on that queue (see `examples/workers`). With `--results`, give the same value to the
//! workers: they read long requests from there, and upload long results.
//!
//! SIGTERM or Ctrl-C drains: no new work is accepted, running operations may finish,
//! and polls are answered meanwhile. A second signal ends the process at once.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use server::{cli::Args, serve};

#[tokio::main]
async fn main() -> ExitCode {
    serve::log();
    serve::exit(serve::serve(&Args::parse(), Args::command()).await)
}
