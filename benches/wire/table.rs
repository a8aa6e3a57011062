//! The results as Markdown.

use std::fmt::Write;

use super::{
    contender::Contender, latency::Delays, rounds::Measurements, statistics::median,
    workload::Workload,
};

/// The contenders of one workload, with their medians.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) workload: Workload,
    pub(crate) cells: Vec<Cell>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) contender: Contender,
    /// The CPU time of the limit per request, divided by that of this contender.
    pub(crate) ratio: f64,
    pub(crate) micros: f64,
    pub(crate) rate: f64,
}

impl Row {
    pub(crate) fn new(workload: Workload, measurements: &[Measurements]) -> Self {
        let limit = measurements
            .iter()
            .find(|one| one.contender == Contender::Limit)
            .expect("the limit takes part");
        let ratio = |one: &Measurements| {
            // The ratio is taken within a round, because the load of the machine changes.
            let rounds = limit.micros.iter().zip(&one.micros);
            median(&rounds.map(|(limit, one)| limit / one).collect::<Vec<_>>())
        };
        let cells = measurements.iter().map(|one| Cell {
            contender: one.contender,
            ratio: ratio(one),
            micros: median(&one.micros),
            rate: median(&one.rates),
        });
        Self {
            workload,
            cells: cells.collect(),
        }
    }

    pub(crate) fn cell(&self, contender: Contender) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.contender == contender)
    }

    pub(crate) fn slowest_rate(&self) -> f64 {
        let rates = self.cells.iter().map(|cell| cell.rate);
        rates.fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut line = format!("| {} |", self.workload.name());
        for contender in Contender::ALL {
            let cell = match self.cell(contender) {
                Some(Cell { micros, .. }) if contender == Contender::Limit => {
                    format!("1.00 ({micros:.1} µs)")
                }
                Some(Cell { ratio, .. }) => format!("{ratio:.2}"),
                None => "–".to_owned(),
            };
            let _ = write!(line, " {cell} |");
        }
        line
    }
}

pub(crate) fn costs(rows: &[Row]) -> String {
    let mut table = String::from("| CPU ratio to *limit* |");
    for contender in Contender::ALL {
        let _ = write!(table, " {} |", contender.name());
    }
    table.push_str("\n| --- | --- | --- | --- | --- | --- | --- |\n");
    for row in rows {
        let _ = writeln!(table, "{}", row.markdown());
    }
    table
}

pub(crate) fn delays(delays: &[Delays]) -> String {
    let rate = delays.first().map_or(0.0, |first| first.rate);
    let mut table = format!(
        "| accept 50 ms, {rate:.0} requests a second | p50, µs | p99, µs | p99 to the floor's |\n\
         | --- | --- | --- | --- |\n"
    );
    for one in delays {
        let _ = writeln!(
            table,
            "| {} | {:.0} | {:.0} | {:.1} |",
            one.contender.name(),
            one.p50,
            one.p99,
            one.p99_to_floor
        );
    }
    table
}
