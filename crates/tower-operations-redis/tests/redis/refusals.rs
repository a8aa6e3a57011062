//! Servers that must not be trusted with operations.

use std::{error::Error, time::Duration};

use tower_operations::{
    OperationId,
    store::{NewOperation, Repository, Store},
};
use tower_operations_redis::{RedisBuilder, RedisError, RedisStore};

use super::{ask, connect, create, server::Redis};

async fn refusal(redis: &Redis) -> RedisError {
    let connected = RedisStore::connect(&redis.url()).await;
    connected.expect_err("the server was not refused")
}

#[tokio::test]
async fn an_evicting_server_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl", "allkeys-random"] {
        let redis = Redis::with(&["--maxmemory-policy", policy]).await;
        let error = refusal(&redis).await;
        let RedisError::Evicts { policy: found } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(&**found, policy);
        let trusted = RedisBuilder::new(&redis.url()).trust_server();
        let trusted = trusted.connect::<String>().await;
        assert!(
            trusted.is_err(),
            "a known eviction policy is refused despite `trust_server`"
        );
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
async fn a_server_without_info_must_be_trusted() {
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

/// The permissions are read from the documentation.
#[tokio::test]
async fn the_documented_permissions_suffice() {
    let redis = Redis::start().await;
    let page = include_str!("../../README.md");
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
    use tower_operations_conformance;
    tower_operations_conformance::all(async |ttl| {
        let store: RedisStore = RedisStore::connect(&url).await.unwrap();
        store.ttl(ttl)
    })
    .await;
}

#[tokio::test]
async fn a_later_format_is_refused() {
    let redis = Redis::start().await;
    connect(&redis).await;
    connect(&redis).await;
    ask::<()>(&redis, &["SET", "operations/format", "3"]).await;
    let error = refusal(&redis).await;
    assert!(
        matches!(&error, RedisError::Format { format } if &**format == "3"),
        "{error:?}"
    );
}

#[tokio::test]
async fn invalid_addresses_are_errors() {
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

/// Connections recover after a change of passwords, or once the users of the server are
/// loaded.
#[tokio::test]
async fn connections_recover_from_a_lockout() {
    let redis = Redis::start().await;
    let user = |password| {
        [
            "ACL",
            "SETUSER",
            "app",
            "on",
            "resetpass",
            password,
            "~*",
            "&*",
            "+@all",
        ]
    };
    ask::<()>(&redis, &user(">secret")).await;
    let url = redis.url().replace("redis://", "redis://app:secret@");
    let store: RedisStore = RedisStore::connect(&url).await.unwrap();
    let record = create(&store, NewOperation::new(OperationId::new())).await;
    let id = record.operation().id();

    ask::<()>(&redis, &user(">other")).await;
    ask::<()>(&redis, &["CLIENT", "KILL", "USER", "app"]).await;
    // The calls use each connection several times.
    for _ in 0..20 {
        if let Err(error) = store.start(id, record.token()).await {
            assert!(error.is_transient(), "{error:?}");
        }
    }
    assert!(store.start(id, record.token()).await.is_err());

    ask::<()>(&redis, &user(">secret")).await;
    // Every connection recovers.
    let begun = std::time::Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 12 {
        in_a_row = match store.start(id, record.token()).await {
            Ok(_) => in_a_row + 1,
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                0
            }
        };
        assert!(
            begun.elapsed().as_secs() < 20,
            "a connection stays locked out"
        );
    }
}

#[tokio::test]
async fn connect_errors_contain_the_cause_and_no_password() {
    let redis = Redis::start().await;
    let with_password = redis.url().replace("redis://", "redis://app:s3cret@");
    for (url, cause) in [
        ("redis://app:s3cret@127.0.0.1:1/", "refused"),
        ("redis://app:s3cret@127.0.0.1:99999/", "URL"),
        ("rediss://app:s3cret@127.0.0.1:1/", "feature"),
        (&with_password, "authentication failed"),
    ] {
        let builder = RedisBuilder::new(url).patience(Duration::from_secs(1));
        let error = builder.connect::<String>().await.unwrap_err();
        let (shown, debugged) = (error.to_string(), format!("{error:?}"));
        let named = shown.to_lowercase().contains(&cause.to_lowercase());
        assert!(named, "{shown}");
        assert!(!shown.contains("s3cret") && !debugged.contains("s3cret"));
    }
}

#[tokio::test]
async fn changed_settings_are_health_warnings() {
    let redis = Redis::start().await;
    let store = connect(&redis).await;
    let warnings = async || {
        let health = store.health().await.unwrap();
        let warnings = health.warnings.iter().map(ToString::to_string);
        warnings.collect::<Vec<_>>()
    };
    assert!(warnings().await.is_empty());
    for (setting, bad, good) in [
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("appendonly", "no", "yes"),
    ] {
        ask::<()>(&redis, &["CONFIG", "SET", setting, bad]).await;
        assert_eq!(warnings().await, [format!("`{setting}` is `{bad}`")]);
        ask::<()>(&redis, &["CONFIG", "SET", setting, good]).await;
        assert!(warnings().await.is_empty());
    }
    ask::<()>(&redis, &["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_eq!(warnings().await.len(), 1);
}
