//! Kills of a process at any moment: the next process reads every acknowledged write, and
//! no operation is torn.

use std::{
    collections::{HashMap, HashSet},
    env,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use tower_operations::{
    OperationId, State,
    store::{
        Created, IdempotencyKey, Lease, List, ListQuery, NewOperation, Repository, Reservation,
        Store, Written,
    },
};
use tower_operations_redb::RedbStore;

use super::{create, lease, new_operation, private::Folder, success};

const FILE: &str = "OPERATIONS_KILL_FILE";
const KILLS: usize = 25;
const WRITERS: usize = 8;

fn text(id: &OperationId) -> String {
    let id = id.to_string();
    let times = id.as_bytes()[35] as usize; // from 48 to 102
    id.repeat(times)
}

fn key(id: &OperationId) -> IdempotencyKey {
    IdempotencyKey::new(None, format!("key of {id}"), [1; 32])
}

fn keyed_operation(id: &OperationId) -> NewOperation {
    new_operation(id).with_key(key(id))
}

/// The process that is killed; not a test by itself. The process prints a line for each
/// acknowledged write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(path) = env::var(FILE) else {
        return;
    };
    let store = RedbStore::open(path).unwrap();
    let print_step = |step: &str, id: &OperationId| {
        // The line is written in one call, so that no line is torn.
        let line = format!("{step} {id}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    };
    println!("open");
    let mut writing = tokio::task::JoinSet::<()>::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        writing.spawn(async move {
            loop {
                let id = OperationId::new();
                let token = create(&store, keyed_operation(&id)).await;
                print_step("created", &id);
                store.start(&id, token).await.unwrap();
                print_step("started", &id);
                let finished = store.finish(&id, token, success(text(&id)), None).await;
                let Written::Done(record) = finished.unwrap() else {
                    panic!("the operation was lost");
                };
                print_step("finished", &id);
                if id.to_string().ends_with(['0', '1', '2', '3']) {
                    print_step("deleting", &id);
                    let stamp = record.stamp().unwrap();
                    store.delete(&id, stamp).await.unwrap();
                    print_step("deleted", &id);
                }
            }
        });
    }
    // A writer ends only by a panic.
    if let Some(ended) = writing.join_next().await {
        ended.unwrap();
    }
}

/// The last printed step of each operation.
type Steps = HashMap<OperationId, &'static str>;

/// Runs the victim, and kills the process after `lines` lines.
fn run_and_kill(path: &Path, lines: usize, steps: &mut Steps) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["kill::victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut lines_read = None;
    for line in output.lines() {
        let line = line.unwrap();
        // The harness prints the name of the test on the same line.
        if line.ends_with("open") {
            lines_read = Some(0);
            continue;
        }
        let Some(count) = &mut lines_read else {
            continue;
        };
        if *count == lines {
            child.kill().unwrap(); // lines printed until then are read as well
        }
        *count += 1;
        let Some((step, id)) = line.split_once(' ') else {
            continue;
        };
        let Some(step) = ["created", "started", "finished", "deleting", "deleted"]
            .into_iter()
            .find(|word| *word == step)
        else {
            panic!("{line}");
        };
        steps.insert(id.parse().unwrap(), step);
    }
    let status = child.wait().unwrap();
    assert!(!status.success(), "the victim was not killed: {status}");
    assert!(
        lines_read.is_some_and(|count| count >= lines),
        "the victim ended by itself"
    );
}

async fn check(store: &RedbStore, steps: &Steps) {
    for (id, step) in steps {
        let record = store.get(id).await.unwrap();
        let state = record.as_ref().map(|record| record.operation().state());
        let is_there = match *step {
            "created" => state.is_some(),
            "started" => state.is_some_and(|state| state != State::Pending),
            "finished" => state == Some(State::Succeeded),
            "deleting" => state.is_none_or(|state| state == State::Succeeded),
            _ => state.is_none(),
        };
        assert!(is_there, "{id} was {step} and is {record:?}");
        // The key finds the same operation, even a deleted one.
        match store.create(keyed_operation(id)).await.unwrap() {
            Created::Existing(record) => assert_eq!(record.operation().id(), id),
            Created::KeyHeld(Reservation::Deleted(record)) => {
                assert!(matches!(*step, "deleting" | "deleted"), "{id} was {step}");
                assert_eq!(record.operation().id(), id);
            }
            other => panic!("{id} was {step} and its key gave {other:?}"),
        }
    }
}

/// Checks that every operation in the file is whole, and returns the ids.
async fn check_whole(store: &RedbStore) -> HashSet<OperationId> {
    let mut ids = HashSet::new();
    let mut query = ListQuery::new(None, 500);
    loop {
        let page = store.list(&query).await.unwrap();
        for record in &page.records {
            let operation = record.operation();
            let is_new = ids.insert(operation.id().clone());
            assert!(is_new, "{} is listed twice", operation.id());
            let found = store.get(operation.id()).await.unwrap();
            assert_eq!(found.as_ref(), Some(record));
            if let Some(result) = operation.result() {
                assert_eq!(result.body().unwrap(), text(operation.id()).as_bytes());
            }
            let has_result = operation.result().is_some();
            assert_eq!(has_result, operation.state() == State::Succeeded);
        }
        match page.next {
            Some(next) => query = query.with_after(next),
            None => return ids,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kills() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let mut steps = Steps::new();
    let mut reclaims = 0;
    for kill in 0..KILLS {
        run_and_kill(&path, kill * 37 % 200, &mut steps);
        let store = RedbStore::open(&path).unwrap();
        check(&store, &steps).await;
        let listed = check_whole(&store).await;
        let missing = |(id, step): &(&OperationId, &&str)| {
            !listed.contains(*id) && !matches!(**step, "deleting" | "deleted")
        };
        assert_eq!(
            steps.iter().find(missing),
            None,
            "an operation is not listed"
        );

        // The leases of the killed process are over, so the next process can finish its operations.
        let lease = lease();
        for reclaimed in store.reclaim(&lease, 1000).await.unwrap() {
            let operation = reclaimed.record.operation();
            let (id, token) = (operation.id().clone(), reclaimed.record.token());
            let ended = store.finish(&id, token, success(text(&id)), None).await;
            assert!(matches!(ended.unwrap(), Written::Done(_)));
            steps.insert(id, "finished");
            reclaims += 1;
        }
        for state in [State::Pending, State::Running] {
            let live = store.list(&ListQuery::new(None, 9).with_state(state)).await;
            assert!(
                live.unwrap().records.is_empty(),
                "an operation was not reclaimed"
            );
        }
        store.close().await.unwrap();
    }
    assert!(steps.len() > 10 * KILLS, "only {} operations", steps.len());
    assert!(reclaims >= KILLS, "only {reclaims} were interrupted");
}
