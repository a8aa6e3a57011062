//! A record as bytes, without its result, or without the body of its result.
//!
//! The format is JSON. A release reads heads of older releases, and ignores additions of newer
//! ones. An incompatible change raises `format`. Format 1 has the result, with its fields, apart.
//! Format 2 has the fields of a recorded response in the head, and only its body apart.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};

use super::Cell;
use crate::{
    BoxError,
    codec::ResponseHead,
    operation::{
        Failure, FailureKind, Metadata, Operation, OperationId, Outcome, PayloadView, Problem,
        Progress, RecordedResponse, Snapshot, State, Status, Stored,
    },
    store::{FencingToken, NodeId, Owner, PastVersion, Record, StoreError, Version},
};

/// The format of the head of a live operation, and of one whose result has no head.
const FORMAT_WHOLE: u32 = 1;

/// The format of the head of an ended operation that says whether there is a response.
const FORMAT_APART: u32 = 2;

#[derive(Serialize, Deserialize)]
struct RecordHead<'a> {
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
    /// The kind of the failure that the problem describes, or [`NOT_OURS`].
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
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
    history: Vec<PastHead<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    response: Option<ResponseHead<'a>>,
}

/// The kind of a failure of the service or the application.
const NOT_OURS: &str = "";

#[derive(Serialize, Deserialize)]
struct PastHead<'a> {
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Cow<'a, Progress>>,
}

/// Returns the head of a record. A head that could not be read again is refused.
pub(crate) fn encode<T: Stored>(record: &Record<T>) -> Result<Vec<u8>, StoreError> {
    let operation = record.operation();
    let is_apart = T::FROM_RECORDED.is_some() && operation.state().is_terminal();
    let metadata = operation.metadata();
    let history = record.history();
    let head = RecordHead {
        format: match is_apart {
            true => FORMAT_APART,
            false => FORMAT_WHOLE,
        },
        id: Cow::Owned(operation.id().to_string()),
        version: record.version().map_or(0, Version::get),
        state: operation.state(),
        owner: record.owner().map(|owner| owner.as_str().into()),
        token: record.token().get(),
        node: record.node().map(|node| node.as_str().into()),
        attempts: record.attempts(),
        started_by: record.started_by().map(FencingToken::get),
        problem: operation.problem().map(Cow::Borrowed),
        kind: operation.failure().map(|failure| {
            let kind = failure.kind().map_or(NOT_OURS, FailureKind::code);
            kind.into()
        }),
        reason: operation.reason().map(Cow::Borrowed),
        method: metadata.method().map(|method| method.as_str().into()),
        name: metadata.name().map(Cow::Borrowed),
        created_at: metadata.created_at().map(millis),
        updated_at: metadata.updated_at().map(millis),
        started_at: metadata.started_at().map(millis),
        finished_at: metadata.finished_at().map(millis),
        expires_at: metadata.expires_at().map(millis),
        progress: metadata.progress().map(Cow::Borrowed),
        history: history.iter().map(PastHead::from).collect(),
        response: recorded(record).map(ResponseHead::from),
    };
    let bytes = serde_json::to_vec(&head).map_err(StoreError::refused)?;
    if head.problem.is_some() {
        // The application sets the problem's members, which may be nested too deeply to be
        // read.
        let _: RecordHead<'_> = serde_json::from_slice(&bytes).map_err(StoreError::refused)?;
    }
    Ok(bytes)
}

/// Returns the result of a record as a response, if results of this type are responses.
pub(super) fn recorded<T: Stored>(record: &Record<T>) -> Option<&RecordedResponse> {
    T::FROM_RECORDED?;
    match record.operation().response()?.view() {
        PayloadView::Response(recorded) => Some(recorded),
        PayloadView::Json(_) => None,
    }
}

/// Returns what is stored apart from the head: the body of a response, if there is one and it is
/// not empty, or a result of another type.
pub(super) fn result<T: Stored>(record: &Record<T>) -> Result<Option<Bytes>, StoreError> {
    if let Some(recorded) = recorded(record) {
        if recorded.uploader().is_some() {
            return Ok(None);
        }
        let unread = || StoreError::refused("a response without its body cannot be stored");
        let body = recorded.body_bytes().ok_or_else(unread)?;
        return Ok(Some(body).filter(|body| !body.is_empty()));
    }
    let response = record.operation().response();
    let bytes = response.map(Stored::to_bytes).transpose();
    bytes.map_err(StoreError::Refused)
}

/// A record that was decoded.
pub(super) struct Decoded<T> {
    pub(super) record: Record<T>,
    /// Whether a result, or its head, is part of the record if there is one. It is not if an early
    /// release stored a response as a whole, which was not read.
    pub(super) is_whole: bool,
}

/// Returns the record in a cell that was read as a whole.
pub(crate) fn decode<T: Stored>(cell: Cell) -> Result<Record<T>, StoreError> {
    decode_part(cell).map(|decoded| decoded.record)
}

/// Returns the record in a cell whose result may not have been read.
pub(super) fn decode_part<T: Stored>(cell: Cell) -> Result<Decoded<T>, StoreError> {
    let head = parse(&cell.head)?;
    let is_whole = head.format >= FORMAT_APART || cell.result.is_some() || !head.may_have_result();
    let record = head.into_record(cell.result, usize::MAX);
    let record = record.map_err(StoreError::Refused)?;
    Ok(Decoded { record, is_whole })
}

/// Returns the record in a cell that was read as a whole. The body of a response that is longer
/// than `max_body` does not become a part of it.
pub(super) fn decode_up_to<T: Stored>(
    cell: Cell,
    max_body: usize,
) -> Result<Decoded<T>, StoreError> {
    let record = parse(&cell.head)?.into_record(cell.result, max_body);
    let record = record.map_err(StoreError::Refused)?;
    Ok(Decoded {
        record,
        is_whole: false,
    })
}

/// Returns the length of the body of a response, if it was not read.
pub(super) fn missing_body<T: Stored>(record: &Record<T>) -> Option<usize> {
    let recorded = recorded(record)?;
    let is_missing = recorded.body().is_none() && recorded.uploader().is_none();
    is_missing.then(|| recorded.body_len())
}

fn parse(head: &[u8]) -> Result<RecordHead<'_>, StoreError> {
    let head: RecordHead<'_> = serde_json::from_slice(head).map_err(StoreError::refused)?;
    if head.format > FORMAT_APART {
        let format = head.format;
        return Err(StoreError::refused(format!(
            "a record of format {format} is of a newer release"
        )));
    }
    Ok(head)
}

/// Returns whether a newer release wrote this head, in a format that this release cannot read.
pub(super) fn is_newer(head: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Versioned {
        format: u32,
    }
    serde_json::from_slice(head).is_ok_and(|head: Versioned| head.format > FORMAT_APART)
}

/// Returns the record with this head. Its result was not read.
pub(super) fn decode_head<T: Stored>(head: Bytes) -> Result<Record<T>, StoreError> {
    decode(Cell { head, result: None })
}

type WithTime = fn(Metadata, SystemTime) -> Metadata;

impl RecordHead<'_> {
    /// Returns whether an operation whose head does not say so may have a response. A failure of
    /// this crate has none.
    fn may_have_result(&self) -> bool {
        match self.state {
            State::Succeeded => true,
            State::Failed => self.kind.as_deref().is_none_or(|kind| kind == NOT_OURS),
            State::Pending | State::Running | State::Canceled => false,
        }
    }

    fn into_record<T: Stored>(
        self,
        result: Option<Bytes>,
        max_body: usize,
    ) -> Result<Record<T>, BoxError> {
        let result = match (self.response, T::FROM_RECORDED) {
            (Some(head), Some(from_recorded)) => {
                let body = result.or_else(|| head.is_empty().then(Bytes::new));
                Some(from_recorded(head.into_response(body)?))
            }
            (Some(_), None) => return Err("a response where another result belongs".into()),
            (None, _) => result.map(T::from_bytes).transpose()?,
        };
        let result = result.map(|result| match (result.view(), T::FROM_RECORDED) {
            (PayloadView::Response(recorded), Some(from_recorded))
                if recorded.body().is_some_and(|body| body.len() > max_body) =>
            {
                from_recorded(recorded.as_unread())
            }
            _ => result,
        });
        let id = OperationId::from_stored(&self.id)?;
        let version = Version::from_number(self.version).ok_or("a record without a version")?;
        let status = match self.state {
            State::Pending => Status::Pending,
            State::Running => Status::Running,
            State::Succeeded => Outcome::Succeeded(result).into(),
            State::Canceled => match self.reason {
                Some(reason) => Outcome::CanceledFor(reason.into()).into(),
                None => Outcome::Canceled.into(),
            },
            State::Failed => {
                let problem = self.problem.ok_or("a failure without a problem")?;
                Outcome::Failed(failure(problem.into_owned(), self.kind.as_deref(), result)).into()
            }
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
        let operation = Operation::from_parts(id, Snapshot { status, metadata });
        let node = self.node.map(|node| NodeId::named(&*node));
        let started_by = self.started_by.map(FencingToken::from_number);
        let history = self.history.into_iter().map(PastVersion::from).collect();
        Ok(Record::restore(operation, version)
            .with_owner(self.owner.map(|owner| Owner::new(&*owner)))
            .with_holder(FencingToken::from_number(self.token), node)
            .with_attempts(self.attempts, started_by)
            .with_history(history))
    }
}

/// Restores a stored failure.
///
/// The first releases wrote no kind: they identified their own failures by the type of the
/// problem. A stored failure without a kind is one of these failures if it has such a type and
/// no response. A failure with a response is one of the service. The first releases also stored
/// the status that the body claimed, so the status of the response replaces it.
fn failure<T: Stored>(problem: Problem, kind: Option<&str>, response: Option<T>) -> Failure<T> {
    let is_of_old = kind.is_none();
    let kind = match (kind, &response) {
        (Some(code), _) => FailureKind::from_code(code),
        (None, Some(_)) => None,
        (None, None) => {
            let mut kinds = FailureKind::ALL.iter().copied();
            kinds.find(|kind| kind.urn() == problem.type_uri())
        }
    };
    let problem = match response.as_ref().map(T::view) {
        Some(PayloadView::Response(recorded)) if is_of_old && recorded.status().as_u16() >= 400 => {
            problem.with_status(recorded.status())
        }
        _ => problem,
    };
    Failure::from(problem)
        .with_kind(kind)
        .with_response(response)
}

impl<'a> From<&'a PastVersion> for PastHead<'a> {
    fn from(past: &'a PastVersion) -> Self {
        Self {
            state: past.state,
            at: past.at.map(millis),
            progress: past.progress.as_deref().map(Cow::Borrowed),
        }
    }
}

impl From<PastHead<'_>> for PastVersion {
    fn from(before: PastHead<'_>) -> Self {
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
mod tests;
