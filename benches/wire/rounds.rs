//! Rounds in which each contender has a turn.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::{child::Server, contender::Contender, options::Options};

/// The measurements of one contender, with one value per round.
#[derive(Debug)]
pub(crate) struct Measurements {
    pub(crate) contender: Contender,
    /// The CPU time per request, in microseconds.
    pub(crate) micros: Vec<f64>,
    /// The answers per second.
    pub(crate) rates: Vec<f64>,
}

pub(crate) fn measure(servers: &mut [Server], options: &Options) -> Vec<Measurements> {
    let mut measurements: Vec<_> = servers
        .iter()
        .map(|server| Measurements {
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
            // The first contender is the last one in the next round.
            let index = match round % 2 {
                0 => place,
                _ => servers.len() - 1 - place,
            };
            let (micros, rate) = turn(&mut servers[index], options.turn(), options.requests());
            measurements[index].micros.push(micros);
            measurements[index].rates.push(rate);
        }
    }
    measurements
}

/// Returns the CPU time per request, in microseconds, and the answers per second.
fn turn(server: &mut Server, time: Duration, at_most: u64) -> (f64, f64) {
    let (before, since) = (server.cpu_seconds(), Instant::now());
    let answered = server.connections.drive(time, at_most) as f64;
    let rate = answered / since.elapsed().as_secs_f64();
    // The operations that were accepted last still run, and count as well.
    sleep(server.workload.takes() + Duration::from_millis(20));
    let micros = 1e6 * (server.cpu_seconds() - before) / answered;
    (micros, rate)
}
