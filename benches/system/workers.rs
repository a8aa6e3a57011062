//! Benchmark of the dispatch to workers: the reports per second with one, two and four
//! workers, and the cost of a report in the accepting process compared with one through a
//! queue. The results are tables, the first of which is also a plot, `docs/workers.svg`.
//!
//! Run with:
//!
//! ```not_rust
//! cargo build --release -p workers -p server
//! cargo bench -p system-benches --bench workers
//! ```
//!
//! The benchmark starts a private PostgreSQL and Redis on the disk that `TMPDIR` names, and
//! takes a minute and a half.

// The client of the tests.
use test_support::client;
#[path = "../support/plot/mod.rs"]
mod plot;
use std::{
    fmt::Write,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use client::Client;
use private::Folder;
use process::Example;
use runs::Runs;
use serde_json::json;
use test_support::{postgres, private, process, redis, runs};
use tokio::{task::JoinSet, time::sleep};

/// The concurrent reports of a worker, and the duration of each: at most 100 per second.
const CONCURRENCY: usize = 10;
const RENDERING: Duration = Duration::from_millis(100);
/// The numbers of workers, and the seconds for which they are busy.
const WORKERS: [usize; 3] = [1, 2, 4];
const BUSY: usize = 8;
/// The number of clients that order consecutive reports, and the duration.
const CLIENTS: usize = 16;
const TIME: Duration = Duration::from_secs(6);
/// The number of reports that are ordered without other load.
const ALONE: usize = 40;

#[tokio::main]
async fn main() {
    let postgres = postgres::Postgres::start().await;
    let redis = redis::Redis::start().await;
    let engines = [
        ("PostgreSQL", postgres.url(), postgres.pid()),
        ("Redis", redis.url(), redis.pid()),
    ];

    println!("| workers | PostgreSQL | Redis | at most |");
    println!("| --- | --- | --- | --- |");
    let mut rates = Vec::new();
    for workers in WORKERS {
        let mut row = Vec::new();
        for (_, url, _) in &engines {
            row.push(throughput(url, workers).await);
        }
        let limit = max_rate(workers);
        println!(
            "| {workers} | {:.0}/s | {:.0}/s | {limit:.0}/s |",
            row[0], row[1]
        );
        rates.push(row);
    }
    plot::write(&plot::docs().join("workers.svg"), &svg(&rates));

    println!();
    println!("| a report | alone | CPU in front | in the worker | in the database |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, url, database) in &engines {
        for workers in [0, 1] {
            let how = match workers {
                0 => "in the process that accepted it",
                _ => "through the queue",
            };
            let cost = cost(url, *database, workers).await;
            let Cost {
                alone,
                front,
                worker,
                database,
            } = cost;
            let worker = match workers {
                0 => "-".to_owned(),
                _ => format!("{worker:.0} µs"),
            };
            println!(
                "| {name}, {how} | {alone:.1} ms | {front:.0} µs | {worker} | {database:.0} µs |"
            );
        }
    }
}

fn max_rate(workers: usize) -> f64 {
    (workers * CONCURRENCY) as f64 / RENDERING.as_secs_f64()
}

async fn front(queue: &str) -> Example {
    let arguments = ["front", "--listen", "127.0.0.1:0", "--queue", queue];
    Example::start("workers", &arguments).await.unwrap()
}

async fn worker(queue: &str, name: &str, runs: &Runs) -> Example {
    let (concurrency, runs) = (CONCURRENCY.to_string(), runs.path().display().to_string());
    let arguments = [
        "worker",
        "--queue",
        queue,
        "--name",
        name,
        "--concurrency",
        &concurrency,
    ];
    let arguments = [&arguments[..], &["--runs", &runs]].concat();
    let started = Example::start_until("workers", &arguments, &[], "working as ").await;
    started.unwrap()
}

fn order(page: Duration) -> String {
    json!({"title": "Q3", "pages": 1, "page_ms": page.as_millis() as u64}).to_string()
}

/// Measures the reports per second from the first rendered report to the last. The reports
/// are in the queue before the workers start.
async fn throughput(queue: &str, workers: usize) -> f64 {
    let (folder, front) = (Folder::new("throughput"), front(queue).await);
    let runs = Runs::at(folder.join("runs"));
    let reports = BUSY * max_rate(workers) as usize;
    let order_count = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, order_count) = (Client::new(front.url()), Arc::clone(&order_count));
        clients.spawn(async move {
            while order_count.fetch_add(1, Relaxed) < reports {
                client.post_accepted("/reports", order(RENDERING)).await;
            }
        });
    }
    clients.join_all().await;
    let mut running_workers = Vec::new();
    for number in 0..workers {
        running_workers.push(worker(queue, &format!("{number}"), &runs).await);
    }
    let begun = Instant::now();
    let ends = loop {
        let mut lines = runs.all();
        lines.retain(|line| line["event"] == "end");
        if lines.len() >= reports {
            break lines;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{} of {reports}",
            lines.len()
        );
        sleep(Duration::from_millis(200)).await;
    };
    let at = |line: &serde_json::Value| line["at"].as_u64().expect("a time");
    let first = ends.iter().map(at).min().expect("there are some") as f64;
    let last = ends.iter().map(at).max().expect("there are some") as f64;
    (reports - workers * CONCURRENCY) as f64 * 1_000.0 / (last - first)
}

/// The cost of one report.
struct Cost {
    /// The median time from the order to the observed end without other load, in
    /// milliseconds.
    alone: f64,
    /// The CPU time in microseconds, under load.
    front: f64,
    worker: f64,
    database: f64,
}

async fn cost(url: &str, database: u32, workers: usize) -> Cost {
    let folder = Folder::new("cost");
    let runs = Runs::at(folder.join("runs"));
    let (front, worker) = match workers {
        0 => {
            let arguments = ["--listen", "127.0.0.1:0", "--store", url];
            (Example::start("server", &arguments).await.unwrap(), None)
        }
        _ => (front(url).await, Some(worker(url, "one", &runs).await)),
    };
    let client = Client::new(front.url());
    let mut alone = Vec::new();
    for _ in 0..ALONE {
        let begun = Instant::now();
        run_report(&client).await;
        alone.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    alone.sort_by(f64::total_cmp);

    let cpu_times = || {
        let worker = worker.as_ref().map_or(0.0, |worker| cpu(worker.pid()));
        [cpu(front.pid()), worker, cpu(database)]
    };
    let (before, begun) = (cpu_times(), Instant::now());
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, done) = (Client::new(front.url()), Arc::clone(&done));
        clients.spawn(async move {
            while begun.elapsed() < TIME {
                run_report(&client).await;
                done.fetch_add(1, Relaxed);
            }
        });
    }
    clients.join_all().await;
    let after = cpu_times();
    let each = |part: usize| (after[part] - before[part]) * 1e6 / done.load(Relaxed) as f64;
    Cost {
        alone: alone[ALONE / 2],
        front: each(0),
        worker: each(1),
        database: each(2),
    }
}

async fn run_report(client: &Client) {
    let operation = client
        .post_accepted("/reports", order(Duration::ZERO))
        .await;
    let ended = client.wait_for_end(&operation).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
}

/// Returns the CPU seconds of a process and its children, including ended ones.
fn cpu(pid: u32) -> f64 {
    let processes = fs::read_dir("/proc").expect("there is a /proc");
    let stats = processes.filter_map(|process| {
        let stat = fs::read_to_string(process.ok()?.path().join("stat")).ok()?;
        // The name is in parentheses, and may have spaces and parentheses.
        let (before, rest) = stat.rsplit_once(") ")?;
        let pid: u32 = before.split(' ').next()?.parse().ok()?;
        let fields: Vec<u64> = rest
            .split(' ')
            .map(|field| field.parse().unwrap_or_default())
            .collect();
        Some((pid, fields))
    });
    let ticks: u64 = stats
        .map(
            |(process, fields)| match (process == pid, fields[1] == u64::from(pid)) {
                (true, _) => fields[11..15].iter().sum(),
                (_, true) => fields[11..13].iter().sum(),
                _ => 0,
            },
        )
        .sum();
    // Linux counts a hundred ticks per second.
    ticks as f64 / 100.0
}

/// Draws the reports per second over the number of workers.
fn svg(rates: &[Vec<f64>]) -> String {
    let last = WORKERS[WORKERS.len() - 1];
    let x = |workers: usize| 60.0 + 260.0 * workers as f64 / last as f64;
    let y = |rate: f64| 200.0 - 170.0 * rate / max_rate(last);
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 420 245\" width=\"420\" \
         height=\"245\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"420\" height=\"245\" fill=\"#fff\"/>\n",
    );
    let mut draw = |line: std::fmt::Arguments<'_>| {
        out.write_fmt(line)
            .and_then(|()| out.write_str("\n"))
            .expect("a string takes it");
    };
    for share in 0..=4 {
        let rate = max_rate(last) * f64::from(share) / 4.0;
        let y = y(rate);
        draw(format_args!("<path d=\"M60 {y}H320\" stroke=\"#ddd\"/>"));
        draw(format_args!(
            "<text x=\"54\" y=\"{}\" text-anchor=\"end\">{rate:.0}</text>",
            y + 4.0
        ));
    }
    for workers in WORKERS {
        let x = x(workers);
        draw(format_args!(
            "<text x=\"{x}\" y=\"216\" text-anchor=\"middle\">{workers}</text>"
        ));
    }
    draw(format_args!(
        "<text x=\"190\" y=\"236\" text-anchor=\"middle\">workers</text>"
    ));
    draw(format_args!(
        "<text x=\"60\" y=\"18\">reports a second</text>"
    ));
    let (from, to) = ((x(0), y(0.0)), (x(last), y(max_rate(last))));
    draw(format_args!(
        "<path d=\"M{} {}L{} {}\" stroke=\"#999\" stroke-dasharray=\"4 4\"/>",
        from.0, from.1, to.0, to.1
    ));
    draw(format_args!(
        "<text x=\"328\" y=\"{}\" fill=\"#777\">at most</text>",
        to.1 + 2.0
    ));
    for (engine, (name, colour)) in [("PostgreSQL", "#2563eb"), ("Redis", "#dc2626")]
        .iter()
        .enumerate()
    {
        let points = WORKERS.iter().zip(rates);
        let points = points.map(|(workers, row)| (x(*workers), y(row[engine])));
        let points: Vec<_> = points.collect();
        let path: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1} {y:.1}"))
            .collect();
        draw(format_args!(
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join("L")
        ));
        for (x, y) in &points {
            draw(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            ));
        }
        let y = 52.0 + 18.0 * engine as f64;
        draw(format_args!(
            "<text x=\"328\" y=\"{y}\" fill=\"{colour}\">{name}</text>"
        ));
    }
    out + "</svg>\n"
}
