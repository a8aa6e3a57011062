//! Law 10: later releases read the data of earlier ones.

use std::{collections::BTreeMap, time::Duration};

use tower_operations::{
    BufferedBody, OperationId, Outcome, Progress, RecordedResponse, State,
    store::{
        Created, FencingToken, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig, LeaseHandle,
        List, ListQuery, NewOperation, NodeId, Owner, Repository, Reservation, Store,
    },
};
use tower_operations_redis::RedisStore;

use super::{connect, create, done, server::Redis, success};

/// Data in each format, as commands; each character is a byte.
const FORMATS: [&str; 2] = [
    include_str!("format-1.jsonl"),
    include_str!("format-2.jsonl"),
];

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::new(None, name, std::array::from_fn(|index| 8 * index as u8))
}

fn owned(name: &str) -> IdempotencyKey {
    IdempotencyKey {
        owner: owner(),
        ..key(name)
    }
}

fn id(text: &str) -> OperationId {
    text.parse().unwrap()
}

fn owner() -> Option<Owner> {
    Some(Owner::new("somebody"))
}

/// Writes an operation or key of each kind.
async fn write(store: &RedisStore) {
    let lease = |term| LeaseConfig::new(NodeId::named("node"), term);
    let new = |text| NewOperation::new(id(text)).with_owner(owner());
    create(store, NewOperation::new(id("nobodys"))).await;
    let held = new("held")
        .with_lease(lease(CENTURY))
        .with_key(key("of held"));
    create(store, held.with_request(Some("a request".into()))).await;
    let left = new("left").with_lease(lease(Duration::ZERO));
    let left = create(store, left.with_request(Some("again".into()))).await;
    done(store.start(&id("left"), left.token()).await);
    let part = Progress::from_count(1, 2);
    done(store.report(&id("left"), left.token(), part).await);
    let ended = create(
        store,
        new("ended")
            .with_lease(lease(CENTURY))
            .with_key(key("of ended")),
    )
    .await;
    done(
        store
            .finish(&id("ended"), ended.token(), success("the result"), None)
            .await,
    );
    let gone = create(store, new("gone").with_key(key("of gone"))).await;
    let gone = store
        .finish(&id("gone"), gone.token(), Outcome::Canceled, None)
        .await;
    let stamp = done(gone).stamp().unwrap();
    done(store.delete(&id("gone"), stamp).await);

    let token = FencingToken::from_number(77);
    let key_of_another = owned("reserved");
    let reserved = store.reserve(&key_of_another, token, CENTURY);
    reserved.await.unwrap();
    store
        .reserve(&key("answered"), token, CENTURY)
        .await
        .unwrap();
    let answer = RecordedResponse::new(http::Response::new(BufferedBody::from("no".to_owned())));
    assert!(
        store
            .complete(&key("answered"), token, answer)
            .await
            .unwrap()
    );
}

/// Returns the data of the server as the commands that write it.
async fn dump(redis: &Redis) -> Vec<Vec<Vec<u8>>> {
    let ask = async |words: &[&[u8]]| -> Vec<Vec<u8>> {
        let client = redis::Client::open(redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async(&mut connection).await.unwrap()
    };
    let mut names = ask(&[b"KEYS", b"*"]).await;
    names.sort();
    let mut commands = Vec::new();
    for name in names {
        let class: String = super::ask(redis, &["TYPE", std::str::from_utf8(&name).unwrap()]).await;
        let (verb, values) = match class.as_str() {
            "hash" => ("HSET", ask(&[b"HGETALL", &name]).await),
            "zset" => {
                let mut pairs = ask(&[b"ZRANGE", &name, b"0", b"-1", b"WITHSCORES"]).await;
                pairs.chunks_mut(2).for_each(|pair| pair.swap(0, 1));
                ("ZADD", pairs)
            }
            _ => ("SET", ask(&[b"MGET", &name]).await),
        };
        let words = [verb.as_bytes().to_vec(), name];
        commands.push(words.into_iter().chain(values).collect());
    }
    commands
}

fn line(command: &[Vec<u8>]) -> String {
    let words: Vec<String> = command
        .iter()
        .map(|word| word.iter().copied().map(char::from).collect())
        .collect();
    serde_json::to_string(&words).unwrap()
}

fn parse(format: &str) -> Vec<Vec<Vec<u8>>> {
    let words = |line| serde_json::from_str::<Vec<String>>(line).unwrap();
    let bytes = |word: String| word.chars().map(|byte| byte as u8).collect();
    format
        .lines()
        .map(|line| words(line).into_iter().map(bytes).collect())
        .collect()
}

/// Returns the names of the keys with their fields, members or value.
fn shape(commands: &[Vec<Vec<u8>>]) -> BTreeMap<String, Vec<String>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shape = commands.iter().map(|command| {
        let mut fields: Vec<String> = match &command[0][..] {
            b"HSET" => command[2..].chunks(2).map(|pair| text(&pair[0])).collect(),
            b"ZADD" => command[2..].chunks(2).map(|pair| text(&pair[1])).collect(),
            _ => vec![text(&command[2])],
        };
        fields.sort();
        (text(&command[1]), fields)
    });
    shape.collect()
}

#[tokio::test]
async fn written_data_has_the_current_format() {
    let redis = Redis::start().await;
    write(&connect(&redis).await.ttl(CENTURY)).await;
    let commands = dump(&redis).await;
    let lines: Vec<String> = commands.iter().map(|command| line(command)).collect();
    assert_eq!(
        shape(&commands),
        shape(&parse(FORMATS[1])),
        "another format needs a file of its own:\n{}",
        lines.join("\n")
    );
}

#[tokio::test]
async fn earlier_formats_are_readable_and_writable() {
    for format in FORMATS {
        read_and_write(format).await;
    }
}

async fn read_and_write(format: &str) {
    let redis = Redis::start().await;
    for command in parse(format) {
        let client = redis::Client::open(redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut words = redis::Cmd::new();
        words.arg(&command);
        words.query_async::<()>(&mut connection).await.unwrap();
    }
    let store = connect(&redis).await;
    let read = async |text| store.get(&id(text)).await.unwrap().unwrap();
    assert_eq!(read("nobodys").await.owner(), None);
    let held = read("held").await;
    assert_eq!(held.owner(), owner().as_ref());
    assert_eq!(held.node(), Some(&NodeId::named("node")));
    let ended = read("ended").await;
    let Some(result) = ended.operation().result() else {
        panic!("{ended:?}");
    };
    assert_eq!(result.body().unwrap(), b"the result");
    assert!(store.get(&id("gone")).await.unwrap().is_none());

    let listed = store.list(&ListQuery::new(owner(), 10)).await.unwrap();
    let ids: Vec<String> = (listed.records.iter())
        .map(|record| record.operation().id().to_string())
        .collect();
    assert_eq!(ids, ["ended", "left", "held"]);

    let other = FencingToken::from_number(78);
    let reserve_key =
        async |key: IdempotencyKey| store.reserve(&key, other, CENTURY).await.unwrap();
    // Unowned names are free, although earlier formats stored the keys of owners under them.
    for name in ["of held", "reserved"] {
        let free = reserve_key(key(name)).await;
        assert!(matches!(free, Reservation::Reserved(_)), "{free:?}");
    }
    for (name, state) in [("of held", State::Pending), ("of ended", State::Succeeded)] {
        let Reservation::Operation(record) = reserve_key(owned(name)).await else {
            panic!("{name}");
        };
        assert_eq!(record.operation().state(), state);
    }
    let Reservation::Deleted(record) = reserve_key(owned("of gone")).await else {
        panic!("of gone");
    };
    assert_eq!(record.operation().state(), State::Canceled);
    let answered = reserve_key(key("answered")).await;
    let Reservation::Answered(answer) = answered else {
        panic!("{answered:?}");
    };
    assert_eq!(answer.body().unwrap(), b"no");
    let reserved = reserve_key(owned("reserved")).await;
    assert!(matches!(reserved, Reservation::InProgress), "{reserved:?}");
    let token = FencingToken::from_number(77);
    let new = NewOperation::new(id("of-the-reserved")).with_owner(owner());
    let created = store
        .create(new.with_key(key("reserved")).with_reservation(token))
        .await;
    assert!(matches!(created.unwrap(), Created::New(_)));

    let held = LeaseHandle::new(id("held"), held.token());
    let mine = LeaseConfig::new(NodeId::new(), CENTURY);
    assert!(
        store
            .renew(&mine, std::slice::from_ref(&held))
            .await
            .unwrap()
            .is_empty()
    );
    let reclaimed = store.reclaim(&mine, 10).await.unwrap();
    let [left] = &reclaimed[..] else {
        panic!("{reclaimed:?}");
    };
    assert_eq!(left.record.operation().id(), &id("left"));
    assert_eq!(left.record.attempts(), 1);
    assert_eq!(left.request.as_deref(), Some(&b"again"[..]));
    done(
        store
            .finish(&id("left"), left.record.token(), success("late"), None)
            .await,
    );
    // The key still belongs to its operation.
    let ended = done(
        store
            .finish(&held.id, held.token, success("done"), None)
            .await,
    );
    let stamp = ended.stamp().unwrap();
    done(store.delete(&held.id, stamp).await);
    let deleted = reserve_key(owned("of held")).await;
    assert!(matches!(deleted, Reservation::Deleted(_)), "{deleted:?}");
}
