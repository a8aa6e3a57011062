//! Processes that are killed at any moment: what they were told is done is
//! there for the next one, and nothing is torn.

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

use super::{create, held, lease, private::Folder, success};

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

fn keyed(id: &OperationId) -> NewOperation {
    held(id).with_key(key(id))
}

/// Not a test by itself: the process that is killed. It says what it was told,
/// a line each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(path) = env::var(FILE) else {
        return;
    };
    let store = RedbStore::open(path).unwrap();
    let say = |what: &str, id: &OperationId| {
        // In one write, so that no line is torn.
        let line = format!("{what} {id}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    };
    println!("open");
    let mut writing = tokio::task::JoinSet::<()>::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        writing.spawn(async move {
            loop {
                let id = OperationId::new();
                let token = create(&store, keyed(&id)).await;
                say("created", &id);
                store.start(&id, token).await.unwrap();
                say("started", &id);
                let finished = store.finish(&id, token, success(text(&id)), None).await;
                let Written::Done(record) = finished.unwrap() else {
                    panic!("it was lost");
                };
                say("finished", &id);
                if id.to_string().ends_with(['0', '1', '2', '3']) {
                    say("forgetting", &id);
                    let version = record.version().unwrap();
                    store.delete(&id, version).await.unwrap();
                    say("forgotten", &id);
                }
            }
        });
    }
    // None ends but by a panic.
    if let Some(ended) = writing.join_next().await {
        ended.unwrap();
    }
}

/// How far each operation is known to have come.
type Told = HashMap<OperationId, &'static str>;

/// Runs a victim and kills it after so many lines.
fn run_and_kill(path: &Path, lines: usize, told: &mut Told) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["kill::victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = None;
    for line in output.lines() {
        let line = line.unwrap();
        // On the line on which the harness names the test.
        if line.ends_with("open") {
            seen = Some(0);
            continue;
        }
        let Some(count) = &mut seen else { continue };
        if *count == lines {
            child.kill().unwrap(); // what it has said until then is read as well
        }
        *count += 1;
        let Some((what, id)) = line.split_once(' ') else {
            continue;
        };
        let Some(what) = ["created", "started", "finished", "forgetting", "forgotten"]
            .into_iter()
            .find(|word| *word == what)
        else {
            panic!("{line}");
        };
        told.insert(id.parse().unwrap(), what);
    }
    let status = child.wait().unwrap();
    assert!(!status.success(), "it was to be killed: {status}");
    assert!(
        seen.is_some_and(|count| count >= lines),
        "it died by itself"
    );
}

async fn check(store: &RedbStore, told: &Told) {
    for (id, what) in told {
        let record = store.get(id).await.unwrap();
        let state = record.as_ref().map(|record| record.operation().state());
        let is_there = match *what {
            "created" => state.is_some(),
            "started" => state.is_some_and(|state| state != State::Pending),
            "finished" => state == Some(State::Succeeded),
            "forgetting" => state.is_none_or(|state| state == State::Succeeded),
            _ => state.is_none(),
        };
        assert!(is_there, "{id} was {what} and is {record:?}");
        // The same key finds the same operation, also a forgotten one.
        match store.create(keyed(id)).await.unwrap() {
            Created::Existing(record) => assert_eq!(record.operation().id(), id),
            Created::KeyHeld(Reservation::Deleted(record)) => {
                assert!(what.starts_with("forg"), "{id} was {what}");
                assert_eq!(record.operation().id(), id);
            }
            other => panic!("{id} was {what} and its key gave {other:?}"),
        }
    }
}

/// Every operation that is there is whole, whether it was told of or not.
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
                assert_eq!(result.body(), text(operation.id()).as_bytes());
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
async fn what_a_killed_process_was_told_is_there() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let mut told = Told::new();
    let mut taken_over = 0;
    for kill in 0..KILLS {
        run_and_kill(&path, kill * 37 % 200, &mut told);
        let store = RedbStore::open(&path).unwrap();
        check(&store, &told).await;
        let there = check_whole(&store).await;
        let missing = |(id, what): &(&OperationId, &&str)| {
            !there.contains(*id) && !matches!(**what, "forgetting" | "forgotten")
        };
        assert_eq!(told.iter().find(missing), None, "it is not listed");

        // All that it held is over at once, and can be ended by the next one.
        let lease = lease();
        for taken in store.reclaim(&lease, 1000).await.unwrap() {
            let operation = taken.record.operation();
            let (id, token) = (operation.id().clone(), taken.record.token());
            let ended = store.finish(&id, token, success(text(&id)), None).await;
            assert!(matches!(ended.unwrap(), Written::Done(_)));
            told.insert(id, "finished");
            taken_over += 1;
        }
        for state in [State::Pending, State::Running] {
            let live = store.list(&ListQuery::new(None, 9).with_state(state)).await;
            assert!(live.unwrap().records.is_empty(), "nobody took it over");
        }
        store.close().await.unwrap();
    }
    assert!(told.len() > 10 * KILLS, "only {} operations", told.len());
    assert!(taken_over >= KILLS, "only {taken_over} were cut short");
}
