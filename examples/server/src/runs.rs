//! A log of all runs, to check that each operation ran once.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tower_operations::OperationHandle;

/// The log of runs: a line of JSON for each run that begins, ends or is dropped.
#[derive(Clone, Default)]
pub struct Runs(Option<Arc<RunFile>>);

struct RunFile {
    file: File,
    node: String,
}

#[derive(Serialize)]
struct Line<'a> {
    operation: Option<String>,
    attempt: u32,
    node: &'a str,
    title: &'a str,
    event: &'a str,
    /// In milliseconds after 1970.
    at: u128,
}

impl Runs {
    pub fn open(path: &Path, node: &str) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let node = node.to_owned();
        Ok(Self(Some(Arc::new(RunFile { file, node }))))
    }

    /// Records the begin of a run.
    pub fn begin(&self, operation: &OperationHandle, title: &str) -> Run {
        let run = Run {
            runs: self.clone(),
            operation: operation.clone(),
            title: title.to_owned(),
            ended: false,
        };
        run.record("begin");
        run
    }
}

/// A run in progress.
pub struct Run {
    runs: Runs,
    operation: OperationHandle,
    title: String,
    ended: bool,
}

impl Run {
    pub fn end(mut self) {
        self.ended = true;
        self.record("end");
    }

    /// Writes a line in one call, because several processes may write to the file.
    fn record(&self, event: &str) {
        let Some(log) = &self.runs.0 else { return };
        let (operation, title) = (&self.operation, &self.title);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let line = Line {
            operation: operation.id().map(ToString::to_string),
            attempt: operation.attempt(),
            node: &log.node,
            title,
            event,
            at: now.unwrap_or_default().as_millis(),
        };
        if let Ok(mut line) = serde_json::to_vec(&line) {
            line.push(b'\n');
            let _ = (&log.file).write_all(&line);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            self.record("dropped");
        }
    }
}
