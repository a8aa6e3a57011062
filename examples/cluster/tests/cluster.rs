//! The cluster, run as a process on private servers.

use serde_json::json;
use test_support::{
    client::Client,
    process::{Example, run},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

fn order(pages: u32, page_ms: u32) -> String {
    json!({"title": "Q3", "pages": pages, "page_ms": page_ms}).to_string()
}

/// The example kills a node by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_a_kill_on_postgres() {
    let server = test_support::postgres::Postgres::start().await;
    let output = run("cluster", &cluster(&server.url())).await;
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    assert_eq!(
        printed.matches(" succeeded: attempt 1 at ").count(),
        12,
        "{printed}"
    );
    assert!(
        printed.contains("attempt 1 at one, attempt 2 at "),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_a_kill_on_redis() {
    let server = test_support::redis::Redis::start().await;
    let url = server.url();
    let arguments = [&cluster(&url)[..], &["--stay"]].concat();
    let mut cluster = Example::start("cluster", &arguments).await.unwrap();
    cluster.wait_for_line("node one is killed").await;
    cluster.wait_for_line("node one is back").await;
    cluster.wait_for_line("all 12 have succeeded").await;
    // Both nodes serve, behind the one address.
    let client = Client::new(cluster.url());
    for _ in 0..4 {
        let location = client.post_accepted("/reports", order(1, 1)).await;
        assert_eq!(client.wait_for_end(&location).await["state"], "succeeded");
    }
    cluster.signal("INT").await;
    let exit = cluster.wait().await;
    assert!(exit.status.success(), "{exit:?}");
}

/// A lost report is a failure of the example.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_a_report_fails() {
    let server = test_support::redis::Redis::start().await;
    let url = server.url();
    let mut cluster = Example::start("cluster", &cluster(&url)).await.unwrap();
    cluster.wait_for_line("node one is killed").await;
    let mut redis = TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .unwrap();
    redis.write_all(b"FLUSHALL\r\n").await.unwrap();
    let exit = cluster.wait().await;
    assert!(!exit.status.success(), "{exit:?}");
    assert!(exit.errors.contains("of 12 were lost"), "{exit:?}");
}

fn cluster(store: &str) -> [&str; 4] {
    ["--store", store, "--listen", "127.0.0.1:0"]
}
