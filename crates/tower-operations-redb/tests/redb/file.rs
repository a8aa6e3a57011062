//! The file: opening, closing and compaction.

use std::{
    error::Error,
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::sleep};
use tower_operations::{
    OperationId, State,
    store::{
        FencingToken, IdempotencyKey, IdempotencyKeys, Lease, List, ListQuery, Purge, Repository,
        Reservation, Store, StoreError,
    },
};
use tower_operations_redb::{RedbError, RedbStore};

use super::{TERM, create, lease, new_operation, private::Folder, success};

fn open_error(path: impl AsRef<Path>) -> RedbError {
    match RedbStore::open(path) {
        Ok(_) => panic!("the file was opened"),
        Err(error) => error,
    }
}

fn open(path: &Path) -> RedbStore {
    RedbStore::open(path).unwrap()
}

#[tokio::test]
async fn a_file_is_opened_once() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = open(&path);
    let error = open_error(&path);
    assert!(matches!(error, RedbError::AlreadyOpen(_)), "{error:?}");
    assert!(error.source().is_some());
    // The first handle keeps working.
    create(&store, new_operation(&OperationId::new())).await;
    store.close().await.unwrap();
    open(&path);
}

#[tokio::test]
async fn a_program_that_opens_the_file_by_redb_is_excluded_and_excludes() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = open(&path);
    let other = redb::Database::open(&path);
    assert!(matches!(
        other,
        Err(redb::DatabaseError::DatabaseAlreadyOpen)
    ));
    store.close().await.unwrap();
    let other = redb::Database::open(&path).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, RedbError::AlreadyOpen(_)), "{error:?}");
    drop(other);
    open(&path);
}

/// Releases of redb before 4.3 lock the whole file.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_program_that_locks_the_whole_file_is_excluded_and_excludes() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = open(&path);
    let file = fs::File::open(&path).unwrap();
    assert!(matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)));
    store.close().await.unwrap();
    file.try_lock().unwrap();
    let error = open_error(&path);
    assert!(matches!(error, RedbError::AlreadyOpen(_)), "{error:?}");
    drop(file);
    open(&path);
}

#[tokio::test]
async fn a_creation_that_was_interrupted_begins_again() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let provisional = folder.join("operations.redb.unfinished");
    fs::write(&provisional, [0; 100_000]).unwrap();
    let store = open(&path);
    let id = OperationId::new();
    create(&store, new_operation(&id)).await;
    store.close().await.unwrap();
    assert!(!provisional.exists());
    // The process ended before it gave the file its name.
    fs::rename(&path, &provisional).unwrap();
    assert!(open(&path).get(&id).await.unwrap().is_some());
}

#[test]
fn a_foreign_file_with_the_provisional_name_is_left_unchanged() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let provisional = folder.join("operations.redb.unfinished");
    let database = redb::Database::create(&provisional).unwrap();
    let write = database.begin_write().unwrap();
    let table = redb::TableDefinition::<u64, u64>::new("theirs");
    write.open_table(table).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(open_error(&path), RedbError::Foreign));
    fs::write(folder.join("text.redb.unfinished"), "a text").unwrap();
    assert!(matches!(
        open_error(folder.join("text.redb")),
        RedbError::Corrupt(_)
    ));
    let text = fs::read_to_string(folder.join("text.redb.unfinished")).unwrap();
    assert_eq!(text, "a text");
    assert!(provisional.exists() && !path.exists());
}

#[test]
fn processes_that_create_a_file_at_the_same_time_create_one() {
    let folder = Folder::new("redb");
    for round in 0..50 {
        let path = folder.join(&format!("{round}.redb"));
        let opened = thread::scope(|scope| {
            let one = || scope.spawn(|| RedbStore::open(&path));
            let all = [one(), one(), one()].map(|one| one.join().unwrap());
            all.map(|opened| match opened {
                Ok(store) => Some(store),
                Err(RedbError::AlreadyOpen(_)) => None,
                Err(error) => panic!("{error:?}"),
            })
        });
        let opened: Vec<_> = opened.into_iter().flatten().collect();
        assert_eq!(opened.len(), 1, "round {round}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), round + 1);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_a_new_file_stays_a_link() {
    let folder = Folder::new("redb");
    let (path, target) = (folder.join("link.redb"), folder.join("operations.redb"));
    std::os::unix::fs::symlink(&target, &path).unwrap();
    open(&path).close().await.unwrap();
    assert!(path.is_symlink() && target.is_file());
}

#[test]
fn file_errors_keep_their_kind() {
    let folder = Folder::new("redb");
    let kind = |path: &Path| match open_error(path) {
        RedbError::Io(error) => error.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(folder.path()), std::io::ErrorKind::IsADirectory);
    let missing = folder.join("missing").join("operations.redb");
    assert_eq!(kind(&missing), std::io::ErrorKind::NotFound);
    // Not even root may create a file in this directory.
    #[cfg(target_os = "linux")]
    assert_eq!(
        kind(Path::new("/sys/operations.redb")),
        std::io::ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn open_errors_contain_the_cause() {
    let folder = Folder::new("redb");
    let assert_cause = |path: &Path, cause: &str| {
        let text = open_error(path).to_string();
        assert!(text.contains(cause), "{text}");
    };
    assert_cause(
        &folder.join("missing").join("operations.redb"),
        "os error 2",
    );
    let path = folder.join("operations.redb");
    let _store = open(&path);
    assert_cause(&path, "Database already open");
    let damaged = folder.join("damaged.redb");
    fs::write(&damaged, [0; 5000]).unwrap();
    let error = open_error(&damaged);
    let source = error.source().expect("the error has a source").to_string();
    assert!(error.to_string().contains(&source), "{error}");
}

#[tokio::test]
async fn a_damaged_file_causes_no_panic() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let id = OperationId::new();
    let store = open(&path);
    let token = create(&store, new_operation(&id)).await;
    store
        .finish(&id, token, success("x".repeat(9000)), None)
        .await
        .unwrap();
    store.close().await.unwrap();
    let whole = fs::read(&path).unwrap();

    let (mut refused, mut number) = (0, 0);
    let mut check = async |bytes: &[u8]| {
        // Each check has its own file, because a failed open may hold the file for a moment.
        number += 1;
        let damaged = folder.join(&format!("damaged-{number}.redb"));
        fs::write(&damaged, bytes).unwrap();
        match RedbStore::open(&damaged) {
            Ok(store) => {
                // A readable record is unchanged.
                if let Ok(Some(record)) = store.get(&id).await {
                    assert_eq!(record.operation().state(), State::Succeeded);
                }
                let _ = store.close().await;
            }
            Err(error) => {
                assert!(matches!(error, RedbError::Corrupt(_)), "{error:?}");
                refused += 1;
            }
        }
        let _ = fs::remove_file(&damaged);
    };
    check(b"this is not a database").await;
    check(&[0; 5000]).await;
    for len in [100, 512, 5000, whole.len() / 2, whole.len() - 1] {
        check(&whole[..len]).await;
    }
    for at in (0..400).chain((4096..whole.len()).step_by(whole.len() / 100)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        check(&bytes).await;
    }
    assert!(refused > 10, "only {refused} were refused");
}

#[cfg(unix)]
#[test]
fn the_file_is_private_to_its_user() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let _store = open(&path);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_last_handle_closes_the_file() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let (id, store) = (OperationId::new(), open(&path));
    let clone = store.clone();
    create(&store, new_operation(&id)).await;
    drop(store);
    assert!(matches!(open_error(&path), RedbError::AlreadyOpen(_)));
    drop(clone);
    let begun = Instant::now();
    let store = loop {
        match RedbStore::open(&path) {
            Ok(store) => break store,
            Err(RedbError::AlreadyOpen(_)) if begun.elapsed() < Duration::from_secs(10) => {
                sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(store.get(&id).await.unwrap().is_some());
}

#[tokio::test]
async fn calls_of_a_closed_store_fail() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let (id, store) = (OperationId::new(), open(&path));
    let other = store.clone();
    create(&store, new_operation(&id)).await;
    store.close().await.unwrap();
    let assert_closed = |error: StoreError| {
        assert!(!error.is_transient(), "{error:?}");
        let source = error.source().and_then(|source| source.downcast_ref());
        assert!(matches!(source, Some(RedbError::Closed)), "{source:?}");
    };
    assert_closed(other.get(&id).await.unwrap_err());
    assert_closed(other.get_now(&id).unwrap().unwrap_err());
    assert_closed(other.create(new_operation(&id)).await.unwrap_err());
    assert_closed(other.reclaim(&lease(), 1).await.unwrap_err());
    assert!(matches!(other.compact().await, Err(RedbError::Closed)));
    assert!(matches!(other.close().await, Err(RedbError::Closed)));
    assert!(open(&path).get(&id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_reopened_file_has_no_leases_or_reservations() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = open(&path);
    let key = IdempotencyKey::new(None, "a key that is reserved", [1; 32]);
    let reserve = async |store: &RedbStore| {
        let token = FencingToken::random();
        let reserved = store.reserve(&key, token, TERM).await.unwrap();
        matches!(reserved, Reservation::Reserved(_))
    };
    assert!(reserve(&store).await);
    assert!(!reserve(&store).await);
    let ids: Vec<_> = (0..3).map(|_| OperationId::new()).collect();
    let mut tokens = Vec::new();
    for id in &ids {
        let new = new_operation(id).with_request(Some("again".into()));
        tokens.push(create(&store, new).await);
    }
    store
        .finish(&ids[1], tokens[1], success("x"), None)
        .await
        .unwrap();
    assert!(store.reclaim(&lease(), 9).await.unwrap().is_empty());
    store.close().await.unwrap();

    let store = open(&path);
    assert!(
        reserve(&store).await,
        "the reservation ended with its process"
    );
    let reclaimed = store.reclaim(&lease(), 9).await.unwrap();
    let mut found: Vec<_> = reclaimed
        .iter()
        .map(|reclaimed| reclaimed.record.operation().id().clone())
        .collect();
    found.sort();
    let mut expected = [ids[0].clone(), ids[2].clone()];
    expected.sort();
    assert_eq!(found, expected);
    assert!(
        reclaimed
            .iter()
            .all(|reclaimed| reclaimed.request.as_deref() == Some(b"again"))
    );
    // The previous holders cannot write.
    let late = store
        .finish(&ids[0], tokens[0], success("late"), None)
        .await;
    assert!(!matches!(
        late.unwrap(),
        tower_operations::store::Written::Done(_)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compaction_works_during_use() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = open(&path).ttl(Duration::from_secs(3600));
    let brief = store.clone().ttl(Duration::ZERO);
    let live = OperationId::new();
    create(&store, new_operation(&live)).await;
    for _ in 0..40 {
        let id = OperationId::new();
        let token = create(&store, new_operation(&id)).await;
        brief
            .finish(&id, token, success("x".repeat(200_000)), None)
            .await
            .unwrap();
    }
    let size = || fs::metadata(&path).unwrap().len();
    let before = size();
    assert!(before > 8_000_000, "{before}");
    assert_eq!(brief.purge(1000).await.unwrap(), 40);

    let is_over = Arc::new(Notify::new());
    let using = {
        let (store, live, is_over) = (store.clone(), live.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut over, mut used) = (std::pin::pin!(is_over.notified()), 0);
            over.as_mut().enable();
            loop {
                let id = OperationId::new();
                create(&store, new_operation(&id)).await;
                for id in [&id, &live] {
                    assert!(store.get(id).await.unwrap().is_some());
                }
                used += 1;
                tokio::select! {
                    biased;
                    () = &mut over => return used,
                    () = tokio::task::yield_now() => {}
                }
            }
        })
    };
    // Pages in use at the end of the file may need a second compaction.
    store.compact().await.unwrap();
    store.compact().await.unwrap();
    is_over.notify_waiters();
    assert!(using.await.unwrap() > 0);
    assert!(size() < before / 2, "{} of {before}", size());
    assert!(store.get(&live).await.unwrap().is_some());
    assert_eq!(store.stats().failures, 0);
}

#[tokio::test]
async fn a_cursor_survives_reopening() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = open(&path);
    let first = OperationId::new();
    for id in [&first, &OperationId::new()] {
        create(&store, new_operation(id)).await;
    }
    let query = ListQuery::new(None, 1);
    let next = store.list(&query).await.unwrap().next.unwrap();
    store.close().await.unwrap();
    let page = open(&path).list(&query.with_after(next)).await.unwrap();
    assert_eq!(page.records[0].operation().id(), &first);
}
