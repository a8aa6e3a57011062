//! A record as bytes, without its result.
//!
//! It is JSON: a release reads what an older one wrote, and does not mind what a
//! newer one adds. What a newer one changes for good it says by `format`.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};

use super::engine::Cell;
use crate::{
    operation::{
        Failure, Metadata, Operation, OperationId, Outcome, Problem, Progress, Snapshot, Stage,
        State, Stored,
    },
    store::{FencingToken, NodeId, Owner, Past, Record, StoreError, Version},
};

/// Which format a head has.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    format: u32,
    #[serde(borrow)]
    id: Cow<'a, str>,
    version: u64,
    state: State,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    owner: Option<Cow<'a, str>>,
    token: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    node: Option<Cow<'a, str>>,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_by: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<Cow<'a, Problem>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Cow<'a, Progress>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<Before<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Before<'a> {
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Cow<'a, Progress>>,
}

/// The head of a record. What could not be read again is not written.
pub(crate) fn encode<T>(record: &Record<T>) -> Result<Vec<u8>, StoreError> {
    let operation = record.operation();
    let metadata = operation.metadata();
    let history = record.history();
    let head = Head {
        format: FORMAT,
        id: Cow::Owned(operation.id().to_string()),
        version: record.version().map_or(0, Version::get),
        state: operation.state(),
        owner: record.owner().map(|owner| owner.as_str().into()),
        token: record.token().get(),
        node: record.node().map(|node| node.as_str().into()),
        attempts: record.attempts(),
        started_by: record.started_by().map(FencingToken::get),
        problem: operation.problem().map(Cow::Borrowed),
        method: metadata.method().map(|method| method.as_str().into()),
        name: metadata.name().map(Cow::Borrowed),
        created_at: metadata.created_at().map(millis),
        updated_at: metadata.updated_at().map(millis),
        started_at: metadata.started_at().map(millis),
        finished_at: metadata.finished_at().map(millis),
        expires_at: metadata.expires_at().map(millis),
        progress: metadata.progress().map(Cow::Borrowed),
        history: history.iter().map(Before::from).collect(),
    };
    let bytes = serde_json::to_vec(&head).map_err(StoreError::refused)?;
    if head.problem.is_some() {
        // Its members are of the application's making, as deep as they may be.
        let _: Head<'_> = serde_json::from_slice(&bytes).map_err(StoreError::refused)?;
    }
    Ok(bytes)
}

/// The result of a record, if it has one.
pub(super) fn result<T: Stored>(record: &Record<T>) -> Result<Option<Bytes>, StoreError> {
    let response = record.operation().response();
    let bytes = response.map(Stored::to_bytes).transpose();
    bytes.map_err(StoreError::Refused)
}

/// The record that a cell holds.
pub(crate) fn decode<T: Stored>(cell: Cell) -> Result<Record<T>, StoreError> {
    let result = cell.result.map(T::from_bytes).transpose();
    let result = result.map_err(StoreError::Refused)?;
    let head: Head<'_> = serde_json::from_slice(&cell.head).map_err(StoreError::refused)?;
    if head.format > FORMAT {
        let format = head.format;
        return Err(StoreError::refused(format!(
            "a record of format {format} is of a newer release"
        )));
    }
    head.into_record(result).map_err(StoreError::Refused)
}

type WithTime = fn(Metadata, SystemTime) -> Metadata;

impl Head<'_> {
    fn into_record<T>(self, result: Option<T>) -> Result<Record<T>, tower::BoxError> {
        let id: OperationId = self.id.parse()?;
        let version = Version::from_number(self.version).ok_or("a record without a version")?;
        let stage = match self.state {
            State::Pending => Stage::Pending,
            State::Running => Stage::Running,
            State::Succeeded => Outcome::Succeeded(result).into(),
            State::Canceled => Outcome::Canceled.into(),
            State::Failed => Outcome::Failed(Failure {
                problem: self
                    .problem
                    .ok_or("a failure without a problem")?
                    .into_owned(),
                response: result,
            })
            .into(),
        };
        let mut metadata = Metadata::default();
        let times: [(_, WithTime); 5] = [
            (self.created_at, Metadata::with_created_at),
            (self.updated_at, Metadata::with_updated_at),
            (self.started_at, Metadata::with_started_at),
            (self.finished_at, Metadata::with_finished_at),
            (self.expires_at, Metadata::with_expires_at),
        ];
        for (at, with) in times {
            if let Some(at) = at {
                metadata = with(metadata, moment(at));
            }
        }
        if let Some(progress) = self.progress {
            metadata = metadata.with_progress(progress.into_owned());
        }
        if let Some(method) = self.method {
            metadata = metadata.with_method(Method::from_bytes(method.as_bytes())?);
        }
        if let Some(name) = self.name {
            metadata = metadata.with_name(&*name);
        }
        let operation = Operation::of(id, Snapshot { stage, metadata });
        let node = self.node.map(|node| NodeId::named(&*node));
        let started_by = self.started_by.map(FencingToken::from_number);
        let history = self.history.into_iter().map(Past::from).collect();
        Ok(Record::restore(operation, version)
            .with_owner(self.owner.map(|owner| Owner::new(&*owner)))
            .with_holder(FencingToken::from_number(self.token), node)
            .with_attempts(self.attempts, started_by)
            .with_history(history))
    }
}

impl<'a> From<&'a Past> for Before<'a> {
    fn from(past: &'a Past) -> Self {
        Self {
            state: past.state,
            at: past.at.map(millis),
            progress: past.progress.as_deref().map(Cow::Borrowed),
        }
    }
}

impl From<Before<'_>> for Past {
    fn from(before: Before<'_>) -> Self {
        let progress = before.progress.map(Cow::into_owned);
        Self::new(before.state, before.at.map(moment), progress)
    }
}

fn millis(at: SystemTime) -> u64 {
    let age = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

fn moment(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};

    use super::*;
    use crate::{
        operation::{RecordedResponse, WholeBody},
        store::{LeaseTerm, NewOperation, Step},
    };

    fn next<T>(step: Step<T>) -> Record<T> {
        match step {
            Step::Next(next) => next,
            Step::Done | Step::Lost => panic!("no step"),
        }
    }

    /// Records of one life, with everything in them that there can be.
    fn life() -> Vec<Record<RecordedResponse>> {
        let at = |second: u64| moment(1_800_000_000_000 + second * 1000);
        let new = NewOperation::new("invoice-7".parse().unwrap())
            .owner(Some(Owner::new("\u{fc}ber \"alles\"")))
            .method(Method::POST)
            .name(Some("render".into()))
            .lease(LeaseTerm {
                node: NodeId::named("node 1"),
                term: Duration::from_secs(30),
            });
        let node = NodeId::named("node 1");
        let token = FencingToken::from_number(7);
        let pending = Record::create(&new, at(0)).with_holder(token, Some(node));
        let running = next(pending.started(token, at(1)));
        let progress = Progress::counted(1, 3).unit("pages").message("\u{1f980}");
        let reported = next(running.reported(token, progress, at(2)));
        let taken = next(reported.taken_over(&NodeId::named("node 2")));
        let problem = Problem::new(StatusCode::CONFLICT)
            .with_detail("taken")
            .with("code", 0.1);
        let failed = Outcome::Failed(Failure {
            problem,
            response: Some(RecordedResponse::new(Response::new(WholeBody::from("no")))),
        });
        let ttl = Duration::from_secs(60);
        let ended = next(taken.finished(taken.token(), failed, None, at(3), ttl));
        let succeeded = next(running.finished(token, Outcome::Succeeded(None), None, at(3), ttl));
        let version = running.version().unwrap();
        let canceled = next(running.overruled(version, Outcome::Canceled, at(3), ttl));
        vec![
            pending, running, reported, taken, ended, succeeded, canceled,
        ]
    }

    fn cell(record: &Record<RecordedResponse>) -> Cell {
        Cell {
            head: encode(record).unwrap().into(),
            result: result(record).unwrap(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        for record in life() {
            let back = decode::<RecordedResponse>(cell(&record)).unwrap();
            assert_eq!(back, record);
        }
    }

    /// Law 10: what has been written once is read for ever.
    #[test]
    fn what_this_release_writes_is_what_it_always_wrote() {
        let lines = include_str!("golden/format-1.jsonl").lines();
        let life = life();
        assert_eq!(lines.clone().count(), life.len());
        for (line, record) in lines.zip(life) {
            let cell = cell(&record);
            assert_eq!(std::str::from_utf8(&cell.head).unwrap(), line);
            let old = Cell {
                head: Bytes::copy_from_slice(line.as_bytes()),
                result: cell.result,
            };
            assert_eq!(decode::<RecordedResponse>(old).unwrap(), record);
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let deep = |levels| (0..levels).fold(serde_json::json!(1), |deep, _| [deep].into());
        let failed = |levels| {
            let problem = Problem::new(StatusCode::CONFLICT).with("deep", deep(levels));
            let running = &life()[1];
            let outcome = Outcome::failed(problem);
            next(running.finished(running.token(), outcome, None, moment(0), Duration::MAX))
        };
        assert_eq!(
            decode::<RecordedResponse>(cell(&failed(100))).unwrap(),
            failed(100)
        );
        assert!(!encode(&failed(127)).unwrap_err().is_transient());
    }

    #[test]
    fn what_a_newer_release_adds_is_no_matter_and_what_it_changes_is_an_error() {
        let record = life().remove(1);
        let mut head: serde_json::Value = serde_json::from_slice(&cell(&record).head).unwrap();
        head["color"] = "green".into();
        let of = |head: &serde_json::Value| Cell {
            head: head.to_string().into(),
            result: None,
        };
        assert_eq!(decode::<RecordedResponse>(of(&head)).unwrap(), record);
        for (member, value) in [
            ("format", serde_json::json!(2)),
            ("state", serde_json::json!("paused")),
            ("version", serde_json::json!(0)),
            ("id", serde_json::json!("")),
            ("method", serde_json::json!("\u{e9}")),
        ] {
            let mut head = head.clone();
            head[member] = value;
            let error = decode::<RecordedResponse>(of(&head)).unwrap_err();
            assert!(!error.is_transient(), "{member}");
        }
    }
}
