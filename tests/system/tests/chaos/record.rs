//! The log of a scenario, which is sent to the checker and kept in a file.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use test_customers::Log;
use tokio::time::Instant;
use tower_operations_conformance::checker::{Checker, Entry, Rules, RunEntry, Verdict, Violation};

/// The number of violations that are shown with their lines of the log.
const SHOWN: usize = 5;

pub(crate) struct Record {
    open: Mutex<Option<OpenLog>>,
    begun: (Instant, Duration),
}

/// A log whose verdict is not taken yet.
struct OpenLog {
    checker: Checker,
    file: BufWriter<File>,
    path: PathBuf,
}

impl Record {
    pub(crate) fn new(path: &Path, rules: Rules) -> Self {
        let open = OpenLog {
            checker: Checker::new(rules),
            file: BufWriter::new(File::create(path).unwrap()),
            path: path.into(),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            open: Mutex::new(Some(open)),
            begun: (Instant::now(), since),
        }
    }

    /// Adds the runs that the nodes logged.
    pub(crate) fn add_runs(&self, path: &Path) {
        let Ok(runs) = File::open(path) else {
            panic!("no node wrote of its runs to {}", path.display());
        };
        for run in RunEntry::read(BufReader::new(runs)) {
            self.add(&Entry::Run(run.expect("a run is a line")));
        }
    }

    /// Returns the verdict, and the file of the log.
    pub(crate) fn verdict(&self) -> (Verdict, PathBuf) {
        let log = self.open.lock().unwrap().take();
        let mut log = log.expect("there is one verdict");
        log.file.flush().unwrap();
        (log.checker.verdict(), log.path)
    }

    /// Returns the violations, each with the lines of the log about it.
    pub(crate) fn about(log: &Path, violations: &[Violation]) -> String {
        let mut details = String::new();
        for violation in violations.iter().take(SHOWN) {
            let about = violation.to_string();
            let lines = BufReader::new(File::open(log).unwrap()).lines();
            // The text of a violation begins with its subject.
            let name = about.split(": ").next().unwrap_or_default();
            let name = name.trim_start_matches("key ").trim_matches('`');
            writeln!(details, "{about}").unwrap();
            for line in lines.map(Result::unwrap).filter(|line| line.contains(name)) {
                writeln!(details, "    {line}").unwrap();
            }
        }
        details
    }
}

impl Log for Record {
    fn now(&self) -> u64 {
        let (begun, since) = self.begun;
        u64::try_from((since + begun.elapsed()).as_millis()).unwrap()
    }

    fn add(&self, entry: &Entry) {
        let line = entry.to_line().unwrap();
        let mut log = self.open.lock().unwrap();
        let log = log.as_mut().expect("the verdict is not taken yet");
        log.checker.add(entry);
        writeln!(log.file, "{line}").unwrap();
    }
}
