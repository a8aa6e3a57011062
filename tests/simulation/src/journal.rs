//! The log of a world: judged entry by entry, and reduced to a digest.

use std::{
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};
use test_customers::Log;
use tokio::time::Instant;
use tower_operations_conformance::checker::{Checker, Entry, Rules, Verdict, Violation};

/// The wall time at which every world begins, in seconds after 1970.
const BEGIN: Duration = Duration::from_secs(1_800_000_000);

/// The parts of the lines of faults that say so.
const FAULTS: [&str; 3] = [
    "{\"entry\":\"kill\"",
    "{\"entry\":\"away\"",
    "{\"entry\":\"drain\"",
];

/// The number of violations that are shown with their histories.
const SHOWN: usize = 3;

/// The log of a world, while the world runs.
#[derive(Debug)]
pub(crate) struct Journal {
    begun: Instant,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    checker: Checker,
    digest: Sha256,
    /// The lines, if they are kept.
    lines: Option<Vec<String>>,
}

/// The end of a journal.
#[derive(Debug)]
pub struct Closed {
    /// The verdict.
    pub verdict: Verdict,
    /// The SHA-256 of all lines.
    pub digest: String,
    lines: Option<Vec<String>>,
}

impl Journal {
    /// Creates a journal. If `keeps` is set, it keeps its lines.
    pub(crate) fn new(rules: Rules, keeps: bool) -> Self {
        let written = Written {
            checker: Checker::new(rules),
            digest: Sha256::new(),
            lines: keeps.then(Vec::new),
        };
        Self {
            begun: Instant::now(),
            written: Mutex::new(written),
        }
    }

    /// Returns the right wall time.
    pub(crate) fn wall_clock(&self) -> SystemTime {
        UNIX_EPOCH + BEGIN + self.begun.elapsed()
    }

    /// Returns the time since the world began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Returns the verdict on all entries so far, and removes them.
    pub(crate) fn close(&self) -> Closed {
        let mut written = self.written();
        let checker = std::mem::replace(&mut written.checker, Checker::new(Rules::new()));
        let digest = written.digest.finalize_reset();
        Closed {
            verdict: checker.verdict(),
            digest: digest.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
            lines: written.lines.take(),
        }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // A panic within a critical section fails the simulation.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Journal {
    fn now(&self) -> u64 {
        let now = BEGIN + self.begun.elapsed();
        u64::try_from(now.as_millis()).expect("a time of this century")
    }

    fn add(&self, entry: &Entry) {
        let line = entry.to_line().expect("every entry can be written");
        let mut written = self.written();
        written.checker.add(entry);
        written.digest.update(&line);
        written.digest.update("\n");
        if let Some(lines) = &mut written.lines {
            lines.push(line);
        }
    }
}

impl Closed {
    /// Returns the first violations, each with the lines about its subject, if the lines were
    /// kept.
    #[must_use]
    pub fn histories(&self) -> String {
        let mut text = String::new();
        for violation in self.verdict.violations.iter().take(SHOWN) {
            let _ = writeln!(text, "{violation}");
            for line in self.about(violation) {
                let _ = writeln!(text, "    {line}");
            }
        }
        text
    }

    /// Returns the lines about the subject of a violation, and the faults in between.
    fn about(&self, violation: &Violation) -> impl Iterator<Item = &String> {
        // The text of a violation begins with its subject.
        let text = violation.to_string();
        let subject = text.split(": ").next().unwrap_or_default();
        let subject = subject.trim_start_matches("key ").trim_matches('`');
        let lines = || self.lines.iter().flatten();
        let is_about = |line: &&String| line.contains(subject);
        let first = lines().position(|line| is_about(&line)).unwrap_or_default();
        let number = lines().filter(is_about).count();
        let mut seen = 0;
        let shown = lines().skip(first).filter(move |line| {
            let is_about = line.contains(subject);
            seen += usize::from(is_about);
            is_about || seen < number && FAULTS.iter().any(|fault| line.contains(fault))
        });
        shown.collect::<Vec<_>>().into_iter()
    }
}
