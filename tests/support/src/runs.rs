//! The log of runs that nodes write.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::process::PATIENCE;

/// The file for `--runs`.
pub struct Runs(PathBuf);

impl Runs {
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns all complete lines.
    pub fn all(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Returns the lines about an operation.
    pub fn lines(&self, id: &str) -> Vec<Value> {
        let mut lines = self.all();
        lines.retain(|line| line["operation"] == id);
        lines
    }

    /// Returns the nodes that started a run of an operation, in order.
    pub fn nodes(&self, id: &str) -> Vec<String> {
        let mut lines = self.lines(id);
        lines.retain(|line| line["event"] == "begin");
        let node = |line: &Value| line["node"].as_str().unwrap().to_owned();
        lines.iter().map(node).collect()
    }

    /// Waits for a line about an operation with this event and node.
    pub async fn line(&self, id: &str, event: &str, node: &str) -> Value {
        let begun = Instant::now();
        loop {
            let lines = self.lines(id);
            let found = lines
                .iter()
                .find(|line| line["event"] == event && line["node"] == node);
            if let Some(line) = found {
                return line.clone();
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "no {event} at {node}: {lines:?}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }
}
