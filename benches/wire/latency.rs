//! The latency of answers below the maximum load.
//!
//! Requests are due at regular intervals, whether or not earlier ones were answered, and the
//! latency of each counts from its due time. The client never sleeps, as waking up takes
//! longer than an answer.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    answer::{answer_length, has_status},
    child::Server,
    contender::Contender,
    ids::Random,
    options::Options,
    statistics::{median, percentile},
};

const CONNECTIONS: usize = 64;

/// The latency of one contender, in microseconds.
#[derive(Debug)]
pub(crate) struct Delays {
    pub(crate) contender: Contender,
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// The p99 divided by that of the floor in the same round.
    pub(crate) p99_to_floor: f64,
}

/// Measures the latency at `rate` requests per second, in rounds like those of the CPU time.
pub(crate) fn measure(servers: &mut [Server], rate: f64, options: &Options) -> Vec<Delays> {
    let mut rounds = vec![Vec::new(); servers.len()];
    for round in 0..options.rounds() {
        for place in 0..servers.len() {
            let index = match round % 2 {
                0 => place,
                _ => servers.len() - 1 - place,
            };
            let delays = pace(&servers[index], rate, options);
            rounds[index].push((percentile(&delays, 0.5), percentile(&delays, 0.99)));
        }
    }
    let floor = servers
        .iter()
        .position(|server| server.contender == Contender::Floor)
        .expect("accepting has a floor");
    let median_of = |values: &[(f64, f64)], part: fn(&(f64, f64)) -> f64| {
        median(&values.iter().map(part).collect::<Vec<_>>())
    };
    let to_floor = |values: &[(f64, f64)]| {
        let ratios = values.iter().zip(&rounds[floor]);
        median(
            &ratios
                .map(|(ours, floor)| ours.1 / floor.1)
                .collect::<Vec<_>>(),
        )
    };
    let delays = servers.iter().zip(&rounds).map(|(server, values)| Delays {
        contender: server.contender,
        rate,
        p50: median_of(values, |(p50, _)| *p50),
        p99: median_of(values, |(_, p99)| *p99),
        p99_to_floor: to_floor(values),
    });
    delays.collect()
}

struct Connection {
    stream: TcpStream,
    /// The due time of the pending request.
    due: Instant,
    buffer: [u8; 4096],
    filled: usize,
}

/// Returns the delay of each request, in microseconds.
fn pace(server: &Server, rate: f64, options: &Options) -> Vec<f64> {
    let (gap, count) = (1.0 / rate, (options.turn().as_secs_f64() * rate) as usize);
    let count = count.min(options.requests() as usize);
    let begun = Instant::now();
    let mut idle: Vec<_> = (0..CONNECTIONS).map(|_| connect(server.port())).collect();
    let mut pending: VecDeque<Connection> = VecDeque::new();
    let mut request = server.workload.request();
    let (mut random, mut delays, mut sent) = (Random::new(), Vec::with_capacity(count), 0);
    let since = Instant::now();
    while delays.len() < count {
        assert!(begun.elapsed() < 10 * options.turn(), "far too slow");
        let due = since + Duration::from_secs_f64(sent as f64 * gap);
        if sent < count && Instant::now() >= due {
            // If all connections are pending, the time until one is idle counts as well.
            if let Some(mut connection) = idle.pop() {
                let bytes = request.bytes(&mut random);
                connection
                    .stream
                    .write_all(bytes)
                    .expect("the server listens");
                connection.due = due;
                pending.push_back(connection);
                sent += 1;
            }
        }
        for _ in 0..pending.len() {
            let mut connection = pending.pop_front().expect("a pending connection");
            if !connection.is_answered(server.workload.status()) {
                pending.push_back(connection);
                continue;
            }
            delays.push(1e6 * connection.due.elapsed().as_secs_f64());
            connection.filled = 0;
            idle.push(connection);
        }
    }
    delays
}

fn connect(port: u16) -> Connection {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    stream.set_nodelay(true).expect("no delay");
    stream.set_nonblocking(true).expect("a nonblocking socket");
    Connection {
        stream,
        due: Instant::now(),
        buffer: [0; 4096],
        filled: 0,
    }
}

impl Connection {
    fn is_answered(&mut self, status: u16) -> bool {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => panic!("the server closed the connection"),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        let is_whole = answer_length(&self.buffer[..self.filled]).is_some();
        assert!(
            !is_whole || has_status(&self.buffer, status),
            "another status"
        );
        is_whole
    }
}
