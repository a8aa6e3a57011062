//! Nodes: processes of the `server` example or of `workers`. A node that serves HTTP keeps
//! its address across restarts. Customers reach it over a pool of connections.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use test_customers::{Cluster, Log};
use test_support::{
    private::{Folder, free_port},
    process::Example,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};
use tower_operations_conformance::checker::{Away, DrainEntry, Entry, Kill};

use super::record::Record;

/// The time-out of a start, in which a node may have to wait for its database.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Processes {
    /// The nodes that serve HTTP.
    pub(crate) nodes: Vec<Node>,
    pub(crate) workers: Vec<Node>,
    pool: Client<HttpConnector, Full<Bytes>>,
    /// The folder of the nodes' files.
    pub(crate) folder: Folder,
}

pub(crate) struct Node {
    pub(crate) name: String,
    /// The URL; empty for a worker.
    pub(crate) url: String,
    example: &'static str,
    arguments: Vec<String>,
    state: Mutex<State>,
}

/// The command that starts a node.
#[derive(Clone)]
pub(crate) struct Command {
    pub(crate) example: &'static str,
    pub(crate) arguments: Vec<String>,
}

impl Command {
    pub(crate) fn new(
        example: &'static str,
        subcommand: &[&str],
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let flags = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.into(), value]);
        Self {
            example,
            arguments: subcommand
                .iter()
                .map(ToString::to_string)
                .chain(flags)
                .collect(),
        }
    }
}

/// The state of a node, locked by a disturbance.
pub(crate) struct State {
    process: Option<Example>,
    /// The times at which the node did not serve.
    down: Vec<(u64, u64)>,
}

impl Processes {
    /// Starts the numbers of nodes and workers, whose files are in the folder.
    pub(crate) async fn start(
        folder: Folder,
        nodes: (usize, &Command),
        workers: (usize, &Command),
    ) -> Self {
        let named =
            |(count, command): (usize, &Command), first: char, make: fn(_, &Command) -> Node| {
                let names = (first..).take(count).map(|name| name.to_string());
                names.map(|name| make(name, command)).collect()
            };
        let this = Self {
            nodes: named(nodes, 'a', Node::serving),
            workers: named(workers, 'p', Node::worker),
            pool: Client::builder(TokioExecutor::new())
                // Only customers repeat requests, so that the log contains each of them.
                .retry_canceled_requests(false)
                .build_http(),
            folder,
        };
        for node in this.all() {
            let mut state = node.state.lock().await;
            node.run(&mut state).await;
        }
        this
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain(&self.workers)
    }

    /// Returns the times at which no node served.
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
        for node in self.all() {
            let process = node.state.lock().await.process.take();
            if let Some(process) = process {
                process.signal("KILL").await;
                process.wait().await;
            }
        }
    }
}

impl Cluster for Processes {
    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn name(&self, node: usize) -> &str {
        &self.nodes[node].name
    }

    fn url(&self, node: usize) -> &str {
        &self.nodes[node].url
    }

    async fn send(&self, _node: usize, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let response = self.pool.request(request.map(Full::new)).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Response::from_parts(parts, body))
    }

    async fn stream(
        &self,
        _node: usize,
        request: Request<Bytes>,
        body: &mut Vec<u8>,
    ) -> Option<Response<()>> {
        let response = self.pool.request(request.map(Full::new)).await.ok()?;
        let (head, mut frames) = response.into_parts();
        while let Some(Ok(frame)) = frames.frame().await {
            body.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        }
        Some(Response::from_parts(head, ()))
    }
}

impl Node {
    fn serving(name: String, command: &Command) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let url = format!("http://{address}");
        let own = ["--listen", &address, "--node", &name].map(str::to_owned);
        Self::new(name, url, command, &own)
    }

    fn worker(name: String, command: &Command) -> Self {
        let own = ["--name", &name].map(str::to_owned);
        Self::new(name, String::new(), command, &own)
    }

    fn new(name: String, url: String, command: &Command, own: &[String]) -> Self {
        Self {
            name,
            url,
            example: command.example,
            arguments: command.arguments.iter().chain(own).cloned().collect(),
            state: Mutex::new(State {
                process: None,
                down: Vec::new(),
            }),
        }
    }

    /// Locks the node for a disturbance.
    pub(crate) async fn disturb(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    /// Sends SIGKILL, and starts a new process when `meanwhile` is over. Returns the time of
    /// the start.
    pub(crate) async fn kill(
        &self,
        state: &mut State,
        record: &Record,
        meanwhile: impl Future<Output = ()>,
    ) -> u64 {
        let at = record.now();
        self.end(state, "KILL").await;
        meanwhile.await;
        self.run(state).await;
        let back = record.now();
        record.add(&Entry::Kill(Kill {
            node: self.name.clone(),
            at,
            back: Some(back),
        }));
        state.down.push((at, back));
        back
    }

    /// Sends SIGTERM, and starts a new process after the drain.
    pub(crate) async fn drain(&self, state: &mut State, record: &Record) {
        let begin = record.now();
        self.end(state, "TERM").await;
        record.add(&Entry::Drain(DrainEntry {
            node: self.name.clone(),
            begin,
            end: record.now(),
        }));
        self.run(state).await;
        state.down.push((begin, record.now()));
    }

    /// Sends SIGSTOP, and SIGCONT after a pause that the process does not notice.
    pub(crate) async fn stop(&self, state: &State, record: &Record, pause: Duration) {
        let process = state.process.as_ref().expect("the node is running");
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
        let process = state.process.take().expect("the node is running");
        process.signal(signal).await;
        process.wait().await;
    }

    /// Starts a process, and retries while the database is down.
    async fn run(&self, state: &mut State) {
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        let begun = Instant::now();
        loop {
            let started = match self.url.is_empty() {
                true => Example::start_until(self.example, &arguments, &[], "working as ").await,
                false => Example::start(self.example, &arguments).await,
            };
            match started {
                Ok(process) => break state.process = Some(process),
                Err(error) if begun.elapsed() > PATIENCE => panic!("{}: {error}", self.name),
                Err(error) if error.contains("Usage:") => panic!("{}: {error}", self.name),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
