//! `RedisStore`: the laws, restarts of the server, and refused servers.
//! Each test starts a private server.

use test_support::pages;
#[path = "redis/proxy.rs"]
mod proxy;
use test_support::{large_results, redis as server, repetition, stranger};

#[path = "redis/ambiguous.rs"]
mod ambiguous;
#[path = "redis/crash.rs"]
mod crash;
#[path = "redis/damaged.rs"]
mod damaged;
#[path = "redis/errors.rs"]
mod errors;
#[path = "redis/format.rs"]
mod format;
#[path = "redis/laws.rs"]
mod laws;
#[path = "redis/notices.rs"]
mod notices;
#[path = "redis/refusals.rs"]
mod refusals;
#[path = "redis/skew.rs"]
mod skew;
#[path = "redis/strangers.rs"]
mod strangers;
#[path = "redis/tidy.rs"]
mod tidy;

use std::time::Duration;

use http::Response;
use redis::{Cmd, FromRedisValue};
use tower_operations::{
    BufferedBody, Outcome, RecordedResponse,
    store::{Created, LeaseConfig, NewOperation, NodeId, Repository, Written},
};
use tower_operations_redis::RedisStore;

use self::server::Redis;

type Stored = tower_operations::store::Record<RecordedResponse>;

async fn connect(redis: &Redis) -> RedisStore {
    RedisStore::connect(&redis.url()).await.unwrap()
}

/// Sends a command to the server on a separate connection.
async fn ask<T: FromRedisValue>(redis: &Redis, command: &[&str]) -> T {
    try_ask(redis, command).await.unwrap()
}

async fn try_ask<T: FromRedisValue>(
    redis: &Redis,
    command: &[&str],
) -> Result<T, redis::RedisError> {
    let client = redis::Client::open(redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut words = Cmd::new();
    words.arg(command);
    words.query_async(&mut connection).await
}

fn lease(term: Duration) -> LeaseConfig {
    LeaseConfig::new(NodeId::new(), term)
}

fn success(text: &str) -> Outcome<RecordedResponse> {
    let response = Response::new(BufferedBody::from(text.to_owned()));
    Outcome::Succeeded(Some(RecordedResponse::new(response)))
}

async fn create(store: &RedisStore, new: NewOperation) -> Stored {
    match store.create(new).await.unwrap() {
        Created::New(record) => record,
        other => panic!("not created: {other:?}"),
    }
}

#[track_caller]
fn done(write: Result<Written<RecordedResponse>, tower_operations::store::StoreError>) -> Stored {
    match write.unwrap() {
        Written::Done(record) => record,
        other => panic!("not done: {other:?}"),
    }
}
