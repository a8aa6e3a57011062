//! The same seed gives the same requests at the same times, on a paused clock.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::json;
use test_customers::{Cluster, Customer, Log, Random, World, confirm};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_operations_conformance::checker::Entry;

/// The number of customers.
const CUSTOMERS: usize = 8;
/// The number of orders.
const ORDERS: usize = 200;

/// Three nodes that answer at random, and lose some of the requests.
struct Unreliable {
    operations: Mutex<Operations>,
}

struct Operations {
    random: Random,
    /// The tenants of the operations, by id.
    tenants: BTreeMap<String, String>,
}

impl Cluster for Unreliable {
    fn nodes(&self) -> usize {
        3
    }

    fn name(&self, node: usize) -> &str {
        ["a", "b", "c"][node]
    }

    fn url(&self, _node: usize) -> &str {
        ""
    }

    async fn send(&self, _node: usize, request: Request<Bytes>) -> Option<Response<Bytes>> {
        assert_eq!(request.uri().authority(), None);
        let (delay, answer) = self.operations.lock().unwrap().answer(&request);
        sleep(delay).await;
        answer
    }

    async fn stream(
        &self,
        node: usize,
        request: Request<Bytes>,
        body: &mut Vec<u8>,
    ) -> Option<Response<()>> {
        let (head, sent) = self.send(node, request).await?.into_parts();
        body.extend_from_slice(&sent);
        Some(Response::from_parts(head, ()))
    }
}

impl Operations {
    fn answer(&mut self, request: &Request<Bytes>) -> (Duration, Option<Response<Bytes>>) {
        let delay = Duration::from_millis(self.random.between(1, 3_000));
        let answer = match self.random.below(10) {
            // Longer than any customer waits.
            0 => return (Duration::from_secs(60), None),
            1 => return (delay, None),
            2 => response(StatusCode::SERVICE_UNAVAILABLE, &[], ""),
            _ => self.serve(request),
        };
        (delay, Some(answer))
    }

    fn serve(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let tenant = request.headers()["x-tenant"].to_str().unwrap();
        let path = request.uri().path();
        let id = path.trim_start_matches("/operations/");
        let id = id.trim_end_matches("/result");
        if request.method() == Method::POST {
            let chosen = request.headers().get("operation-id");
            let id = chosen.map(|id| id.to_str().unwrap().to_owned());
            let id = id.unwrap_or_else(|| format!("{:x}", self.random.next_u64()));
            let location = format!("/operations/{id}");
            self.tenants.insert(id, tenant.into());
            return response(StatusCode::ACCEPTED, &[("location", &location)], "");
        }
        if id.is_empty() {
            let own = self.tenants.iter().filter(|(_, owner)| *owner == tenant);
            let own: Vec<_> = own.map(|(id, _)| json!({ "id": id })).collect();
            let page = json!({ "operations": own, "next": null });
            return response(StatusCode::OK, &[], &page.to_string());
        }
        if self.tenants.get(id).is_none_or(|owner| owner != tenant) {
            return response(StatusCode::NOT_FOUND, &[], "");
        }
        if request.method() == Method::DELETE && request.headers().contains_key("if-match") {
            self.tenants.remove(id);
            return response(StatusCode::NO_CONTENT, &[], "");
        }
        if path.ends_with("/result") {
            let report = json!({ "title": "report", "pages": 1 }).to_string();
            return response(StatusCode::OK, &[("operation-result", "success")], &report);
        }
        let (version, state) = match self.random.below(3) {
            0 => (2, "succeeded"),
            _ => (1, "running"),
        };
        let etag = format!("W/\"{version}-0\"");
        let operation = json!({ "state": state }).to_string();
        if request.headers().contains_key("accept") {
            let event = format!("id: {version}-0\nevent: {state}\ndata: {operation}\n\n: broken");
            return response(StatusCode::OK, &[], &event);
        }
        response(StatusCode::OK, &[("etag", &etag)], &operation)
    }
}

fn response(status: StatusCode, fields: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .unwrap()
}

/// The lines of a log.
struct Lines {
    begun: Instant,
    lines: Mutex<Vec<String>>,
}

impl Log for Lines {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    fn add(&self, entry: &Entry) {
        self.lines.lock().unwrap().push(entry.to_line().unwrap());
    }
}

/// Returns the log of customers with this seed.
fn log_of(seed: u64) -> Vec<String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let operations = Operations {
            random: Random::new(seed),
            tenants: BTreeMap::new(),
        };
        let cluster = Unreliable {
            operations: Mutex::new(operations),
        };
        let log = Lines {
            begun: Instant::now(),
            lines: Mutex::default(),
        };
        let world = Arc::new(World::new(cluster, log, seed, ORDERS));
        let mut customers = JoinSet::new();
        for number in 0..CUSTOMERS {
            customers.spawn(Customer::new(Arc::clone(&world), number).place_orders());
        }
        world.wait_for_part(0.5).await;
        let mut holding = Customer::new(Arc::clone(&world), CUSTOMERS);
        holding.hold_at(1, "held").await;
        customers.join_all().await;
        world.wait_for_part(1.0).await;
        confirm(&world).await;
        assert!(world.tally().accepted >= ORDERS / 2, "{:?}", world.tally());
        world.log.lines.lock().unwrap().clone()
    })
}

#[test]
fn a_seed_gives_the_same_log_again() {
    let log = log_of(7);
    assert!(log.len() > 5 * ORDERS, "{}", log.len());
    assert!(log == log_of(7), "the logs differ");
    assert!(log != log_of(8), "the logs of two seeds are the same");
}
