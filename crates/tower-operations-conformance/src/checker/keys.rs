//! The operations that keys led to, and the runs for the titles posted under the keys.

use std::collections::{BTreeMap, HashMap};

use super::{
    Call, CallAnswer, Rules, Violation,
    disturbances::{Disturbances, Interval, millis},
    histories::Histories,
};

/// The uses of all keys. A key belongs to an owner.
#[derive(Debug, Default)]
pub(super) struct KeyRecords {
    used: HashMap<OwnedKey, Use>,
    titles: HashMap<String, Title>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct OwnedKey {
    owner: Option<String>,
    name: String,
}

/// Whether the store keeps direct answers.
struct AnswerKeeping<'a> {
    disturbances: &'a Disturbances,
    rules: &'a Rules,
}

impl AnswerKeeping<'_> {
    /// Returns whether the store surely keeps an answer. A store that is away for long does not
    /// keep the answer of a call that has run.
    fn surely(&self, answer: &DirectAnswer) -> bool {
        let Interval { begin, end } = answer.call;
        let node = Some(&*answer.node);
        let lease = self.rules.lease;
        self.disturbances.within(begin, end, node, lease).is_zero()
    }
}

/// The use of a key.
#[derive(Debug)]
struct Use {
    /// The operation that the key led to.
    operation: Option<String>,
    /// Another operation that the key led to.
    forked: Option<String>,
    /// The call that began first, and the start of the next call.
    first: FirstUse,
    next: Option<u64>,
    /// The first time at which a client knew that the operation no longer exists.
    gone: Option<u64>,
    /// The first call that led to the operation.
    accepted: Option<Interval>,
    /// The first direct answers to held calls.
    answers: Vec<DirectAnswer>,
}

/// A direct answer to a held call. It is the answer to every later call with the key.
#[derive(Debug)]
struct DirectAnswer {
    digest: String,
    call: Interval,
    node: String,
}

#[derive(Debug)]
struct FirstUse {
    begin: u64,
    end: u64,
    /// The name that the log gives the operation whose id was chosen with the key.
    id: Option<String>,
    /// The status of a refusal that says the key was already used.
    turned_away: Option<u16>,
}

/// A title: the keys under which it was posted, and the operations that ran for it.
#[derive(Debug, Default)]
struct Title {
    keys: Vec<OwnedKey>,
    ran: Vec<String>,
    /// The number of held calls that may have run without an operation or an answer.
    unborn: usize,
}

/// The maximum number of operations recorded for a title, and of direct answers for a key.
const REMEMBERED: usize = 8;

impl KeyRecords {
    pub(super) fn posted(
        &mut self,
        call: &Call,
        title: &str,
        name: &str,
        id: Option<&str>,
        is_held: bool,
    ) {
        let key = OwnedKey {
            owner: call.owner.clone(),
            name: name.into(),
        };
        let known = self.titles.entry(title.into()).or_default();
        if !known.keys.contains(&key) {
            known.keys.push(key.clone());
        }
        let is_unborn = match call.answer {
            CallAnswer::Nothing => is_held,
            CallAnswer::Refused { status } => is_held && status >= 500,
            _ => false,
        };
        known.unborn += usize::from(is_unborn);
        let this = FirstUse {
            begin: call.begin,
            end: call.end,
            id: id.map(str::to_owned),
            turned_away: match call.answer {
                CallAnswer::Refused { status } => Some(status).filter(|it| [409, 422].contains(it)),
                _ => None,
            },
        };
        let used = match self.used.get_mut(&key) {
            None => self.used.entry(key).or_insert(Use {
                operation: None,
                forked: None,
                first: this,
                next: None,
                gone: None,
                accepted: None,
                answers: Vec::new(),
            }),
            Some(used) => {
                let later = this.begin.max(used.first.begin);
                if this.begin < used.first.begin {
                    used.first = this;
                }
                used.next = Some(used.next.map_or(later, |next| next.min(later)));
                used
            }
        };
        let interval = call.reading();
        match &call.answer {
            CallAnswer::Accepted { operation } => {
                match &used.operation {
                    None => used.operation = Some(operation.clone()),
                    Some(first) if first == operation => {}
                    Some(_) => used.forked = Some(operation.clone()),
                }
                let first = used.accepted.get_or_insert(interval);
                *first = interval.min(*first);
            }
            CallAnswer::Result(outcome) if used.answers.len() < REMEMBERED => {
                used.answers.push(DirectAnswer {
                    digest: outcome.digest.clone(),
                    call: interval,
                    node: call.node.clone(),
                });
            }
            CallAnswer::Refused { status: 410 } => {
                used.gone = Some(used.gone.map_or(call.end, |first| first.min(call.end)));
            }
            _ => {}
        }
    }

    pub(super) fn ran(&mut self, title: &str, operation: &str) {
        let known = self.titles.entry(title.into()).or_default();
        if known.ran.len() < REMEMBERED && known.ran.iter().all(|other| other != operation) {
            known.ran.push(operation.into());
        }
    }

    /// Returns the start of the first post of each operation by its owner.
    pub(super) fn first_tries(&self) -> HashMap<&str, u64> {
        let uses = self.used.values();
        uses.filter_map(|used| Some((used.operation.as_deref()?, used.first.begin)))
            .collect()
    }

    /// Returns all violations that concern keys.
    pub(super) fn judge(
        self,
        operations: &Histories,
        disturbances: &Disturbances,
        rules: &Rules,
    ) -> impl Iterator<Item = Violation> {
        let keeps = AnswerKeeping {
            disturbances,
            rules,
        };
        let mut forked = BTreeMap::new();
        let mut found = Vec::new();
        // The numbers of direct answers that the store may not keep.
        let mut unkept = HashMap::new();
        for (key, used) in self.used {
            let turned_away = used.turned_away(operations);
            if let Some(status) = turned_away {
                let key = key.name.clone();
                found.push(Violation::KeyBlocked { key, status });
            }
            let number = used.answers.iter().filter(|answer| !keeps.surely(answer));
            unkept.insert(key.clone(), number.count());
            let two = used.answered_twice(&keeps);
            let two = used.operation.zip(used.forked).or(two);
            if let Some(two) = two {
                forked.insert(key, two);
            }
        }
        // A title posted under one key runs for one operation, whatever the answers were.
        for title in self.titles.into_values() {
            let excused = title.keys.iter().filter_map(|key| unkept.get(key)).sum();
            if let Some((key, first, second)) = title.forked(operations, excused) {
                forked.entry(key).or_insert((first, second));
            }
        }
        let forked = forked.into_iter().filter_map(|(key, (first, second))| {
            let is_damaged = [&first, &second].map(|it| operations.is_damaged(it));
            (!is_damaged.contains(&true)).then_some(Violation::KeyForked {
                key: key.name,
                first,
                second,
            })
        });
        found.extend(forked);
        found.into_iter()
    }
}

impl Use {
    /// Returns two different answers, the later one to a call that began after the earlier one was
    /// sent, while that was kept.
    fn answered_twice(&self, keeps: &AnswerKeeping<'_>) -> Option<(String, String)> {
        let name = |answer: &DirectAnswer| format!("the answer {}", answer.digest);
        let certain = self.answers.iter().filter(|answer| keeps.surely(answer));
        let first = certain.min_by_key(|answer| answer.call)?;
        let until = keeps.rules.kept.map_or(u64::MAX, millis);
        let until = first.call.end.saturating_add(until);
        let is_later = |call: Interval| first.call.end < call.begin && call.begin < until;
        let other = self
            .answers
            .iter()
            .find(|answer| is_later(answer.call) && answer.digest != first.digest);
        let operation = self.operation.clone().filter(|_| {
            let accepted = self.accepted;
            accepted.is_some_and(|call| is_later(call) || call.end < first.call.begin)
        });
        let other = operation.or_else(|| other.map(name))?;
        Some((name(first), other))
    }

    /// Returns the status of a refusal without a reason.
    fn turned_away(&self, operations: &Histories) -> Option<u16> {
        let operation = self.operation.as_deref();
        if operation.is_some_and(|operation| operations.is_damaged(operation)) {
            return None;
        }
        let alone = self.next.is_none_or(|next| next > self.first.end);
        // A refusal can also mean that the id is in use.
        let is_free = |id: &String| operations.is_free(id, self.first.begin);
        let is_alone = |_: &u16| alone && self.first.id.as_ref().is_none_or(is_free);
        let first = self.first.turned_away.filter(is_alone);
        // Only a client that knows the operation can delete it.
        let deleting = operation.and_then(|operation| operations.deleting(operation));
        let gone = self
            .gone
            .filter(|gone| deleting.is_none_or(|begun| begun > *gone));
        first.or(gone.map(|_| 410))
    }
}

impl Title {
    /// Returns two operations that ran for one request, whose direct answers to `excused` held calls
    /// may not have been kept.
    fn forked(self, operations: &Histories, excused: usize) -> Option<(OwnedKey, String, String)> {
        let key = self.keys.first()?.clone();
        let is_whole = |operation: &String| !operations.is_damaged(operation);
        let ran: Vec<_> = self.ran.into_iter().filter(is_whole).collect();
        let owner_of = |operation: &str| operations.owner(operation);
        for (index, first) in ran.iter().enumerate() {
            let owner = owner_of(first);
            let of_the_same = |other: &&String| owner.is_some() && owner_of(other) == owner;
            if let Some(second) = ran[index + 1..].iter().find(of_the_same) {
                let theirs = self.keys.iter().find(|key| Some(&key.owner) == owner);
                let key = theirs.cloned().unwrap_or(key);
                return Some((key, first.clone(), second.clone()));
            }
        }
        let is_too_many = ran.len() > self.keys.len() + self.unborn + excused;
        is_too_many.then(|| (key, ran[0].clone(), ran[ran.len() - 1].clone()))
    }
}
