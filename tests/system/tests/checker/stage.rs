//! Two nodes on one store, and clients that log the answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, body::Body, extract::Extension, routing::post};
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use test_customers::{ClientRequest, answer, text};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tower::ServiceExt;
use tower_operations::{
    FailureKind, Idempotency, MemoryStore, OperationHandle, Operations, Outcome, State,
    store::{Lease, LeaseConfig, NodeId, Owner, Repository},
};
use tower_operations_conformance::checker::{
    Call, CallAnswer, CallRequest, Entry, Kill, Rules, RunEntry, RunEvent, Verdict, check,
};

use crate::lawless::{FaultyStore, Law, Shared};

/// The default tenant of a request.
pub(crate) const TENANT: &str = "tenant";

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

const NAMES: [&str; 2] = ["a", "b"];

pub(crate) struct Stage {
    nodes: Vec<Node>,
    log: Arc<Log>,
    /// Whether reports may be printed.
    print: watch::Sender<bool>,
}

struct Node {
    app: Router,
    store: FaultyStore,
    awake: watch::Sender<bool>,
}

struct Log {
    begun: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Log {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    fn add(&self, entry: Entry) {
        self.entries.lock().unwrap().push(entry);
    }
}

impl Stage {
    pub(crate) fn new(broken: Option<Law>) -> Self {
        let log = Arc::new(Log {
            begun: Instant::now(),
            entries: Mutex::default(),
        });
        let shared = Arc::new(Shared {
            memory: MemoryStore::new(),
            forced: Mutex::default(),
        });
        let print = watch::Sender::new(false);
        let node = |name| {
            let awake = watch::Sender::new(true);
            let store = FaultyStore {
                node: NodeId::named(name),
                broken,
                shared: Arc::clone(&shared),
                awake: awake.subscribe(),
                read: Arc::default(),
            };
            let reports = Reports {
                node: name,
                log: Arc::clone(&log),
                print: print.subscribe(),
            };
            Node {
                app: app(&store, reports),
                store,
                awake,
            }
        };
        Self {
            nodes: NAMES.map(node).into(),
            log,
            print,
        }
    }

    /// Posts a report, asserts that the answer is a 202, and returns the operation.
    pub(crate) async fn post_accepted(
        &self,
        node: usize,
        title: &str,
        key: Option<&str>,
    ) -> String {
        match self.post(TENANT, node, title, key, None).await {
            CallAnswer::Accepted { operation } => operation,
            other => panic!("{other:?}"),
        }
    }

    /// Posts a report with a key, and with the id that the log has under this name.
    pub(crate) async fn post(
        &self,
        tenant: &str,
        node: usize,
        title: &str,
        key: Option<&str>,
        id: Option<&str>,
    ) -> CallAnswer {
        let ask = CallRequest::Post {
            title: title.into(),
            key: key.map(str::to_owned),
            id: id.map(str::to_owned),
            hold: None,
        };
        let body = json!({ "title": title }).to_string();
        let request = ClientRequest {
            body: body.into(),
            ..client_request(tenant, ask)
        };
        self.ask(node, request).await.0
    }

    /// Deletes an ended operation.
    pub(crate) async fn delete(&self, node: usize, operation: &str) -> CallAnswer {
        let poll = CallRequest::Poll {
            operation: operation.into(),
            wait: None,
            since: None,
        };
        let (_, etag) = self.ask(node, client_request(TENANT, poll)).await;
        let operation = operation.into();
        let delete = ClientRequest {
            known: etag.as_deref(),
            ..client_request(TENANT, CallRequest::Delete { operation })
        };
        self.ask(node, delete).await.0
    }

    pub(crate) async fn poll(&self, node: usize, operation: &str) -> Option<State> {
        self.poll_for_end(node, operation, Duration::ZERO).await
    }

    /// Polls an operation, and waits for its end.
    pub(crate) async fn poll_for_end(
        &self,
        node: usize,
        operation: &str,
        wait: Duration,
    ) -> Option<State> {
        let wait = u64::try_from(wait.as_millis()).unwrap();
        let ask = CallRequest::Poll {
            operation: operation.into(),
            wait: (wait > 0).then_some(wait),
            since: None,
        };
        self.poll_state(TENANT, node, ask).await
    }

    /// Polls an operation as a tenant.
    pub(crate) async fn poll_as(
        &self,
        tenant: &str,
        node: usize,
        operation: &str,
    ) -> Option<State> {
        let ask = CallRequest::Poll {
            operation: operation.into(),
            wait: None,
            since: None,
        };
        self.poll_state(tenant, node, ask).await
    }

    async fn poll_state(&self, tenant: &str, node: usize, ask: CallRequest) -> Option<State> {
        match self.ask(node, client_request(tenant, ask)).await.0 {
            CallAnswer::Operation(sighting) => Some(sighting.state),
            _ => None,
        }
    }

    pub(crate) async fn cancel(&self, node: usize, operation: &str) -> CallAnswer {
        let operation = operation.into();
        let cancel = client_request(TENANT, CallRequest::Cancel { operation });
        self.ask(node, cancel).await.0
    }

    /// Waits until the inner service runs.
    pub(crate) async fn wait_until_running(&self, operation: &str) {
        let has_begun = || {
            let entries = self.log.entries.lock().unwrap();
            entries
                .iter()
                .any(|entry| matches!(entry, Entry::Run(run) if run.operation == operation))
        };
        while !has_begun() {
            sleep(Duration::from_millis(1)).await;
        }
        self.settle().await;
    }

    /// Lets every report be printed.
    pub(crate) fn print(&self) {
        self.print.send_replace(true);
    }

    /// Waits until all tasks are idle. The paused clock makes the wait instant.
    pub(crate) async fn settle(&self) {
        sleep(Duration::from_secs(2)).await;
    }

    pub(crate) fn stop(&self, node: usize) {
        self.nodes[node].awake.send_replace(false);
    }

    pub(crate) fn resume(&self, node: usize) {
        self.nodes[node].awake.send_replace(true);
    }

    /// Stops a node for good.
    pub(crate) fn kill(&self, node: usize) {
        self.stop(node);
        let (node, at) = (NAMES[node].into(), self.log.now());
        self.log.add(Entry::Kill(Kill {
            node,
            at,
            back: None,
        }));
    }

    /// Reclaims the operations with expired leases, and ends them as interrupted.
    pub(crate) async fn interrupt_expired(&self, node: usize) {
        sleep(LEASE).await;
        let store = &self.nodes[node].store;
        let lease = LeaseConfig::new(store.node.clone(), LEASE);
        for reclaimed in store.reclaim(&lease, 100).await.unwrap() {
            let (id, token) = (reclaimed.record.operation().id(), reclaimed.record.token());
            let outcome = Outcome::failed(FailureKind::Interrupted);
            store.finish(id, token, outcome, None).await.unwrap();
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let rules = Rules::new().lease(LEASE);
        check(&*self.log.entries.lock().unwrap(), &rules)
    }

    async fn ask(&self, node: usize, request: ClientRequest<'_>) -> (CallAnswer, Option<String>) {
        let begin = self.log.now();
        let sent: Request<Body> = request.to_http("").map(Body::from);
        let app = self.nodes[node].app.clone();
        let Ok(response) = app.oneshot(sent).await;
        let (parts, body) = Response::into_parts(response);
        let body = body.collect().await.unwrap().to_bytes();
        let answer = answer(&request.ask, parts.status, &parts.headers, &body);
        self.log.add(Entry::Call(Call {
            client: request.tenant.into(),
            owner: Some(request.tenant.into()),
            node: NAMES[node].into(),
            begin,
            end: self.log.now(),
            ask: request.ask,
            answer: answer.clone(),
        }));
        let etag = text(&parts.headers, "etag").map(str::to_owned);
        (answer, etag)
    }
}

fn client_request(tenant: &str, ask: CallRequest) -> ClientRequest<'_> {
    ClientRequest {
        tenant,
        ask,
        body: Bytes::new(),
        known: None,
    }
}

/// Longer than the leases of the layer.
const LEASE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Reports {
    node: &'static str,
    log: Arc<Log>,
    print: watch::Receiver<bool>,
}

fn tenant(parts: &Parts) -> Option<Owner> {
    let tenant = parts.headers.get("x-tenant")?;
    tenant.to_str().ok().map(Owner::new)
}

fn app(store: &FaultyStore, reports: Reports) -> Router {
    let layer = Operations::new(store.clone())
        .owner(tenant)
        .layer()
        .idempotency(Idempotency::optional().client_ids());
    let polls = Operations::new(store.clone());
    let polls = match store.breaks(Law::Owners) {
        true => polls.owner(|_: &Parts| Some(Owner::new(TENANT))),
        false => polls.owner(tenant),
    };
    let polls = polls.poll_service();
    Router::new()
        .route("/reports", post(report).route_layer(layer))
        .nest_service("/operations", polls)
        .layer(Extension(reports))
}

async fn report(
    Extension(reports): Extension<Reports>,
    Extension(operation): Extension<OperationHandle>,
    body: String,
) -> Json<Value> {
    let order: Value = serde_json::from_str(&body).unwrap();
    let title = order["title"].as_str().unwrap();
    let run = |event| {
        Entry::Run(RunEntry {
            operation: operation.id().unwrap().to_string(),
            attempt: operation.attempt(),
            node: reports.node.into(),
            title: title.into(),
            event,
            at: reports.log.now(),
        })
    };
    reports.log.add(run(RunEvent::Begin));
    let mut print = reports.print.clone();
    print.wait_for(|print| *print).await.unwrap();
    reports.log.add(run(RunEvent::End));
    Json(json!({ "title": title, "pages": 1 }))
}
