//! The private servers of the tests, and their restarts.

use std::{net::TcpStream, path::Path, process::Command};

use test_support::{postgres::Postgres, redis::Redis};

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
async fn postgres_survives_stops_and_kills_and_ends_with_the_test() {
    let mut postgres = Postgres::with(&["max_connections=7"]).await;
    let url = postgres.url();
    let ask = |sql: &str| {
        let mut psql = Command::new("psql");
        let output = psql.args([&url, "-qAtc", sql]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(ask("show max_connections"), "7");
    ask("create table kept (number int)");
    ask("insert into kept values (1)");
    postgres.restart().await;
    ask("insert into kept values (2)");
    postgres.kill().await;
    assert!(!listens(postgres.port()));
    postgres.run().await;
    ask("insert into kept values (3)");
    postgres.stop_immediately().await;
    postgres.run().await;
    assert_eq!(ask("select sum(number) from kept"), "6");
    let folder = ask("show data_directory");
    let port = postgres.port();
    drop(postgres);
    assert!(!listens(port));
    assert!(!Path::new(&folder).exists());
}

#[tokio::test]
async fn redis_survives_stops_and_kills_and_ends_with_the_test() {
    let mut redis = Redis::start().await;
    let port = redis.port();
    let ask = |command: &[&str]| {
        let mut cli = Command::new("redis-cli");
        let output = cli.args(["-p", &port.to_string()]).args(command).output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    };
    ask(&["incr", "kept"]);
    redis.restart().await;
    ask(&["incr", "kept"]);
    redis.kill().await;
    assert!(!listens(port));
    redis.run().await;
    assert_eq!(ask(&["incr", "kept"]), "3");
    drop(redis);
    assert!(!listens(port));
}

#[tokio::test]
async fn several_servers_run_at_a_time() {
    let (first, second) = (Redis::start().await, Redis::start().await);
    assert_ne!(first.url(), second.url());
    let (first, second) = tokio::join!(Postgres::start(), Postgres::start());
    assert_ne!(first.url(), second.url());
}
