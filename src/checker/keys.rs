//! Where keys led to, and what was run for the titles that were posted under them.

use std::collections::{BTreeMap, HashMap};

use super::{Call, CallAnswer, Violation, histories::Histories};

/// What is known of keys. A key is of an owner.
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

/// How a key was used.
#[derive(Debug)]
struct Use {
    /// The operation that it led to.
    operation: Option<String>,
    /// Another one.
    forked: Option<String>,
    /// The call that began first, and when the next one began.
    first: FirstUse,
    next: Option<u64>,
    /// When it was first known that its operation is no more.
    gone: Option<u64>,
}

#[derive(Debug)]
struct FirstUse {
    begin: u64,
    end: u64,
    /// What the log calls the operation whose id was chosen with it.
    id: Option<String>,
    /// With which status it was turned away as if another had come before it.
    turned_away: Option<u16>,
}

/// What is known of a title: who posted it under which key, and what was run for it.
#[derive(Debug, Default)]
struct Title {
    keys: Vec<OwnedKey>,
    ran: Vec<String>,
}

/// Of one title no more operations are remembered.
const REMEMBERED: usize = 8;

impl KeyRecords {
    pub(super) fn posted(&mut self, call: &Call, title: &str, name: &str, id: Option<&str>) {
        let key = OwnedKey {
            owner: call.owner.clone(),
            name: name.into(),
        };
        let known = self.titles.entry(title.into()).or_default();
        if !known.keys.contains(&key) {
            known.keys.push(key.clone());
        }
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
        match &call.answer {
            CallAnswer::Accepted { operation } => match &used.operation {
                None => used.operation = Some(operation.clone()),
                Some(first) if first == operation => {}
                Some(_) => used.forked = Some(operation.clone()),
            },
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

    /// When its owner first tried to post what this operation came of.
    pub(super) fn first_tries(&self) -> HashMap<&str, u64> {
        let uses = self.used.values();
        uses.filter_map(|used| Some((used.operation.as_deref()?, used.first.begin)))
            .collect()
    }

    /// All that is wrong with keys.
    pub(super) fn judge(self, operations: &Histories) -> impl Iterator<Item = Violation> {
        let mut forked = BTreeMap::new();
        let mut found = Vec::new();
        for (key, used) in self.used {
            let turned_away = used.turned_away(operations);
            if let Some(status) = turned_away {
                let key = key.name.clone();
                found.push(Violation::KeyBlocked { key, status });
            }
            if let (Some(first), Some(second)) = (used.operation, used.forked) {
                forked.insert(key, (first, second));
            }
        }
        // What was posted under a key ran for one operation, whatever the clients were
        // answered.
        for title in self.titles.into_values() {
            if let Some((key, first, second)) = title.forked(operations) {
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
    /// With which status it was turned away without a reason.
    fn turned_away(&self, operations: &Histories) -> Option<u16> {
        let operation = self.operation.as_deref();
        if operation.is_some_and(|operation| operations.is_damaged(operation)) {
            return None;
        }
        let alone = self.next.is_none_or(|next| next > self.first.end);
        // An id can be in use as well.
        let is_free = |id: &String| operations.is_free(id, self.first.begin);
        let is_free = self.first.id.as_ref().is_none_or(is_free);
        let first = self.first.turned_away.filter(|_| alone && is_free);
        // Nobody can have it forgotten who does not know it.
        let forgetting = operation.and_then(|operation| operations.forgetting(operation));
        let gone = self
            .gone
            .filter(|gone| forgetting.is_none_or(|begun| begun > *gone));
        first.or(gone.map(|_| 410))
    }
}

impl Title {
    /// Two operations that were run for what is one.
    fn forked(self, operations: &Histories) -> Option<(OwnedKey, String, String)> {
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
        let is_too_many = ran.len() > self.keys.len();
        is_too_many.then(|| (key, ran[0].clone(), ran[ran.len() - 1].clone()))
    }
}
