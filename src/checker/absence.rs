use std::{collections::HashMap, time::Duration};

use super::Away;

/// When the store, or a node, was away.
#[derive(Debug, Default)]
pub(super) struct Absences {
    store: Vec<Span>,
    nodes: HashMap<String, Vec<Span>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    begin: u64,
    end: u64,
}

impl Absences {
    pub(super) fn add(&mut self, away: &Away) {
        let span = Span {
            begin: away.begin,
            end: away.end,
        };
        match &away.node {
            Some(node) => self.nodes.entry(node.clone()).or_default().push(span),
            None => self.store.push(span),
        }
    }

    /// How much of the time between `begin` and `end` the store was away, or
    /// so shortly back that it was not yet trusted, or `node` was away.
    pub(super) fn within(
        &self,
        begin: u64,
        end: u64,
        node: Option<&str>,
        shortly: Duration,
    ) -> Duration {
        let store = self.store.iter().map(|span| Span {
            begin: span.begin,
            end: span.end.saturating_add(millis(shortly)),
        });
        let node = node.and_then(|node| self.nodes.get(node));
        let mut spans: Vec<_> = store.chain(node.into_iter().flatten().copied()).collect();
        spans.sort_unstable();
        let (mut total, mut counted) = (0, begin);
        for span in spans {
            let from = span.begin.max(counted);
            let to = span.end.min(end);
            if from < to {
                total += to - from;
                counted = to;
            }
        }
        Duration::from_millis(total)
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
