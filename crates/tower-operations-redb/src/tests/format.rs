//! The layout of the file: the layout that this release writes, and the older layouts that it
//! reads.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::redb::{Database, ReadableDatabase};
use tower_operations::{
    engine::{
        CellQuery, CellReader, Engine, EngineKeys, EngineList, Inserted, KeyState, LapsedCell,
        NewCell, NextCell, ReclaimFilter, Replaced,
    },
    operation::{OperationId, State},
    store::{FencingToken, IdempotencyKey, Owner, Stamp, Version},
};

use super::{
    Disk,
    dump::{dump, load},
};
use crate::{
    RedbEngine, RedbError,
    engine::Driver,
    file::Medium,
    tables::{BARE_KEYS, FORMAT, KNOWN_FORMAT, NEXT_NUMBER},
};

const FORMAT_1: &str = include_str!("format-1.txt");
const FORMAT_2: &str = include_str!("format-2.txt");
const FORMAT_3: &str = include_str!("format-3.txt");

fn id(text: &str) -> OperationId {
    text.parse().unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A time long after all other times here.
const EXPIRES: u64 = 1 << 40;

fn stamp(version: u64, token: u64) -> Stamp {
    let version = Version::from_number(version).unwrap();
    Stamp::new(version, FencingToken::from_number(token))
}

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(None, name, *b"a digest that is 32 bytes long..")
}

/// Returns the same key with an owner.
fn owned(name: &str) -> IdempotencyKey {
    IdempotencyKey {
        owner: Some(Owner::new("somebody")),
        ..key(name)
    }
}

/// Writes every kind of row.
async fn fill(engine: &RedbEngine) {
    let owner = Owner::new("somebody");
    let live = id("live");
    let (first, second, third) = (owned("first"), key("second"), owned("third"));
    let mut new = NewCell::new(&live, stamp(1, 5), b"{\"live\"}", at(1));
    (new.owner, new.key) = (Some(&owner), Some(&first));
    (new.lease, new.request) = (Some(Duration::from_secs(60)), Some(&b"a request"[..]));
    assert!(matches!(engine.insert(new).await, Ok(Inserted::Done)));
    let (ended, forgotten) = (id("ended"), id("forgotten"));
    for (id, key) in [(&ended, None), (&forgotten, Some(&second))] {
        let mut new = NewCell::new(id, stamp(1, 5), b"{}", at(1));
        new.key = key;
        assert!(matches!(engine.insert(new).await, Ok(Inserted::Done)));
        let mut next = NextCell::new(stamp(2, 5), State::Succeeded, b"{\"ended\"}");
        (next.result, next.expires_at) = (Some(&b"a result"[..]), Some(at(EXPIRES)));
        let replaced = engine.replace(id, stamp(1, 5), next).await;
        assert!(matches!(replaced, Ok(Replaced::Done)));
    }
    let until = Some(at(EXPIRES));
    let gone = engine.delete(&forgotten, stamp(2, 5), b"{\"remains\"}", until);
    assert!(matches!(gone.await, Ok(Replaced::Done)));
    let token = FencingToken::from_number(9);
    let minute = Duration::from_secs(60);
    let reserved = engine.reserve(&third, token, minute, at(1));
    assert!(reserved.await.unwrap().is_none());
    let settled = engine.complete(&third, token, b"an answer", Duration::MAX);
    assert!(settled.await.unwrap());
}

/// Checks the rows that [`fill`] wrote.
async fn check(engine: &RedbEngine) {
    let cell = engine
        .read(&id("live"), CellReader::Store)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&*cell.head, cell.result), (&b"{\"live\"}"[..], None));
    let cell = engine
        .read(&id("ended"), CellReader::Store)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&*cell.head, b"{\"ended\"}");
    assert_eq!(cell.result.as_deref(), Some(&b"a result"[..]));
    assert!(
        engine
            .read(&id("forgotten"), CellReader::Store)
            .await
            .unwrap()
            .is_none()
    );

    // The file was opened again, so the earlier holder does not exist any more.
    let abandoned = engine.reclaimable(ReclaimFilter::Expired, 9).await.unwrap();
    let [
        LapsedCell {
            id: live,
            head: Ok(head),
            request,
            ..
        },
    ] = &abandoned[..]
    else {
        panic!("{abandoned:?}");
    };
    assert_eq!(&**live, b"live");
    assert_eq!(&**head, b"{\"live\"}");
    assert_eq!(request.as_deref(), Some(&b"a request"[..]));

    let owner = Owner::new("somebody");
    let found = async |key: IdempotencyKey| {
        let token = FencingToken::random();
        let found = engine.reserve(&key, token, Duration::ZERO, at(1));
        let found = found.await.unwrap()?;
        assert_eq!(found.fingerprint, key.fingerprint);
        Some(found.state)
    };
    let first = found(owned("first")).await;
    assert!(matches!(first, Some(KeyState::Operation(head)) if &*head == b"{\"live\"}"));
    let second = found(key("second")).await;
    assert!(matches!(second, Some(KeyState::Deleted(head)) if &*head == b"{\"remains\"}"));
    let third = found(owned("third")).await;
    assert!(matches!(third, Some(KeyState::Answer(answer)) if &*answer == b"an answer"));
    for others in [key("first"), owned("second"), key("third")] {
        assert!(found(others).await.is_none());
    }
    let token = FencingToken::from_number(9);
    let third = owned("third");
    let again = engine.complete(&third, token, b"", Duration::MAX);
    assert!(again.await.unwrap(), "it is settled already");

    for (owner, numbers) in [(Some(&owner), vec![1]), (None, vec![2])] {
        let listed = engine.list(CellQuery::new(owner, 9, at(1))).await.unwrap();
        let listed: Vec<u64> = listed.iter().map(|listed| listed.number).collect();
        assert_eq!(listed, numbers);
    }
    assert_eq!(
        engine.cursor_secret().await.unwrap(),
        engine.cursor_secret().await.unwrap()
    );
    assert_eq!(engine.purge(9, at(EXPIRES)).await.unwrap(), 1);
    assert!(
        engine
            .read(&id("ended"), CellReader::Store)
            .await
            .unwrap()
            .is_none()
    );
}

fn engine(disk: &Disk) -> Result<RedbEngine, RedbError> {
    let medium = Medium::on(Arc::new(disk.clone()), 1 << 20);
    RedbEngine::on(medium, Driver::Threads)
}

async fn close(engine: RedbEngine) {
    let closed = engine
        .ask(super::super::writer_request::WriterRequest::Close)
        .await;
    closed.unwrap().unwrap();
}

#[tokio::test]
async fn files_are_written_in_format_3() {
    let disk = Disk::default();
    let opened = engine(&disk).unwrap();
    fill(&opened).await;
    close(opened).await;
    let database = Database::builder()
        .create_with_backend(disk.clone())
        .unwrap();
    let dump = dump(&database);
    assert_eq!(dump, FORMAT_3, "it is:\n{dump}");
    drop(database);
    let opened = engine(&disk).unwrap();
    check(&opened).await;
}

#[tokio::test]
async fn files_of_earlier_formats_are_migrated() {
    let migrated = FORMAT_2.replace("meta format 2", "meta format 3");
    for format in [FORMAT_1, FORMAT_2] {
        let disk = load(format);
        close(engine(&disk).unwrap()).await;
        let database = Database::builder()
            .create_with_backend(disk.clone())
            .unwrap();
        let dump = dump(&database);
        assert_eq!(dump, migrated, "it is:\n{dump}");
        let read = database.begin_read().unwrap();
        assert!(read.open_table(BARE_KEYS).is_err(), "nothing of it is left");
    }
}

#[tokio::test]
async fn unreadable_keys_do_not_block_the_migration() {
    let damaged = FORMAT_1.replace(r#"keys "second" "\x01"#, r#"keys "second" "\x07"#);
    assert_ne!(damaged, FORMAT_1);
    let opened = engine(&load(&damaged)).unwrap();
    let token = FencingToken::random();
    let reserve =
        async |key: IdempotencyKey| opened.reserve(&key, token, Duration::ZERO, at(1)).await;
    assert!(reserve(owned("first")).await.unwrap().is_some());
    assert!(!reserve(key("second")).await.unwrap_err().is_transient());
    assert!(reserve(key("new")).await.unwrap().is_none());
}

#[tokio::test]
async fn files_of_every_format_are_read() {
    for format in [FORMAT_1, FORMAT_2, FORMAT_3] {
        check_and_continue(format).await;
    }
}

#[tokio::test]
async fn files_without_a_secret_get_a_lasting_secret() {
    let secretless: Vec<_> = FORMAT_2
        .lines()
        .filter(|line| !line.starts_with("secrets"))
        .collect();
    let disk = load(&secretless.join("\n"));
    let opened = engine(&disk).unwrap();
    let secret = opened.cursor_secret().await.unwrap();
    close(opened).await;
    let again = engine(&disk).unwrap();
    assert_eq!(again.cursor_secret().await.unwrap(), secret);
}

async fn check_and_continue(format: &str) {
    let opened = engine(&load(format)).unwrap();
    check(&opened).await;
    // The store continues from these rows.
    let new = id("new");
    let insert = NewCell::new(&new, stamp(1, 1), b"{}", at(1));
    assert!(matches!(opened.insert(insert).await, Ok(Inserted::Done)));
    let listed = opened.list(CellQuery::new(None, 9, at(1))).await.unwrap();
    assert_eq!(listed[0].number, 4, "no number comes twice");
}

#[test]
fn later_formats_are_refused_and_left_unchanged() {
    let later = KNOWN_FORMAT + 1;
    let disk = load(&format!("meta {FORMAT} {later}\nmeta {NEXT_NUMBER} 1\n"));
    for _ in 0..2 {
        let refused = engine(&disk).err();
        assert!(
            matches!(refused, Some(RedbError::NewerFormat { found, known })
                if found == later && known == KNOWN_FORMAT),
            "{refused:?}"
        );
    }
}

#[test]
fn foreign_databases_are_refused() {
    let disk = load("cells \"a\" \"b\"\n");
    assert!(matches!(engine(&disk).err(), Some(RedbError::Foreign)));
    let disk = load("meta something 1\n");
    assert!(matches!(engine(&disk).err(), Some(RedbError::Foreign)));
}

#[tokio::test]
async fn rows_of_a_later_layout_are_permanent_errors() {
    let disk = load(&FORMAT_1.replace(r#"cells "ended" "\x01"#, r#"cells "ended" "\x03"#));
    let opened = engine(&disk).unwrap();
    let error = opened
        .read(&id("ended"), CellReader::Store)
        .await
        .unwrap_err();
    assert!(!error.is_transient(), "{}", error.report());
    assert!(
        error.report().contains("later release"),
        "{}",
        error.report()
    );
    // The other rows are not affected, also when they are in one batch with this row.
    let (ended, live) = (id("ended"), id("live"));
    let next = NextCell::new(stamp(2, 5), State::Running, b"{}");
    let (refused, done) = tokio::join!(
        opened.replace(&ended, stamp(1, 5), next),
        opened.replace(&live, stamp(1, 5), next),
    );
    assert!(!refused.unwrap_err().is_transient());
    assert!(matches!(done, Ok(Replaced::Done)));
}

#[tokio::test]
async fn a_new_file_has_its_name_once_its_database_is_complete() {
    let folder = test_support::private::Folder::new("redb-new");
    let path = folder.join("operations.redb");
    let mut medium = Medium::file(&path, 1 << 20).unwrap();
    assert!(!path.exists());
    drop(medium.open().unwrap());
    assert!(path.exists());
}
