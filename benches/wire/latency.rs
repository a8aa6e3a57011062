//! How long an answer takes while there is less to do than can be done.
//!
//! Requests are due at regular moments, whether or not the ones before were answered,
//! and the time of each counts from when it was due. The client never sleeps, as waking
//! up takes longer than an answer.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    answer::{has_status, whole},
    child::Server,
    contender::Contender,
    ids::Random,
    options::Options,
    statistics::{median, percentile},
};

const CONNECTIONS: usize = 64;

/// Of one contender, in microseconds.
#[derive(Debug)]
pub(crate) struct Delays {
    pub(crate) contender: Contender,
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Its p99 by that of the floor in the same round.
    pub(crate) p99_to_floor: f64,
}

/// At `rate` requests a second, in rounds like those of the CPU time.
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
    let of = |values: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| {
        median(&values.iter().map(which).collect::<Vec<_>>())
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
        p50: of(values, |(p50, _)| *p50),
        p99: of(values, |(_, p99)| *p99),
        p99_to_floor: to_floor(values),
    });
    delays.collect()
}

struct Connection {
    stream: TcpStream,
    /// When the request that it waits for was due.
    due: Instant,
    buffer: [u8; 4096],
    filled: usize,
}

/// The delay of each request, in microseconds.
fn pace(server: &Server, rate: f64, options: &Options) -> Vec<f64> {
    let (gap, count) = (1.0 / rate, (options.turn().as_secs_f64() * rate) as usize);
    let count = count.min(options.requests() as usize);
    let begun = Instant::now();
    let mut idle: Vec<_> = (0..CONNECTIONS).map(|_| connect(server.port())).collect();
    let mut asked: VecDeque<Connection> = VecDeque::new();
    let mut request = server.workload.request();
    let (mut random, mut delays, mut sent) = (Random::new(), Vec::with_capacity(count), 0);
    let since = Instant::now();
    while delays.len() < count {
        assert!(begun.elapsed() < 10 * options.turn(), "far too slow");
        let due = since + Duration::from_secs_f64(sent as f64 * gap);
        if sent < count && Instant::now() >= due {
            // If all wait for their answer, the time until one has it counts.
            if let Some(mut connection) = idle.pop() {
                let bytes = request.bytes(&mut random);
                connection.stream.write_all(bytes).expect("it listens");
                connection.due = due;
                asked.push_back(connection);
                sent += 1;
            }
        }
        for _ in 0..asked.len() {
            let mut connection = asked.pop_front().expect("as many as there are");
            if !connection.is_answered(server.workload.status()) {
                asked.push_back(connection);
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
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_nodelay(true).expect("no delay");
    stream.set_nonblocking(true).expect("it never blocks");
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
            Ok(0) => panic!("it hung up"),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        let is_whole = whole(&self.buffer[..self.filled]).is_some();
        assert!(
            !is_whole || has_status(&self.buffer, status),
            "another status"
        );
        is_whole
    }
}
