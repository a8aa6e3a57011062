//! Nodes: processes of the `server` example, each with an address that outlives
//! it.

use std::time::Duration;

use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};
use tower_operations::checker::{Away, Entry, Kill};

use super::record::Record;
use crate::{private::free_port, process::Example};

/// A node may have to wait for its database.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) url: String,
    arguments: Vec<String>,
    state: Mutex<State>,
}

/// Whoever has it may disturb the node.
pub(crate) struct State {
    process: Option<Example>,
    /// When it could not be asked: dead, or not yet there again.
    down: Vec<(u64, u64)>,
}

impl Cluster {
    pub(crate) async fn start(nodes: usize, arguments: &[String]) -> Self {
        let nodes: Vec<_> = ('a'..)
            .take(nodes)
            .map(|name| Node::new(&name.to_string(), arguments))
            .collect();
        for node in &nodes {
            let mut state = node.state.lock().await;
            node.run(&mut state).await;
        }
        Self { nodes }
    }

    /// When no node at all could be asked.
    pub(crate) async fn absences(&self) -> Vec<Away> {
        let mut together = vec![(0, u64::MAX)];
        for node in &self.nodes {
            let state = node.state.lock().await;
            let both = |(begin, end): &(u64, u64)| {
                let (begin, end) = (*begin, *end);
                let common = state
                    .down
                    .iter()
                    .map(move |(from, to)| (begin.max(*from), end.min(*to)));
                common.collect::<Vec<_>>()
            };
            together = together.iter().flat_map(both).collect();
        }
        let away = |(begin, end)| Away {
            node: None,
            begin,
            end,
        };
        together
            .into_iter()
            .filter(|(begin, end)| begin < end)
            .map(away)
            .collect()
    }

    /// Ends every node.
    pub(crate) async fn end(&self) {
        for node in &self.nodes {
            let process = node.state.lock().await.process.take();
            if let Some(process) = process {
                process.signal("KILL").await;
                process.ended().await;
            }
        }
    }
}

impl Node {
    fn new(name: &str, arguments: &[String]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let own = ["--listen", &address, "--node", name].map(str::to_owned);
        Self {
            name: name.into(),
            url: format!("http://{address}"),
            arguments: arguments.iter().cloned().chain(own).collect(),
            state: Mutex::new(State {
                process: None,
                down: Vec::new(),
            }),
        }
    }

    /// To disturb it, alone.
    pub(crate) async fn disturb(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    /// SIGKILL, and a new process after a while.
    pub(crate) async fn kill(&self, state: &mut State, record: &Record, pause: Duration) {
        let at = record.now();
        self.end(state, "KILL").await;
        let node = self.name.clone();
        record.add(&Entry::Kill(Kill { node, at }));
        sleep(pause).await;
        self.run(state).await;
        state.down.push((at, record.now()));
    }

    /// SIGTERM, and a new process when it has drained.
    pub(crate) async fn drain(&self, state: &mut State, record: &Record) {
        let at = record.now();
        self.end(state, "TERM").await;
        self.run(state).await;
        state.down.push((at, record.now()));
    }

    /// SIGSTOP, and SIGCONT after a while: it wakes up and knows nothing of it.
    pub(crate) async fn stop(&self, state: &State, record: &Record, pause: Duration) {
        let process = state.process.as_ref().expect("it is running");
        let begin = record.now();
        process.signal("STOP").await;
        sleep(pause).await;
        process.signal("CONT").await;
        record.add(&Entry::Away(Away {
            node: Some(self.name.clone()),
            begin,
            end: record.now(),
        }));
    }

    async fn end(&self, state: &mut State, signal: &str) {
        let process = state.process.take().expect("it is running");
        process.signal(signal).await;
        process.ended().await;
    }

    /// Tries until it is there: its database may be away.
    async fn run(&self, state: &mut State) {
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        let begun = Instant::now();
        loop {
            match Example::start("server", &arguments).await {
                Ok(process) => break state.process = Some(process),
                Err(error) if begun.elapsed() > PATIENCE => panic!("{}: {error}", self.name),
                Err(error) if error.contains("Usage:") => panic!("{}: {error}", self.name),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
