//! Two nodes over one store, and clients that write down what they are told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, body::Body, extract::Extension, routing::post};
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};
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

use crate::{
    lawless::{Law, Lawless, Shared},
    wish::{Wish, answer, text},
};

/// Who asks, unless it is said.
pub(crate) const TENANT: &str = "tenant";

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

const NAMES: [&str; 2] = ["a", "b"];

pub(crate) struct Stage {
    nodes: Vec<Node>,
    log: Arc<Log>,
    /// True as soon as reports may be printed.
    print: watch::Sender<bool>,
}

struct Node {
    app: Router,
    store: Lawless,
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
            let store = Lawless {
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

    /// Posts what is accepted, and gives the operation.
    pub(crate) async fn accepted(&self, node: usize, title: &str, key: Option<&str>) -> String {
        match self.post(TENANT, node, title, key, None).await {
            CallAnswer::Accepted { operation } => operation,
            other => panic!("{other:?}"),
        }
    }

    /// Posts under a key, and under the id that the log calls so.
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
        };
        let body = json!({ "title": title }).to_string();
        let wish = Wish {
            body: body.into(),
            ..wish(tenant, ask)
        };
        self.ask(node, wish).await.0
    }

    /// Asks for what has ended to be forgotten.
    pub(crate) async fn forget(&self, node: usize, operation: &str) -> CallAnswer {
        let poll = CallRequest::Poll {
            operation: operation.into(),
            wait: None,
            since: None,
        };
        let (_, etag) = self.ask(node, wish(TENANT, poll)).await;
        let operation = operation.into();
        let forget = Wish {
            known: etag.as_deref(),
            ..wish(TENANT, CallRequest::Forget { operation })
        };
        self.ask(node, forget).await.0
    }

    pub(crate) async fn poll(&self, node: usize, operation: &str) -> Option<State> {
        self.held(node, operation, Duration::ZERO).await
    }

    /// A poll that waits for the end.
    pub(crate) async fn held(&self, node: usize, operation: &str, wait: Duration) -> Option<State> {
        let wait = u64::try_from(wait.as_millis()).unwrap();
        let ask = CallRequest::Poll {
            operation: operation.into(),
            wait: (wait > 0).then_some(wait),
            since: None,
        };
        self.held_for(TENANT, node, ask).await
    }

    /// The same, by whoever asks.
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
        self.held_for(tenant, node, ask).await
    }

    async fn held_for(&self, tenant: &str, node: usize, ask: CallRequest) -> Option<State> {
        match self.ask(node, wish(tenant, ask)).await.0 {
            CallAnswer::Operation(sighting) => Some(sighting.state),
            _ => None,
        }
    }

    pub(crate) async fn cancel(&self, node: usize, operation: &str) -> CallAnswer {
        let operation = operation.into();
        let cancel = wish(TENANT, CallRequest::Cancel { operation });
        self.ask(node, cancel).await.0
    }

    /// Waits until the inner service has begun.
    pub(crate) async fn running(&self, operation: &str) {
        let has_begun = || {
            let entries = self.log.entries.lock().unwrap();
            entries
                .iter()
                .any(|entry| matches!(entry, Entry::Run(run) if run.operation == operation))
        };
        while !has_begun() {
            sleep(Duration::from_millis(1)).await;
        }
        self.a_while().await;
    }

    /// Lets every report be printed.
    pub(crate) fn print(&self) {
        self.print.send_replace(true);
    }

    /// Time for all that is going on. The clock is paused: it takes none.
    pub(crate) async fn a_while(&self) {
        sleep(Duration::from_secs(2)).await;
    }

    pub(crate) fn stop(&self, node: usize) {
        self.nodes[node].awake.send_replace(false);
    }

    pub(crate) fn goes_on(&self, node: usize) {
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

    /// Ends, as interrupted, all whose lease has expired.
    pub(crate) async fn take_over(&self, node: usize) {
        sleep(LEASE).await;
        let store = &self.nodes[node].store;
        let lease = LeaseConfig::new(store.node.clone(), LEASE);
        for taken in store.reclaim(&lease, 100).await.unwrap() {
            let (id, token) = (taken.record.operation().id(), taken.record.token());
            let outcome = Outcome::failed(FailureKind::Interrupted);
            store.finish(id, token, outcome, None).await.unwrap();
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let rules = Rules::new().lease(LEASE);
        check(&*self.log.entries.lock().unwrap(), &rules)
    }

    async fn ask(&self, node: usize, wish: Wish<'_>) -> (CallAnswer, Option<String>) {
        let begin = self.log.now();
        let request: Request<Body> = wish.request("").map(Body::from);
        let app = self.nodes[node].app.clone();
        let Ok(response) = app.oneshot(request).await;
        let (parts, body) = Response::into_parts(response);
        let body = body.collect().await.unwrap().to_bytes();
        let answer = answer(&wish.ask, parts.status, &parts.headers, &body);
        self.log.add(Entry::Call(Call {
            client: wish.tenant.into(),
            owner: Some(wish.tenant.into()),
            node: NAMES[node].into(),
            begin,
            end: self.log.now(),
            ask: wish.ask,
            answer: answer.clone(),
        }));
        let etag = text(&parts.headers, "etag").map(str::to_owned);
        (answer, etag)
    }
}

fn wish(tenant: &str, ask: CallRequest) -> Wish<'_> {
    Wish {
        tenant,
        ask,
        body: Bytes::new(),
        held: Duration::ZERO,
        known: None,
    }
}

/// More than a lease of the layer.
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

fn app(store: &Lawless, reports: Reports) -> Router {
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
