//! Results of any size through a server process, and a folder or a bucket.

use std::{fs, path::Path};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use test_support::{
    client::Client,
    private::Folder,
    process::{Example, run},
    s3::{BUCKET, S3Server},
};
use tokio::time::{Duration, sleep};

const MIB: u64 = 1024 * 1024;

/// The length of the result, in bytes.
const LARGE: u64 = 2048 * MIB;

/// Returns the greatest resident memory of a process so far, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024
}

async fn start(
    results: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Example, Client) {
    let common = ["--listen", "127.0.0.1:0", "--results", results];
    let arguments = [&common[..], arguments].concat();
    let example = Example::start_in("server", &arguments, environment).await;
    let example = example.unwrap();
    let client = Client::new(example.url());
    (example, client)
}

fn in_folder(folder: &Path) -> String {
    format!("file:{}", folder.display())
}

fn in_bucket(server: &S3Server) -> String {
    format!("s3://{BUCKET}/large?endpoint={}", server.endpoint())
}

/// Waits up to ten minutes for the end of an operation.
async fn wait_for_end(client: &Client, location: &str) -> serde_json::Value {
    for _ in 0..3000 {
        let operation = client.get(location).await.json();
        if operation["state"] != "pending" && operation["state"] != "running" {
            return operation;
        }
        sleep(Duration::from_millis(200)).await;
    }
    panic!("{location} does not end");
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

#[tokio::test]
async fn two_gibibytes_in_a_folder_take_little_memory() {
    let test = Folder::new("large-results");
    let results = in_folder(&test.join("results"));
    two_gibibytes_take_little_memory(&results, &[]).await;
}

/// The memory of the server for S3 does not count: it is in the process of the test.
#[tokio::test]
async fn two_gibibytes_in_a_bucket_take_little_memory() {
    let server = S3Server::start();
    two_gibibytes_take_little_memory(&in_bucket(&server), &server.environment()).await;
    assert!(server.unfinished_uploads().is_empty());
}

async fn two_gibibytes_take_little_memory(results: &str, environment: &[(&str, &str)]) {
    let (example, client) = start(results, &[], environment).await;
    let small = json!({ "title": "Q3", "format": "pdf", "bytes": MIB }).to_string();
    let location = client.post_accepted("/reports", small).await;
    client.wait_for_end(&location).await;
    let before = peak_memory(example.pid());

    let order = json!({ "title": "Q3", "format": "pdf", "bytes": LARGE }).to_string();
    let location = client.post_accepted("/reports", order).await;
    let operation = wait_for_end(&client, &location).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let result = format!("{location}/result");
    let response = client.open(client.request(Method::GET, &result), "").await;
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    assert_eq!(headers["content-length"], LARGE.to_string());
    let (mut digest, mut length, mut body) = (Sha256::new(), 0, response.into_body());
    let range = LARGE - 3 * MIB..LARGE - 3 * MIB + 1000;
    let mut part = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        digest.update(&data);
        let (begin, end) = (length, length + data.len() as u64);
        let (from, to) = (range.start.clamp(begin, end), range.end.clamp(begin, end));
        part.extend_from_slice(&data[(from - begin) as usize..(to - begin) as usize]);
        length = end;
    }
    assert_eq!(length, LARGE);
    assert_eq!(headers["x-checksum"], hex(digest.finalize()));

    let asked = format!("bytes={}-{}", range.start, range.end - 1);
    let request = client.request(Method::GET, &result).header("range", asked);
    let answer = client.send(request, "".into()).await;
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert!(*answer.body() == part && part.len() == 1000);
    let grown = peak_memory(example.pid()) - before;
    assert!(grown < 64 * MIB, "the memory grew by {grown} bytes");
}

#[tokio::test]
async fn a_killed_server_loses_no_result_that_was_recorded() {
    let test = Folder::new("large-results-lost");
    let results = in_folder(&test.join("results"));
    let store = format!("redb:{}", test.join("operations.redb").display());
    let arguments = ["--store", &store, "--on-interrupted", "fail"];
    let (example, client) = start(&results, &arguments, &[]).await;
    let order = json!({ "title": "Q3", "format": "pdf", "bytes": 40 * MIB }).to_string();
    let location = client.post_accepted("/reports", order.clone()).await;
    let kept = wait_for_end(&client, &location).await;
    assert_eq!(kept["state"], "succeeded");
    let other = client.post_accepted("/reports", order).await;
    example.signal("KILL").await;
    example.wait().await;

    let (_example, client) = start(&results, &arguments, &[]).await;
    let operation = wait_for_end(&client, &other).await;
    // The server may have recorded the outcome before it died.
    assert!(operation["state"] == "failed" || operation["state"] == "succeeded");
    let result = client.get(&format!("{location}/result")).await;
    assert_eq!(result.status(), StatusCode::OK);
    assert_eq!(
        result.header("x-checksum"),
        hex(Sha256::digest(result.body()))
    );
}

#[tokio::test]
async fn a_wrong_place_for_results_is_refused_at_the_start() {
    let server = S3Server::start();
    let endpoint = server.endpoint();
    let key = server.environment();
    let wrong_key = [key[0], ("AWS_SECRET_ACCESS_KEY", "wrong")];
    for (results, environment, expected) in [
        (format!("s3://absent?endpoint={endpoint}"), &key, "absent"),
        (in_bucket(&server), &wrong_key, "SignatureDoesNotMatch"),
        (
            "s3://reports?endpoint=http://127.0.0.1:1".into(),
            &key,
            "127.0.0.1:1",
        ),
    ] {
        let arguments = ["--listen", "127.0.0.1:0", "--results", &results];
        let started = Example::start_in("server", &arguments, environment).await;
        let Err(log) = started else {
            panic!("{results} is accepted");
        };
        assert!(log.contains("error: the store of results"), "{log}");
        assert!(log.contains(expected), "{log}");
    }
    for results in ["s3://", "s3://reports?endpoint=127.0.0.1", "folder"] {
        let refused = run("server", &["--results", results]).await;
        assert_eq!(refused.status.code(), Some(2));
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(
            errors.contains("invalid value") && errors.contains("--results"),
            "{errors}"
        );
    }
}
