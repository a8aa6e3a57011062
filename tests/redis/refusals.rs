//! Servers that must not be trusted with operations.

use std::error::Error;

use tower_operations::store::{RedisBuilder, RedisError, RedisStore};

use super::{ask, connect, server::Redis};

async fn refusal(redis: &Redis) -> RedisError {
    let connected = RedisStore::connect(&redis.url()).await;
    connected.expect_err("it was not refused")
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl", "allkeys-random"] {
        let redis = Redis::with(&["--maxmemory-policy", policy]).await;
        let error = refusal(&redis).await;
        let RedisError::Evicts { policy: found } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(&**found, policy);
        let trusted = RedisBuilder::new(&redis.url()).trust_server();
        let trusted = trusted.connect::<String>().await;
        assert!(trusted.is_err(), "what is known to be bad is not trusted");
    }
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused() {
    let redis = Redis::with(&["--cluster-enabled", "yes"]).await;
    assert!(matches!(refusal(&redis).await, RedisError::Cluster));
}

#[tokio::test]
async fn a_replica_is_refused() {
    let redis = Redis::start().await;
    ask::<()>(&redis, &["REPLICAOF", "127.0.0.1", "1"]).await;
    assert!(matches!(refusal(&redis).await, RedisError::Replica));
}

#[tokio::test]
async fn a_server_that_tells_nothing_has_to_be_trusted() {
    let redis = Redis::start().await;
    let acl = [
        "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all",
    ];
    ask::<()>(&redis, &[&acl[..], &["-info", "-config"]].concat()).await;
    let url = redis.url().replace("redis://", "redis://app:secret@");
    let error = RedisStore::connect(&url).await.unwrap_err();
    assert!(matches!(error, RedisError::Refused(_)), "{error:?}");
    assert!(error.source().is_some());
    let trusted = RedisBuilder::new(&url).trust_server();
    let store = trusted.connect::<String>().await.unwrap();
    assert!(!format!("{store:?}").contains("secret"));

    let wrong = redis.url().replace("redis://", "redis://app:wrong@");
    let error = RedisStore::connect(&wrong).await.unwrap_err();
    assert!(matches!(error, RedisError::Refused(_)), "{error:?}");
}

/// The permissions that the documentation names.
#[tokio::test]
async fn a_user_with_the_documented_permissions_can_do_everything() {
    let redis = Redis::start().await;
    let page = include_str!("../../docs/redis.md");
    let rule = page
        .lines()
        .find_map(|line| line.trim().strip_prefix("ACL SETUSER operations "))
        .expect("the page has a rule");
    let rule: Vec<&str> = ["ACL", "SETUSER", "operations"]
        .into_iter()
        .chain(rule.split_whitespace())
        .collect();
    ask::<()>(&redis, &rule).await;
    let url = redis
        .url()
        .replace("redis://", "redis://operations:secret@");
    use tower_operations::store::conformance;
    conformance::all(async |ttl| {
        let store: RedisStore = RedisStore::connect(&url).await.unwrap();
        store.ttl(ttl)
    })
    .await;
}

#[tokio::test]
async fn a_format_of_a_later_release_is_refused() {
    let redis = Redis::start().await;
    connect(&redis).await;
    connect(&redis).await;
    ask::<()>(&redis, &["SET", "operations/format", "2"]).await;
    let error = refusal(&redis).await;
    assert!(
        matches!(&error, RedisError::Format { format } if &**format == "2"),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_an_error() {
    let redis = Redis::start().await;
    for url in [
        "",
        "http://localhost/",
        "redis://a b",
        "rediss://localhost/",
    ] {
        let error = RedisStore::connect(url).await.unwrap_err();
        let is_url = matches!(error, RedisError::Url(_) | RedisError::Refused(_));
        assert!(is_url, "{url}: {error:?}");
    }
    let error = RedisStore::connect("redis://127.0.0.1:1/").await;
    let error = error.unwrap_err();
    assert!(matches!(error, RedisError::Unavailable(_)), "{error:?}");
    let error = RedisBuilder::new(&redis.url()).prefix("a/b");
    let error = error.connect::<String>().await.unwrap_err();
    assert!(matches!(error, RedisError::Prefix), "{error:?}");
}
