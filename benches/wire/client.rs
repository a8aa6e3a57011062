//! The client that asks as much as it can: 64 connections, one thread.
//!
//! It asks on each connection in turn and reads the answers in the same order. That
//! takes two system calls a request and little else, so it is no slower than the fastest
//! server; and all connections but one always have a request at the server. It never
//! sleeps: to wake it up would cost the server more than some answers do, and the more
//! often, the slower it is.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    answer::{has_status, whole},
    ids::Random,
    workload::{Request, Workload},
};

const CONNECTIONS: usize = 64;

/// A server that hangs fails the benchmark.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Connections {
    streams: Vec<TcpStream>,
    request: Request,
    status: u16,
    random: Random,
    buffer: Box<[u8; 16 * 1024]>,
}

impl Connections {
    pub(crate) fn open(port: u16, workload: Workload) -> Self {
        let open = |_| {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            stream.set_nodelay(true).expect("no delay");
            stream.set_nonblocking(true).expect("it never blocks");
            stream
        };
        Self {
            streams: (0..CONNECTIONS).map(open).collect(),
            request: workload.request(),
            status: workload.status(),
            random: Random::new(),
            buffer: Box::new([0; 16 * 1024]),
        }
    }

    /// Asks for as long or as often as it says, and how often it did.
    pub(crate) fn drive(&mut self, time: Duration, at_most: u64) -> u64 {
        let since = Instant::now();
        for index in 0..self.streams.len() {
            self.ask(index);
        }
        let mut answered = 0;
        // The clock is looked at once a turn.
        while since.elapsed() < time && answered < at_most {
            for index in 0..self.streams.len() {
                self.read(index);
                self.ask(index);
            }
            answered += CONNECTIONS as u64;
        }
        for index in 0..self.streams.len() {
            self.read(index);
        }
        answered + CONNECTIONS as u64
    }

    fn ask(&mut self, index: usize) {
        let request = self.request.bytes(&mut self.random);
        self.streams[index].write_all(request).expect("it listens");
    }

    fn read(&mut self, index: usize) {
        let (buffer, mut filled) = (&mut self.buffer[..], 0);
        let length = loop {
            filled += read(&mut self.streams[index], &mut buffer[filled..]);
            if let Some(length) = whole(&buffer[..filled]) {
                break length;
            }
        };
        assert_eq!(length, filled, "one answer to one request");
        assert!(has_status(buffer, self.status), "another status");
    }
}

fn read(stream: &mut TcpStream, into: &mut [u8]) -> usize {
    let mut since = None;
    loop {
        match stream.read(into) {
            Ok(0) => panic!("it hung up"),
            Ok(read) => return read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let since = since.get_or_insert_with(Instant::now);
                assert!(since.elapsed() < PATIENCE, "no answer");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
