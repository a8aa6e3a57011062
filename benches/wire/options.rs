//! The options of the benchmark.

use std::{path::PathBuf, time::Duration};

use super::page;

#[derive(Debug)]
pub(crate) struct Options {
    is_quick: bool,
    plot: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Self {
        let mut options = Self {
            is_quick: false,
            plot: None,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {} // cargo's
                "--quick" => options.is_quick = true,
                "--plot" => options.plot = arguments.next().map(PathBuf::from),
                other => panic!("{other}: there are --quick and --plot FILE"),
            }
        }
        options
    }

    /// Returns the file of the plot. A quick run draws no plot by default.
    pub(crate) fn plot(&self) -> Option<PathBuf> {
        let usual = page::docs().join("wire.svg");
        let usual = (!self.is_quick).then_some(usual);
        self.plot.clone().or(usual)
    }

    /// Returns the number of turns of each contender.
    pub(crate) fn rounds(&self) -> usize {
        if self.is_quick { 3 } else { 9 }
    }

    /// Returns the duration of a turn.
    pub(crate) fn turn(&self) -> Duration {
        Duration::from_millis(if self.is_quick { 300 } else { 1_200 })
    }

    /// Returns the maximum number of requests in a turn, since some contenders keep
    /// operations in memory.
    pub(crate) fn requests(&self) -> u64 {
        400_000
    }
}
