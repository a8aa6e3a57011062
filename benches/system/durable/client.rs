//! The client, on 64 connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

const CONNECTIONS: usize = 64;

const REQUEST: &[u8] = b"POST /reports HTTP/1.1\r\nhost: localhost\r\n\
    content-type: application/json\r\ncontent-length: 14\r\n\r\n{\"title\":\"Q3\"}";

struct Connection {
    stream: TcpStream,
    buffer: [u8; 4096],
}

impl Connection {
    async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let stream = stream.expect("the server listens");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            buffer: [0; 4096],
        }
    }

    /// Sends a request and reads its 202, whose body ends with its brace.
    async fn ask(&mut self) {
        let sent = self.stream.write_all(REQUEST).await;
        sent.expect("the server reads");
        let mut filled = 0;
        while !self.buffer[..filled].ends_with(b"\"}") {
            let read = self.stream.read(&mut self.buffer[filled..]).await;
            let read = read.expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            filled += read;
        }
        let head = String::from_utf8_lossy(&self.buffer[..filled.min(32)]).into_owned();
        assert!(head.starts_with("HTTP/1.1 202 "), "{head}");
    }
}

/// Returns how many 202s a second all connections get together.
pub(crate) async fn most(port: u16, time: Duration) -> f64 {
    let (answered, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let answered = Arc::clone(&answered);
        tasks.spawn(async move {
            let mut connection = Connection::open(port).await;
            while begun.elapsed() < time {
                connection.ask().await;
                answered.fetch_add(1, Relaxed);
            }
        });
    }
    tasks.join_all().await;
    answered.load(Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// Returns the latency of each request at this rate.
pub(crate) async fn at_rate(port: u16, rate: f64, time: Duration) -> Vec<Duration> {
    let count = (rate * time.as_secs_f64()) as usize;
    let (due_sender, due) = mpsc::channel::<Instant>(count.max(1));
    let due = Arc::new(tokio::sync::Mutex::new(due));
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let due = Arc::clone(&due);
        tasks.spawn(async move {
            let mut connection = Connection::open(port).await;
            let mut delays = Vec::new();
            loop {
                // The next request that is due, however late.
                let next = due.lock().await.recv().await;
                let Some(next) = next else { return delays };
                connection.ask().await;
                delays.push(next.elapsed());
            }
        });
    }
    let begun = Instant::now();
    for number in 0..count {
        let at = begun + Duration::from_secs_f64(number as f64 / rate);
        // Requests that are due within the resolution of the timer are sent together.
        if at > Instant::now() {
            tokio::time::sleep_until(at.into()).await;
        }
        due_sender.send(at).await.expect("the connections wait");
    }
    drop(due_sender);
    tasks.join_all().await.concat()
}
