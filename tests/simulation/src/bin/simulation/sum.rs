use std::time::Duration;

use sha2::{Digest, Sha256};
use simulation::Outcome;

/// The sum of all worlds.
#[derive(Default)]
pub(crate) struct Sum {
    worlds: usize,
    operations: usize,
    requests: usize,
    kills: usize,
    stops: usize,
    drains: usize,
    outages: usize,
    reruns: usize,
    store_calls: u64,
    lost_requests: u64,
    lost_answers: u64,
    lost_notices: u64,
    reclaims: u64,
    simulated: Duration,
    violations: usize,
    digest: Sha256,
}

impl Sum {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let Outcome {
            counts, network, ..
        } = outcome;
        self.worlds += 1;
        self.operations += counts.accepted;
        self.requests += counts.calls;
        self.kills += counts.kills;
        self.stops += counts.stops;
        self.drains += counts.drains;
        self.outages += counts.outages;
        self.reruns += counts.reruns;
        self.store_calls += network.calls;
        self.lost_requests += network.lost_requests;
        self.lost_answers += network.lost_answers;
        self.lost_notices += network.lost_notices;
        self.reclaims += outcome.reclaims;
        self.simulated += outcome.elapsed;
        self.violations += outcome.violations.len();
        self.digest.update(&outcome.log.digest);
    }

    pub(crate) fn is_good(&self) -> bool {
        self.violations == 0
    }

    pub(crate) fn print(self, took: Duration) {
        let digest = self.digest.finalize();
        println!("worlds: {}", self.worlds);
        println!("operations: {}", self.operations);
        println!("requests: {}", self.requests);
        println!("kills: {}", self.kills);
        println!("stops: {}", self.stops);
        println!("drains: {}", self.drains);
        println!("outages: {}", self.outages);
        println!("store calls: {}", self.store_calls);
        println!("lost requests: {}", self.lost_requests);
        println!("lost answers: {}", self.lost_answers);
        println!("lost notices: {}", self.lost_notices);
        println!("reclaims: {}", self.reclaims);
        println!("reruns: {}", self.reruns);
        println!(
            "simulated hours: {:.1}",
            self.simulated.as_secs_f64() / 3600.0
        );
        println!("wall seconds: {:.1}", took.as_secs_f64());
        println!("digest of the logs: {}", hex(&digest[..8]));
        println!("violations: {}", self.violations);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
