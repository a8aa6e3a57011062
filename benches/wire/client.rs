//! The client, which sends as many requests as possible on 64 connections and one thread.
//!
//! The client sends a request on each connection in turn, and reads the answers in the same
//! order. A request takes two system calls and little else, so the client is no slower than
//! the fastest server, and all connections but one always have a pending request. The client
//! never sleeps, because waking it up would cost the server more than some answers do.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    answer::{answer_length, has_status},
    ids::Random,
    workload::{Request, Workload},
};

const CONNECTIONS: usize = 64;

/// The time-out of an answer.
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
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
            stream.set_nodelay(true).expect("no delay");
            stream.set_nonblocking(true).expect("a nonblocking socket");
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

    /// Sends requests until `time` or `at_most` is reached, and returns their number.
    pub(crate) fn drive(&mut self, time: Duration, at_most: u64) -> u64 {
        let since = Instant::now();
        for index in 0..self.streams.len() {
            self.ask(index);
        }
        let mut answered = 0;
        // The clock is read once per turn.
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
        self.streams[index]
            .write_all(request)
            .expect("the server listens");
    }

    fn read(&mut self, index: usize) {
        let (buffer, mut filled) = (&mut self.buffer[..], 0);
        let length = loop {
            filled += read(&mut self.streams[index], &mut buffer[filled..]);
            if let Some(length) = answer_length(&buffer[..filled]) {
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
            Ok(0) => panic!("the server closed the connection"),
            Ok(read) => return read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let since = since.get_or_insert_with(Instant::now);
                assert!(since.elapsed() < PATIENCE, "no answer");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
