//! Rounds in which everybody has a turn.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::{child::Server, contender::Contender, options::Options};

/// What one contender did, a value a round.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) contender: Contender,
    /// CPU time a request, in microseconds.
    pub(crate) micros: Vec<f64>,
    /// Answers a second.
    pub(crate) rates: Vec<f64>,
}

pub(crate) fn measure(servers: &mut [Server], options: &Options) -> Vec<Measured> {
    let mut measured: Vec<_> = servers
        .iter()
        .map(|server| Measured {
            contender: server.contender,
            micros: Vec::new(),
            rates: Vec::new(),
        })
        .collect();
    for server in &mut *servers {
        turn(server, options.turn() / 3, options.requests());
    }
    for round in 0..options.rounds() {
        for place in 0..servers.len() {
            // Whoever came first comes last in the next round.
            let index = match round % 2 {
                0 => place,
                _ => servers.len() - 1 - place,
            };
            let (micros, rate) = turn(&mut servers[index], options.turn(), options.requests());
            measured[index].micros.push(micros);
            measured[index].rates.push(rate);
        }
    }
    measured
}

/// CPU time a request, in microseconds, and answers a second.
fn turn(server: &mut Server, time: Duration, at_most: u64) -> (f64, f64) {
    let (before, since) = (server.cpu_seconds(), Instant::now());
    let answered = server.connections.drive(time, at_most) as f64;
    let rate = answered / since.elapsed().as_secs_f64();
    // What was accepted last is still being worked on, and counts.
    sleep(server.workload.takes() + Duration::from_millis(20));
    let micros = 1e6 * (server.cpu_seconds() - before) / answered;
    (micros, rate)
}
