//! The hours after the customers have left, in which recoveries sweep the result store.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use test_customers::Random;
use tokio::time::{Instant, sleep};
use tower_operations::{
    RecordedResponse,
    results::ResultKey,
    store::{FencingToken, Record},
};

use crate::{node::Node, process::RESULT_THRESHOLD, world::Nodes};

/// The time after which every upload is older than an hour, by the clocks of nodes and store, and
/// lists have it.
const HOURS: Duration = Duration::from_secs(125 * 60);
/// The time from one sweep to the next.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(10 * 60);
/// The time that a sweep takes at most.
const SWEEP: Duration = Duration::from_secs(60);

/// Ends all nodes, and runs the first one again after hours without faults. Then checks that the
/// result store has what the operations name, and nothing else.
pub(crate) async fn let_hours_pass(cluster: &Nodes, random: &mut Random) {
    for node in &cluster.nodes {
        node.power_off().await;
    }
    cluster.stores.network().heal();
    cluster.results.heal();
    // In some worlds the first sweep comes too early for some uploads.
    let (before, sweeps) = match random.one_in(4) {
        true => (HOURS - BETWEEN_SWEEPS, BETWEEN_SWEEPS + SWEEP),
        false => (HOURS, SWEEP),
    };
    sleep(before).await;
    let started = Instant::now();
    let node = &cluster.nodes[0];
    node.run();
    sleep(sweeps).await;
    for violation in broken_laws(cluster, node, started).await {
        cluster.results.add_violation(violation);
    }
    node.end();
}

/// Checks each operation that ever had an upload. Returns the broken laws.
async fn broken_laws(cluster: &Nodes, node: &Node, started: Instant) -> Vec<String> {
    let mut broken = Vec::new();
    let uploads = cluster.results.uploads();
    for id in cluster.results.operations() {
        let record = match node.read(id.clone()).await {
            Some(Ok(record)) => record,
            other => {
                broken.push(format!("{id}: not read at the end: {other:?}"));
                continue;
            }
        };
        let named = record.as_ref().and_then(named_upload);
        let all = uploads.iter().filter(|(key, _)| key.id == id);
        for (key, finished) in all {
            // An outcome of a younger one may not be recorded.
            if named != Some(key.token) && *finished < started {
                broken.push(format!("{key}: no operation names the upload after hours"));
            }
        }
        let Some(record) = record.filter(is_apart) else {
            continue;
        };
        let key = ResultKey::new(id, record.token());
        if !uploads.iter().any(|(other, _)| *other == key) {
            broken.push(format!(
                "{key}: an operation names the upload, which is lost"
            ));
        } else if !can_be_read(node, &record).await {
            broken.push(format!("{key}: the result cannot be read after hours"));
        }
    }
    broken
}

/// Returns the token of the upload that an operation names, or will name.
fn named_upload(record: &Record<RecordedResponse>) -> Option<FencingToken> {
    let is_named = !record.operation().state().is_terminal() || is_apart(record);
    is_named.then(|| record.token())
}

/// Returns whether the result of an operation is in the result store.
fn is_apart(record: &Record<RecordedResponse>) -> bool {
    let response = record.operation().response();
    response.is_some_and(|it| it.body().is_none() && it.body_len() as u64 > RESULT_THRESHOLD)
}

/// Reads the result of an operation as its owner does.
async fn can_be_read(node: &Node, record: &Record<RecordedResponse>) -> bool {
    let id = record.operation().id();
    let owner = record.owner().map_or("", |owner| owner.as_str());
    let request = Request::get(format!("/operations/{id}/result")).header("x-tenant", owner);
    let request = request.body(Bytes::new()).expect("a request");
    let answer = node.answer(request).await;
    let response = record.operation().response();
    match (answer, response) {
        (Some(answer), Some(response)) => {
            answer.status() == response.status() && answer.body().len() == response.body_len()
        }
        _ => false,
    }
}
