//! What was seen, told to the checker and kept in a file.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;
use tower_operations_conformance::checker::{Checker, Entry, Rules, RunEntry, Verdict, Violation};

/// How many violations are shown with all that was seen of them.
const SHOWN: usize = 5;

pub(crate) struct Record {
    kept: Mutex<Option<Kept>>,
    begun: (Instant, Duration),
}

struct Kept {
    checker: Checker,
    file: BufWriter<File>,
    path: PathBuf,
}

impl Record {
    pub(crate) fn new(path: &Path, rules: Rules) -> Self {
        let kept = Kept {
            checker: Checker::new(rules),
            file: BufWriter::new(File::create(path).unwrap()),
            path: path.into(),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            kept: Mutex::new(Some(kept)),
            begun: (Instant::now(), since),
        }
    }

    /// The time, by a clock that is never set.
    pub(crate) fn now(&self) -> u64 {
        let (begun, since) = self.begun;
        u64::try_from((since + begun.elapsed()).as_millis()).unwrap()
    }

    pub(crate) fn add(&self, entry: &Entry) {
        let line = entry.to_line().unwrap();
        let mut kept = self.kept.lock().unwrap();
        let kept = kept.as_mut().expect("there is no verdict so far");
        kept.checker.add(entry);
        writeln!(kept.file, "{line}").unwrap();
    }

    /// What the nodes wrote of their runs.
    pub(crate) fn add_runs(&self, path: &Path) {
        let Ok(runs) = File::open(path) else {
            panic!("no node wrote of its runs to {}", path.display());
        };
        for run in RunEntry::read(BufReader::new(runs)) {
            self.add(&Entry::Run(run.expect("a run is a line")));
        }
    }

    /// The verdict, and the file with all that it is about.
    pub(crate) fn verdict(&self) -> (Verdict, PathBuf) {
        let kept = self.kept.lock().unwrap().take();
        let mut kept = kept.expect("there is one verdict");
        kept.file.flush().unwrap();
        (kept.checker.verdict(), kept.path)
    }

    /// The lines of a log that are about what was convicted.
    pub(crate) fn about(log: &Path, violations: &[Violation]) -> String {
        let mut said = String::new();
        for violation in violations.iter().take(SHOWN) {
            let about = violation.to_string();
            let lines = BufReader::new(File::open(log).unwrap()).lines();
            // Sentences begin with what they are about.
            let name = about.split(": ").next().unwrap_or_default();
            let name = name.trim_start_matches("key ").trim_matches('`');
            writeln!(said, "{about}").unwrap();
            for line in lines.map(Result::unwrap).filter(|line| line.contains(name)) {
                writeln!(said, "    {line}").unwrap();
            }
        }
        said
    }
}
