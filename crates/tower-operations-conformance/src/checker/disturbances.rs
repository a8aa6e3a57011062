//! The disturbances of the store and the nodes, and the delays that they excuse.

use std::{collections::HashMap, time::Duration};

use super::{Away, Call, DrainEntry, Kill, Rules, Violation};

/// The periods in which the store, or a node, was away, and the kills and drains.
#[derive(Debug, Default)]
pub(super) struct Disturbances {
    store: Vec<Interval>,
    nodes: HashMap<String, Vec<Interval>>,
    kills: Vec<Kill>,
    drains: Vec<DrainEntry>,
    unanswered: Vec<Unanswered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) begin: u64,
    pub(super) end: u64,
}

impl Interval {
    fn meets(self, other: Self) -> bool {
        self.begin <= other.end && other.begin <= self.end
    }
}

/// A call without an answer.
#[derive(Debug)]
struct Unanswered {
    about: String,
    node: String,
    span: Interval,
}

impl Disturbances {
    pub(super) fn away(&mut self, away: &Away) {
        let span = Interval {
            begin: away.begin,
            end: away.end,
        };
        match &away.node {
            Some(node) => self.nodes.entry(node.clone()).or_default().push(span),
            None => self.store.push(span),
        }
    }

    pub(super) fn kill(&mut self, kill: &Kill) {
        self.kills.push(kill.clone());
    }

    pub(super) fn drain(&mut self, drain: &DrainEntry) {
        self.drains.push(drain.clone());
    }

    pub(super) fn unanswered(&mut self, call: &Call) {
        self.unanswered.push(Unanswered {
            about: call.ask.about().into(),
            node: call.node.clone(),
            span: call.reading(),
        });
    }

    /// Returns how much of the time between `begin` and `end` is excused. Excused is the time in
    /// which the store was away, or was back so recently that the nodes did not trust it yet, or
    /// in which `node` was away.
    pub(super) fn within(
        &self,
        begin: u64,
        end: u64,
        node: Option<&str>,
        shortly: Duration,
    ) -> Duration {
        let store = self.store.iter().map(|span| Interval {
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

    /// Returns the time at which a node can have received a request that was sent at this time: a
    /// node that is stopped receives it when the node continues.
    pub(super) fn received(&self, at: u64, node: &str) -> u64 {
        let stopped = self.nodes.get(node).into_iter().flatten();
        let stopped = stopped.filter(|span| span.begin <= at && at < span.end);
        stopped.map(|span| span.end).max().unwrap_or(at)
    }

    /// Returns whether a disturbance during `meanwhile`, or at most `shortly` before,
    /// explains an event of that time.
    pub(super) fn explain(&self, meanwhile: Interval, shortly: Duration) -> bool {
        let shortly = millis(shortly);
        self.all().any(|span| {
            let end = span.end.saturating_add(shortly);
            Interval { end, ..span }.meets(meanwhile)
        })
    }

    /// Returns the kills after which the node was back and undisturbed for `within`.
    pub(super) fn reclaims(&self, within: Duration) -> Vec<Interval> {
        let back = |kill: &Kill| {
            let back = kill.back?;
            let watched = Interval {
                begin: back,
                end: back.saturating_add(millis(within)),
            };
            let killed = Interval {
                begin: kill.at,
                end: back,
            };
            let mut others = self.all().filter(|span| *span != killed);
            (!others.any(|span| span.meets(watched))).then_some(killed)
        };
        self.kills.iter().filter_map(back).collect()
    }

    /// Returns the requests that a node had when it began to drain and never answered.
    pub(super) fn cut_off(&self, rules: &Rules) -> Vec<Violation> {
        let mut found = Vec::new();
        for Unanswered { about, node, span } in &self.unanswered {
            let has_it = |drain: &&DrainEntry| {
                let reached = span.begin.saturating_add(millis(rules.reach));
                drain.node == *node && reached < drain.begin && drain.begin <= span.end
            };
            let Some(drain) = self.drains.iter().find(has_it) else {
                continue;
            };
            let killed = self.kills.iter().filter(|kill| kill.node == *node);
            // With one node, the store is away for as long as the node drains.
            let store = self.store.iter().filter(|away| away.begin != drain.begin);
            let stopped = self.nodes.get(node).into_iter().flatten();
            let mut others = killed.map(killing).chain(store.chain(stopped).copied());
            if !others.any(|other| other.meets(*span)) {
                found.push(Violation::CutOff {
                    request: about.clone(),
                    node: node.clone(),
                    at: Duration::from_millis(drain.begin - span.begin),
                });
            }
        }
        found
    }

    fn all(&self) -> impl Iterator<Item = Interval> {
        let away = self.store.iter().chain(self.nodes.values().flatten());
        let kills = self.kills.iter().map(killing);
        let drains = self.drains.iter().map(|drain| Interval {
            begin: drain.begin,
            end: drain.end,
        });
        away.copied().chain(kills).chain(drains)
    }
}

fn killing(kill: &Kill) -> Interval {
    Interval {
        begin: kill.at,
        end: kill.back.unwrap_or(kill.at),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
