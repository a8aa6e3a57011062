use std::time::Duration;

use sha2::{Digest, Sha256};
use simulation::Outcome;

/// The sum of all worlds.
#[derive(Default)]
pub(crate) struct Sum {
    /// The counts by name, in the order in which they are printed.
    counts: Vec<(&'static str, u64)>,
    simulated: Duration,
    violations: usize,
    digest: Sha256,
}

impl Sum {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let Outcome {
            counts,
            network,
            results,
            ..
        } = outcome;
        let world = [
            ("worlds", 1),
            ("operations", counts.accepted as u64),
            ("requests", counts.calls as u64),
            ("kills", counts.kills as u64),
            ("stops", counts.stops as u64),
            ("drains", counts.drains as u64),
            ("outages", counts.outages as u64),
            ("store calls", network.calls),
            ("lost requests", network.lost_requests),
            ("lost answers", network.lost_answers),
            ("lost notices", network.lost_notices),
            ("result store calls", outcome.result_calls),
            ("result store outages", results.outages),
            ("uploads", results.finished),
            ("uploads finished late", results.finished_late),
            ("chunks again", results.repeated_chunks),
            ("finishes again", results.repeated_finishes),
            ("halves by kills", results.killed_halfway),
            ("halves by aborts", results.aborted_halfway),
            (
                "kills after an upload, unanswered",
                results.killed_unrecorded,
            ),
            ("kills after an upload, answered", results.killed_recording),
            (
                "stops after an upload, unanswered",
                results.stopped_unrecorded,
            ),
            ("result reads", results.reads),
            ("broken reads", results.broken_reads),
            ("uploads deleted", results.deleted),
            ("power failures", outcome.power_failures),
            ("reclaims", outcome.reclaims),
            ("reruns", counts.reruns as u64),
        ];
        self.counts.resize(world.len(), ("", 0));
        for ((name, sum), (world_name, count)) in self.counts.iter_mut().zip(world) {
            *name = world_name;
            *sum += count;
        }
        self.simulated += outcome.elapsed;
        self.violations += outcome.violations.len();
        self.digest.update(&outcome.log.digest);
    }

    pub(crate) fn is_good(&self) -> bool {
        self.violations == 0
    }

    pub(crate) fn print(self, took: Duration) {
        for (name, count) in &self.counts {
            println!("{name}: {count}");
        }
        let hours = self.simulated.as_secs_f64() / 3600.0;
        println!("simulated hours: {hours:.1}");
        println!("wall seconds: {:.1}", took.as_secs_f64());
        let digest = self.digest.finalize();
        let digest = u64::from_be_bytes(*digest.first_chunk().expect("32 bytes"));
        println!("digest of the logs: {digest:016x}");
        println!("violations: {}", self.violations);
    }
}
