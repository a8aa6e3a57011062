//! The file: opening it, closing it, making it smaller.

use std::{
    error::Error,
    fs,
    path::Path,
    sync::Arc,
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

use super::{TERM, create, held, lease, private::Folder, success};

fn refused(path: impl AsRef<Path>) -> RedbError {
    match RedbStore::open(path) {
        Ok(_) => panic!("it was opened"),
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
    let error = refused(&path);
    assert!(matches!(error, RedbError::AlreadyOpen(_)), "{error:?}");
    assert!(error.source().is_some());
    // The first one goes on.
    create(&store, held(&OperationId::new())).await;
    store.close().await.unwrap();
    open(&path);
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_of_its_own_kind() {
    let folder = Folder::new("redb");
    let kind = |path: &Path| match refused(path) {
        RedbError::Io(error) => error.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(folder.path()), std::io::ErrorKind::IsADirectory);
    let missing = folder.join("missing").join("operations.redb");
    assert_eq!(kind(&missing), std::io::ErrorKind::NotFound);
    // There nobody may make a file, root included.
    #[cfg(target_os = "linux")]
    assert_eq!(
        kind(Path::new("/sys/operations.redb")),
        std::io::ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn an_error_of_opening_says_what_caused_it() {
    let folder = Folder::new("redb");
    let says = |path: &Path, cause: &str| {
        let text = refused(path).to_string();
        assert!(text.contains(cause), "{text}");
    };
    says(
        &folder.join("missing").join("operations.redb"),
        "os error 2",
    );
    let path = folder.join("operations.redb");
    let _store = open(&path);
    says(&path, "Database already open");
    let damaged = folder.join("damaged.redb");
    fs::write(&damaged, [0; 5000]).unwrap();
    let error = refused(&damaged);
    let source = error.source().expect("it has a cause").to_string();
    assert!(error.to_string().contains(&source), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_or_what_it_was_but_never_a_panic() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let id = OperationId::new();
    let store = open(&path);
    let token = create(&store, held(&id)).await;
    store
        .finish(&id, token, success("x".repeat(9000)), None)
        .await
        .unwrap();
    store.close().await.unwrap();
    let whole = fs::read(&path).unwrap();

    let (mut refused, mut number) = (0, 0);
    let mut check = async |bytes: &[u8]| {
        // Each a file of its own: what failed to open may hold on to it a little.
        number += 1;
        let damaged = folder.join(&format!("damaged-{number}.redb"));
        fs::write(&damaged, bytes).unwrap();
        match RedbStore::open(&damaged) {
            Ok(store) => {
                // What can still be read is what it was.
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
fn others_may_not_read_the_file() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let _store = open(&path);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_file_is_free_once_the_last_handle_has_gone() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let (id, store) = (OperationId::new(), open(&path));
    let clone = store.clone();
    create(&store, held(&id)).await;
    drop(store);
    assert!(matches!(refused(&path), RedbError::AlreadyOpen(_)));
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
async fn a_closed_store_says_so() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let (id, store) = (OperationId::new(), open(&path));
    let other = store.clone();
    create(&store, held(&id)).await;
    store.close().await.unwrap();
    let is_closed = |error: StoreError| {
        assert!(!error.is_transient(), "{error:?}");
        let source = error.source().and_then(|source| source.downcast_ref());
        assert!(matches!(source, Some(RedbError::Closed)), "{source:?}");
    };
    is_closed(other.get(&id).await.unwrap_err());
    is_closed(other.get_now(&id).unwrap().unwrap_err());
    is_closed(other.create(held(&id)).await.unwrap_err());
    is_closed(other.reclaim(&lease(), 1).await.unwrap_err());
    assert!(matches!(other.compact().await, Err(RedbError::Closed)));
    assert!(matches!(other.close().await, Err(RedbError::Closed)));
    assert!(open(&path).get(&id).await.unwrap().is_some());
}

#[tokio::test]
async fn whoever_opens_the_file_finds_the_leases_over_and_reserved_keys_free() {
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
        let new = held(id).with_request(Some("again".into()));
        tokens.push(create(&store, new).await);
    }
    store
        .finish(&ids[1], tokens[1], success("x"), None)
        .await
        .unwrap();
    assert!(store.reclaim(&lease(), 9).await.unwrap().is_empty());
    store.close().await.unwrap();

    let store = open(&path);
    assert!(reserve(&store).await, "who reserved it is gone");
    let taken = store.reclaim(&lease(), 9).await.unwrap();
    let mut found: Vec<_> = taken
        .iter()
        .map(|taken| taken.record.operation().id().clone())
        .collect();
    found.sort();
    let mut expected = [ids[0].clone(), ids[2].clone()];
    expected.sort();
    assert_eq!(found, expected);
    assert!(
        taken
            .iter()
            .all(|taken| taken.request.as_deref() == Some(b"again"))
    );
    // Those who held them cannot write any more.
    let late = store
        .finish(&ids[0], tokens[0], success("late"), None)
        .await;
    assert!(!matches!(
        late.unwrap(),
        tower_operations::store::Written::Done(_)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_is_made_smaller_while_it_is_used() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = open(&path).ttl(Duration::from_secs(3600));
    let brief = store.clone().ttl(Duration::ZERO);
    let kept = OperationId::new();
    create(&store, held(&kept)).await;
    for _ in 0..40 {
        let id = OperationId::new();
        let token = create(&store, held(&id)).await;
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
        let (store, kept, is_over) = (store.clone(), kept.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut over, mut used) = (std::pin::pin!(is_over.notified()), 0);
            over.as_mut().enable();
            loop {
                let id = OperationId::new();
                create(&store, held(&id)).await;
                for id in [&id, &kept] {
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
    // With something in use at the end of the file it may take a second go.
    store.compact().await.unwrap();
    store.compact().await.unwrap();
    is_over.notify_waiters();
    assert!(using.await.unwrap() > 0);
    assert!(size() < before / 2, "{} of {before}", size());
    assert!(store.get(&kept).await.unwrap().is_some());
    assert_eq!(store.stats().failures, 0);
}

#[tokio::test]
async fn a_cursor_goes_on_after_the_file_was_opened_again() {
    let folder = Folder::new("redb");
    let path = folder.join("operations.redb");
    let store = open(&path);
    let first = OperationId::new();
    for id in [&first, &OperationId::new()] {
        create(&store, held(id)).await;
    }
    let query = ListQuery::new(None, 1);
    let next = store.list(&query).await.unwrap().next.unwrap();
    store.close().await.unwrap();
    let page = open(&path).list(&query.with_after(next)).await.unwrap();
    assert_eq!(page.records[0].operation().id(), &first);
}
