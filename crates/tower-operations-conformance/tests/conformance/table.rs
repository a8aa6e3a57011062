//! A store with every trait, written plainly: one table under one lock. The table keeps
//! every law, or breaks the one that its fault names.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tower_operations::{
    BufferedBody, Failure, FailureKind, Operation, OperationId, Outcome, Problem, Progress,
    RecordedResponse, Snapshot, State, Status,
    store::{
        Created, Cursor, FencingToken, IdempotencyKey, IdempotencyKeys, Lease, LeaseConfig,
        LeaseHandle, List, ListQuery, NewOperation, NodeId, Owner, Page, Placed, Purge, Reader,
        Reclaimed, Record, Repository, Reservation, Stamp, Step, Store, StoreError, Version, Watch,
        Written,
    },
};

/// Faults of a store, each of which breaks one law.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    // Reading and creating.
    CreateOverwrites,
    CreateIgnoresTheOwner,
    CreateIsNotAtomic,
    CreateIsSeenLate,
    CreateLosesTheOwner,
    CreateLosesTheStart,
    GetNowIsStale,
    ResultsIgnoreTheOwner,
    IdsLoseTheirCase,
    PlacesIgnoreTheToken,
    PlacesAreCreatedTwice,
    PlacesLoseTheOutcome,
    PlacesLoseTheStart,
    // Conditional writes.
    StartIgnoresTheToken,
    ReportIgnoresTheToken,
    FinishIgnoresTheToken,
    ForceFinishIgnoresTheVersion,
    ForceFinishIgnoresTheToken,
    ForceFinishKeepsTheHolder,
    DeleteIgnoresTheVersion,
    DeleteIgnoresTheToken,
    DeleteTakesLiveOperations,
    OutcomesAreOverwritten,
    VersionsAreConstant,
    VersionsSkip,
    ChangesAreNotAtomic,
    StartsAreCountedAgain,
    RepeatedFinishesAreLost,
    RepeatedReportsAreChanges,
    LastProgressIsLost,
    // Recorded responses.
    HeadersAreSorted,
    RepeatedHeadersAreLost,
    HeadersBecomeUtf8,
    TrailersAreLost,
    BodiesBecomeUtf8,
    BodiesAreCut,
    LongBodiesAreCut,
    LongResultsAreHidden,
    StatusesAreRounded,
    ProblemsLoseTheirExtensions,
    KindsAreReadFromProblems,
    CancelReasonsAreLost,
    // Expiry.
    ExpiredIsReadable,
    ExpiredBlocksItsId,
    ExpiresFromCreation,
    LiveExpires,
    // Waiting.
    WaitsSubscribeLate,
    WaitsMissChanges,
    WaitsTimeOutLate,
    WaitsTimeOutEarly,
    ProgressWakesNoWaiter,
    DeleteWakesNoWaiter,
    HistoryIsLost,
    // Leases.
    LeasesAreIgnored,
    ReclaimKeepsTheToken,
    ReclaimKeepsTheVersion,
    ReclaimIsNotAtomic,
    ReclaimIgnoresTheLimit,
    ClaimsIgnoreTheToken,
    ClaimsKeepTheToken,
    ClaimsAreNotAtomic,
    ClaimsKeepTheTerm,
    ReclaimKeepsTheTerm,
    ReclaimTakesEndedOperations,
    ReclaimLosesTheRequest,
    RenewReportsNoLoss,
    RenewExtendsNothing,
    RenewIsAChange,
    RenewIgnoresTheToken,
    RenewIgnoresTheRelease,
    ReleaseIgnoresTheToken,
    ReleaseDoesNothing,
    RevocationsAreLost,
    RevocationsReachEveryNode,
    // Keys.
    KeysAreIgnored,
    FingerprintsAreIgnored,
    OwnersOfKeysAreIgnored,
    OwnersAndKeysCollide,
    UnownedAndOwnedKeysCollide,
    ReservationsIgnoreTheOwner,
    KeysAreTakenBeforeTheId,
    DeletedIsReturned,
    ReservationsAreIgnored,
    ReservationsNeverExpire,
    ReservationsAreNotRenewed,
    ReserveIsNotAtomic,
    CompleteIgnoresTheToken,
    ReleaseKeyIgnoresTheToken,
    KeyTokensAreReused,
    KeysAreDeleted,
    KeysNeverExpire,
    EarlyResponsesAreLost,
    // Lists.
    ListIgnoresTheOwner,
    ListsTheOldestFirst,
    ListsByOffset,
    ListIgnoresTheState,
    ListTakesTheFirstState,
    ListIgnoresTheLimit,
    ListsExpiredOperations,
    ListHasNoEnd,
    ListEndsEarly,
    CursorsAreUnchecked,
    CursorsAreNumbers,
    CursorsCount,
    CursorsIgnoreTheOwner,
    CursorsIgnoreTheState,
    CursorErrorsAreTransient,
    // Purging.
    PurgeTakesLiveOperations,
    PurgeTakesUnexpiredOperations,
    PurgeIgnoresTheLimit,
}

type Stored = Record<RecordedResponse>;
type Result<T> = std::result::Result<T, StoreError>;

#[derive(Debug)]
pub(crate) struct Table {
    rows: Mutex<Rows>,
    /// The number of changes; each change wakes the waiters.
    changes: watch::Sender<u64>,
    ttl: Duration,
    fault: Option<Fault>,
}

#[derive(Debug, Default)]
struct Rows {
    operations: HashMap<OperationId, Row>,
    keys: HashMap<Arc<str>, KeyRow>,
    /// Issued cursors, with their query and the number they follow.
    cursors: HashMap<Arc<str>, (ListQuery, u64)>,
    revocations: HashMap<NodeId, Vec<OperationId>>,
    created: u64,
}

#[derive(Debug, Clone)]
struct Row {
    record: Stored,
    /// The position of the operation in the order of creation.
    number: u64,
    created: Instant,
    /// The expiry of the lease, or of the operation once it has ended.
    until: Option<Instant>,
    /// The token of the holder that released the lease.
    released_by: Option<FencingToken>,
    key: Option<Arc<str>>,
    request: Option<Bytes>,
}

#[derive(Debug)]
struct KeyRow {
    fingerprint: [u8; 32],
    token: FencingToken,
    target: KeyTarget,
    until: Option<Instant>,
}

#[derive(Debug)]
enum KeyTarget {
    Request,
    Operation(OperationId),
    Deleted(Stored),
    Answer(Arc<RecordedResponse>),
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| until <= Instant::now())
}

fn has_ended(record: &Record<RecordedResponse>) -> bool {
    record.operation().state().is_terminal()
}

impl Table {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            rows: Mutex::default(),
            changes: watch::Sender::new(0),
            ttl,
            fault: None,
        }
    }

    pub(crate) fn breaking(fault: Fault, ttl: Duration) -> Self {
        Self {
            fault: Some(fault),
            ..Self::new(ttl)
        }
    }

    fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    async fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().await
    }

    fn is_there(&self, row: &Row) -> bool {
        if self.breaks(Fault::LiveExpires) && row.created.elapsed() > self.ttl {
            return false;
        }
        !has_ended(&row.record) || !is_over(row.until) || self.breaks(Fault::ExpiredIsReadable)
    }

    fn name(&self, id: &OperationId) -> OperationId {
        match self.breaks(Fault::IdsLoseTheirCase) {
            true => id.to_string().to_lowercase().parse().unwrap(),
            false => id.clone(),
        }
    }

    fn find(&self, rows: &Rows, id: &OperationId) -> Option<Row> {
        let row = rows.operations.get(&self.name(id))?;
        self.is_there(row).then(|| row.clone())
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Reads the record, takes a step and writes the result.
    async fn change(
        &self,
        id: &OperationId,
        step: impl FnOnce(&Record<RecordedResponse>) -> Step<RecordedResponse>,
    ) -> Result<Written<RecordedResponse>> {
        let mut rows = self.rows().await;
        let Some(row) = self.find(&rows, id) else {
            return Ok(Written::Gone);
        };
        let next = match step(&row.record) {
            Step::Done => return Ok(Written::Done(row.record)),
            Step::Lost => return Ok(Written::Lost(row.record)),
            Step::Next(next) => next,
        };
        let version = row.record.version().unwrap();
        let next = match self.fault {
            Some(Fault::VersionsAreConstant) => with_version(&next, version),
            Some(Fault::VersionsSkip) => with_version(&next, version.next().next()),
            Some(Fault::HistoryIsLost) => next.with_history(Vec::new()),
            _ => next,
        };
        // Starts are excluded: racing starts differ only if their timestamps do.
        let is_running = row.record.operation().state() == State::Running;
        if self.breaks(Fault::ChangesAreNotAtomic) && is_running {
            drop(rows);
            yield_now().await;
            rows = self.rows().await;
        }
        let from = match self.breaks(Fault::ExpiresFromCreation) {
            true => row.created,
            false => Instant::now(),
        };
        let until = match has_ended(&next) {
            true => Some(from + self.ttl),
            false => row.until,
        };
        let record = next.clone();
        rows.operations.insert(
            self.name(id),
            Row {
                record,
                until,
                ..row
            },
        );
        Ok(Written::Done(next))
    }

    async fn change_and_notify(
        &self,
        id: &OperationId,
        step: impl FnOnce(&Record<RecordedResponse>) -> Step<RecordedResponse>,
    ) -> Result<Written<RecordedResponse>> {
        let write = self.change(id, step).await?;
        self.changed();
        Ok(write)
    }

    /// Returns the outcome as the table stores it.
    fn stored(&self, outcome: Outcome<RecordedResponse>) -> Outcome<RecordedResponse> {
        match outcome {
            Outcome::Succeeded(result) => {
                Outcome::Succeeded(result.map(|response| self.stored_response(&response)))
            }
            Outcome::Failed(failure) => {
                let mut kinds = FailureKind::ALL.iter().copied();
                let named = kinds.find(|kind| kind.urn() == failure.problem.type_uri());
                let kind = match self.breaks(Fault::KindsAreReadFromProblems) {
                    true => named,
                    false => failure.kind(),
                };
                let status = failure.problem.status();
                let bare = Problem::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
                let problem = match self.breaks(Fault::ProblemsLoseTheirExtensions) {
                    true => bare,
                    false => failure.problem,
                };
                let response = failure.response.as_ref();
                let response = response.map(|response| self.stored_response(response));
                let stored = Failure::from(problem).with_response(response);
                Outcome::Failed(stored.with_kind(kind))
            }
            Outcome::CanceledFor(reason) if !self.breaks(Fault::CancelReasonsAreLost) => {
                Outcome::CanceledFor(reason)
            }
            Outcome::Canceled | Outcome::CanceledFor(_) => Outcome::Canceled,
        }
    }

    fn stored_response(&self, response: &RecordedResponse) -> RecordedResponse {
        let Some(fault) = self.fault else {
            return response.clone();
        };
        let headers = response.headers();
        let mut stored = HeaderMap::new();
        match fault {
            Fault::HeadersAreSorted => {
                let mut fields: Vec<_> = headers.iter().collect();
                fields.sort_by_key(|(name, _)| name.as_str());
                stored.extend(
                    fields
                        .into_iter()
                        .map(|(name, value)| (Some(name.clone()), value.clone())),
                );
            }
            Fault::RepeatedHeadersAreLost => {
                for (name, value) in &headers {
                    stored.insert(name, value.clone());
                }
            }
            Fault::HeadersBecomeUtf8 => {
                for (name, value) in &headers {
                    let text = String::from_utf8_lossy(value.as_bytes());
                    stored.append(name, HeaderValue::from_bytes(text.as_bytes()).unwrap());
                }
            }
            _ => stored = headers,
        }
        let trailers = match fault {
            Fault::TrailersAreLost => None,
            _ => response.trailers(),
        };
        let body = response.body_bytes().unwrap();
        let body = match fault {
            Fault::BodiesBecomeUtf8 => String::from_utf8_lossy(&body).into_owned().into(),
            Fault::BodiesAreCut => body.slice(..body.len().min(65_535)),
            _ => body,
        };
        let mut rebuilt = Response::new(BufferedBody::new(body, trailers));
        *rebuilt.headers_mut() = stored;
        *rebuilt.status_mut() = match (fault, response.status().as_u16()) {
            (Fault::StatusesAreRounded, 299) => StatusCode::OK,
            _ => response.status(),
        };
        RecordedResponse::new(rebuilt)
    }
}

/// Returns the same record with another version.
fn with_version(record: &Record<RecordedResponse>, version: Version) -> Record<RecordedResponse> {
    Record::restore(record.operation().clone(), version)
        .with_owner(record.owner().cloned())
        .with_holder(record.token(), record.node().cloned())
        .with_attempts(record.attempts(), record.started_by())
}

fn with_next_version(record: &Record<RecordedResponse>) -> Record<RecordedResponse> {
    with_version(record, record.version().unwrap().next())
}

impl Store for Table {
    type Output = RecordedResponse;

    async fn get(&self, id: &OperationId) -> Result<Option<Stored>> {
        let row = self.find(&*self.rows().await, id);
        if self.breaks(Fault::CreateIsSeenLate) {
            return Ok(row
                .filter(|row| row.created.elapsed() > Duration::from_millis(5))
                .map(|row| row.record));
        }
        Ok(row.map(|row| row.record))
    }

    fn get_now(&self, id: &OperationId) -> Option<Result<Option<Stored>>> {
        let row = self.find(&*self.rows.try_lock().ok()?, id)?;
        self.breaks(Fault::GetNowIsStale).then(|| {
            Ok(row
                .record
                .version()
                .unwrap()
                .get()
                .is_multiple_of(2)
                .then_some(row.record))
        })
    }

    async fn get_for(&self, id: &OperationId, reader: Reader<'_>) -> Result<Option<Stored>> {
        let found = self.get(id).await?;
        let found = found.map(|record| self.redacted(record, reader.owner));
        Ok(found.map(|record| self.shortened(record, reader.max_body)))
    }
}

/// Whether a store with this fault creates operations at once.
fn is_in_place(fault: Option<Fault>) -> bool {
    matches!(
        fault,
        Some(
            Fault::PlacesIgnoreTheToken
                | Fault::PlacesAreCreatedTwice
                | Fault::PlacesLoseTheOutcome
                | Fault::PlacesLoseTheStart
        )
    )
}

/// Returns the output of a future that does not wait.
fn now<T>(future: impl Future<Output = Result<T>>) -> T {
    let polled = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    match polled {
        Poll::Ready(output) => output.unwrap(),
        Poll::Pending => panic!("the table is in use"),
    }
}

impl Repository for Table {
    fn create_now(&self, new: &NewOperation) -> Option<Placed> {
        if !is_in_place(self.fault) {
            return None;
        }
        let mut new = new.clone();
        if self.breaks(Fault::PlacesLoseTheStart) {
            new.is_running = false;
        }
        match now(self.create(new)) {
            Created::New(record) => Some(record),
            Created::Existing(record) if self.breaks(Fault::PlacesAreCreatedTwice) => Some(record),
            _ => None,
        }
        .map(|record| Placed::new(record.operation().metadata().created_at().unwrap(), 0))
    }

    fn finish_now(
        &self,
        _: Placed,
        id: &OperationId,
        token: FencingToken,
        outcome: &Outcome<RecordedResponse>,
    ) -> bool {
        if !is_in_place(self.fault) {
            return false;
        }
        if self.breaks(Fault::PlacesLoseTheOutcome) {
            let found = now(self.get(id));
            return found.is_some_and(|record| record.is_held_by(token));
        }
        let token = match now(self.get(id)) {
            Some(record) if self.breaks(Fault::PlacesIgnoreTheToken) => record.token(),
            _ => token,
        };
        matches!(
            now(self.finish(id, token, outcome.clone(), None)),
            Written::Done(_)
        )
    }

    async fn create(&self, new: NewOperation) -> Result<Created<RecordedResponse>> {
        let record = match self.breaks(Fault::CreateLosesTheStart) {
            true => {
                let mut pending = new.clone();
                pending.is_running = false;
                Record::create(&pending, SystemTime::now())
            }
            false => Record::create(&new, SystemTime::now()),
        };
        let record = match self.breaks(Fault::CreateLosesTheOwner) {
            true => record.with_owner(None),
            false => record,
        };
        let mut rows = self.rows().await;
        if let Some(key) = new.key()
            && !self.breaks(Fault::KeysAreIgnored)
            && let Some(held) = self.key_state(&rows, key)
        {
            let is_mine = matches!(held, Reservation::InProgress)
                && (self.breaks(Fault::ReservationsAreIgnored)
                    || Some(rows.keys[&self.stored_name(key)].token) == new.reservation());
            match held {
                _ if is_mine => {}
                Reservation::Operation(record) => return Ok(Created::Existing(record)),
                held => return Ok(Created::KeyHeld(held)),
            }
        }
        let name = self.name(&new.id);
        let key = new.key().map(|key| {
            let row = KeyRow {
                fingerprint: key.fingerprint,
                token: FencingToken::from_number(0),
                target: KeyTarget::Operation(new.id.clone()),
                until: None,
            };
            (self.stored_name(key), row)
        });
        let stored_name = key.as_ref().map(|(name, _)| Arc::clone(name));
        let early = self.breaks(Fault::KeysAreTakenBeforeTheId);
        let (early, late) = if early { (key, None) } else { (None, key) };
        rows.keys.extend(early);
        let existing = match self.breaks(Fault::ExpiredBlocksItsId) {
            true => rows.operations.get(&name).cloned(),
            false => self.find(&rows, &new.id),
        };
        if self.breaks(Fault::CreateIsNotAtomic) {
            drop(rows);
            yield_now().await;
            rows = self.rows().await;
        }
        if let Some(row) = existing
            && !self.breaks(Fault::CreateOverwrites)
        {
            let is_mine = row.record.owner() == new.owner.as_ref();
            return Ok(match is_mine || self.breaks(Fault::CreateIgnoresTheOwner) {
                true => Created::Existing(row.record),
                false => Created::IdTaken,
            });
        }
        rows.created += 1;
        let row = Row {
            record: record.clone(),
            number: rows.created,
            created: Instant::now(),
            request: new.request().cloned(),
            until: new.lease.map(|lease| Instant::now() + lease.term),
            released_by: None,
            key: stored_name,
        };
        rows.operations.insert(name, row);
        rows.keys.extend(late);
        Ok(Created::New(record))
    }

    async fn start(
        &self,
        id: &OperationId,
        token: FencingToken,
    ) -> Result<Written<RecordedResponse>> {
        let step = |record: &Record<RecordedResponse>| {
            let token = match self.breaks(Fault::StartIgnoresTheToken) {
                true => record.token(),
                false => token,
            };
            match record.started(token, SystemTime::now()) {
                Step::Next(next) if self.breaks(Fault::StartsAreCountedAgain) => {
                    let attempts = next.attempts();
                    Step::Next(next.with_attempts(attempts, None))
                }
                step => step,
            }
        };
        self.change_and_notify(id, step).await
    }

    async fn report(
        &self,
        id: &OperationId,
        token: FencingToken,
        progress: Progress,
    ) -> Result<Written<RecordedResponse>> {
        let step = |record: &Record<RecordedResponse>| {
            let token = match self.breaks(Fault::ReportIgnoresTheToken) {
                true => record.token(),
                false => token,
            };
            match record.reported(token, progress, SystemTime::now()) {
                Step::Done if self.breaks(Fault::RepeatedReportsAreChanges) => {
                    Step::Next(with_next_version(record))
                }
                step => step,
            }
        };
        match self.breaks(Fault::ProgressWakesNoWaiter) {
            true => self.change(id, step).await,
            false => self.change_and_notify(id, step).await,
        }
    }

    async fn finish(
        &self,
        id: &OperationId,
        token: FencingToken,
        outcome: Outcome<RecordedResponse>,
        progress: Option<Progress>,
    ) -> Result<Written<RecordedResponse>> {
        let outcome = self.stored(outcome);
        let progress = progress.filter(|_| !self.breaks(Fault::LastProgressIsLost));
        let step = |record: &Record<RecordedResponse>| {
            let token = match self.breaks(Fault::FinishIgnoresTheToken) {
                true => record.token(),
                false => token,
            };
            let (now, ttl) = (SystemTime::now(), self.ttl);
            if has_ended(record) && self.breaks(Fault::OutcomesAreOverwritten) {
                let fresh = Operation::new(record.operation().id().clone());
                return Record::restore(fresh, record.version().unwrap())
                    .with_owner(record.owner().cloned())
                    .with_holder(token, record.node().cloned())
                    .finished(token, outcome, progress, now, ttl);
            }
            match record.finished(token, outcome, progress, now, ttl) {
                Step::Done if self.breaks(Fault::RepeatedFinishesAreLost) => Step::Lost,
                step => step,
            }
        };
        self.change_and_notify(id, step).await
    }

    async fn force_finish(
        &self,
        id: &OperationId,
        expected: Stamp,
        outcome: Outcome<RecordedResponse>,
    ) -> Result<Written<RecordedResponse>> {
        let outcome = self.stored(outcome);
        let step = |record: &Record<RecordedResponse>| {
            let current = record.stamp().unwrap();
            let is_ignored = self.breaks(Fault::ForceFinishIgnoresTheVersion)
                || self.breaks(Fault::ForceFinishIgnoresTheToken)
                    && current.version == expected.version;
            let expected = if is_ignored { current } else { expected };
            match record.force_finished(expected, outcome, SystemTime::now(), self.ttl) {
                Step::Next(next) if self.breaks(Fault::ForceFinishKeepsTheHolder) => {
                    Step::Next(next.with_holder(record.token(), record.node().cloned()))
                }
                step => step,
            }
        };
        let write = self.change_and_notify(id, step).await?;
        if let Written::Done(record) = &write
            && let Some(node) = record.node()
        {
            let mut rows = self.rows().await;
            let nodes: Vec<NodeId> = match self.breaks(Fault::RevocationsReachEveryNode) {
                true => rows.revocations.keys().cloned().collect(),
                false => vec![node.clone()],
            };
            for node in nodes {
                rows.revocations.entry(node).or_default().push(id.clone());
            }
            drop(rows);
            self.changed();
        }
        Ok(write)
    }

    async fn delete(&self, id: &OperationId, expected: Stamp) -> Result<Written<RecordedResponse>> {
        let mut rows = self.rows().await;
        let Some(row) = self.find(&rows, id) else {
            return Ok(Written::Gone);
        };
        let is_current = row.record.stamp() == Some(expected)
            || self.breaks(Fault::DeleteIgnoresTheVersion)
            || self.breaks(Fault::DeleteIgnoresTheToken)
                && row.record.version() == Some(expected.version);
        let is_deletable = has_ended(&row.record) || self.breaks(Fault::DeleteTakesLiveOperations);
        if !is_current || !is_deletable {
            return Ok(Written::Lost(row.record));
        }
        rows.operations.remove(&self.name(id));
        if let Some(name) = &row.key {
            if self.breaks(Fault::KeysAreDeleted) {
                rows.keys.remove(name);
            } else if let Some(key) = rows.keys.get_mut(name) {
                key.target = KeyTarget::Deleted(row.record.clone());
                key.until = row.until.filter(|_| !self.breaks(Fault::KeysNeverExpire));
            }
        }
        drop(rows);
        if !self.breaks(Fault::DeleteWakesNoWaiter) {
            self.changed();
        }
        Ok(Written::Done(row.record))
    }
}

impl Table {
    /// Returns the record without its result if `owner` may not read the result.
    fn redacted(&self, record: Stored, owner: Option<&Owner>) -> Stored {
        let (stage, metadata) = (record.operation().status(), record.operation().metadata());
        let is_hidden = record.owner() != owner && !self.breaks(Fault::ResultsIgnoreTheOwner);
        if !is_hidden || !matches!(stage, Status::Ended(Outcome::Succeeded(_))) {
            return record;
        }
        let stage = Outcome::Succeeded(None).into();
        let snapshot = Snapshot::new(stage, metadata.clone());
        let operation = Operation::from_parts(record.operation().id().clone(), snapshot);
        let version = record.version().unwrap();

        Record::restore(operation, version)
            .with_owner(record.owner().cloned())
            .with_holder(record.token(), record.node().cloned())
            .with_attempts(record.attempts(), record.started_by())
    }

    /// Returns the record for a reader that needs a body of at most `max_body` bytes.
    fn shortened(&self, record: Stored, max_body: usize) -> Stored {
        let response = record.operation().response();
        let response = response.filter(|response| response.body_len() > max_body);
        let shortened = match (response, self.fault) {
            (Some(_), Some(Fault::LongResultsAreHidden)) => None,
            (Some(response), Some(Fault::LongBodiesAreCut)) => {
                let body = response.body_bytes().unwrap().slice(..max_body);
                let mut cut = Response::new(BufferedBody::from(body));
                *cut.headers_mut() = response.headers();
                *cut.status_mut() = response.status();
                Some(RecordedResponse::new(cut))
            }
            _ => return record,
        };
        let metadata = record.operation().metadata().clone();
        let snapshot = Snapshot::new(Outcome::Succeeded(shortened).into(), metadata);
        let operation = Operation::from_parts(record.operation().id().clone(), snapshot);
        Record::restore(operation, record.version().unwrap())
            .with_owner(record.owner().cloned())
            .with_holder(record.token(), record.node().cloned())
            .with_attempts(record.attempts(), record.started_by())
    }
}

impl Watch for Table {
    async fn changed(
        &self,
        id: &OperationId,
        since: Version,
        at_most: Duration,
    ) -> Result<Option<Stored>> {
        let look = async || {
            let row = self.find(&*self.rows().await, id).map(|row| row.record);
            let is_same = row.as_ref().is_some_and(|row| row.version() == Some(since));
            (row, is_same)
        };
        let at_most = match self.fault {
            Some(Fault::WaitsTimeOutLate) => at_most + Duration::from_secs(10),
            Some(Fault::WaitsTimeOutEarly) => at_most / 2,
            _ => at_most,
        };
        if self.breaks(Fault::WaitsMissChanges) {
            if look().await.1 {
                sleep(at_most).await;
            }
            return Ok(look().await.0);
        }
        let wait = async {
            if self.breaks(Fault::WaitsSubscribeLate) {
                while look().await.1 {
                    yield_now().await;
                    let mut changes = self.changes.subscribe();
                    changes.changed().await.unwrap();
                }
                return;
            }
            let mut changes = self.changes.subscribe();
            while look().await.1 {
                changes.changed().await.unwrap();
            }
        };
        // The record is read once more at the end, on a change as on a time-out.
        let _ = timeout(at_most, wait).await;
        Ok(look().await.0)
    }
}

impl Row {
    fn is_released(&self) -> bool {
        self.released_by == Some(self.record.token())
    }
}

impl Table {
    /// Reclaims at most `limit` of the matching rows.
    async fn reclaim_rows(
        &self,
        lease: &LeaseConfig,
        limit: usize,
        is_abandoned: impl Fn(&Row) -> bool,
    ) -> Result<Vec<Reclaimed<RecordedResponse>>> {
        let limit = match self.breaks(Fault::ReclaimIgnoresTheLimit) {
            true => usize::MAX,
            false => limit,
        };
        let mut rows = self.rows().await;
        let abandoned: Vec<Row> = rows
            .operations
            .values()
            .filter(|row| is_abandoned(row))
            .take(limit)
            .cloned()
            .collect();
        if self.breaks(Fault::ReclaimIsNotAtomic) {
            drop(rows);
            yield_now().await;
            rows = self.rows().await;
        }
        let mut reclaimed = Vec::new();
        for row in abandoned {
            let node = Some(lease.node.clone());
            let record = match row.record.reclaimed(&lease.node) {
                Step::Next(next) => match self.fault {
                    Some(Fault::ReclaimKeepsTheToken) => next.with_holder(row.record.token(), node),
                    Some(Fault::ReclaimKeepsTheVersion) => {
                        with_version(&next, row.record.version().unwrap())
                    }
                    _ => next,
                },
                // Reached only by the fault that reclaims ended operations.
                _ => with_next_version(&row.record).with_holder(row.record.token().next(), node),
            };
            let until = match self.breaks(Fault::ReclaimKeepsTheTerm) {
                true => row.until,
                false => Some(Instant::now() + lease.term),
            };
            reclaimed.push(Reclaimed::new(
                record.clone(),
                row.request
                    .clone()
                    .filter(|_| !self.breaks(Fault::ReclaimLosesTheRequest)),
            ));
            let id = record.operation().id().clone();
            rows.operations.insert(
                id,
                Row {
                    record,
                    until,
                    ..row
                },
            );
        }
        drop(rows);
        self.changed();
        Ok(reclaimed)
    }
}

impl Lease for Table {
    async fn renew(&self, lease: &LeaseConfig, held: &[LeaseHandle]) -> Result<Vec<LeaseHandle>> {
        let mut lost = Vec::new();
        for held in held {
            let mut rows = self.rows().await;
            let ignores = self.breaks(Fault::RenewIgnoresTheToken);
            let holds = |row: &Row| match ignores {
                true => !has_ended(&row.record),
                false => row.record.is_held_by(held.token),
            };
            let is_renewable =
                |row: &Row| !row.is_released() || self.breaks(Fault::RenewIgnoresTheRelease);
            let row = rows.operations.get_mut(&held.id);
            match row.filter(|row| holds(row) && is_renewable(row)) {
                Some(row) => {
                    row.released_by = None;
                    if !self.breaks(Fault::RenewExtendsNothing) {
                        row.until = Some(Instant::now() + lease.term);
                    }
                    if self.breaks(Fault::RenewIsAChange) {
                        row.record = with_next_version(&row.record);
                    }
                }
                None => lost.push(held.clone()),
            }
        }
        lost.retain(|_| !self.breaks(Fault::RenewReportsNoLoss));
        Ok(lost)
    }

    async fn reclaim(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<RecordedResponse>>> {
        let is_abandoned = |row: &Row| match has_ended(&row.record) {
            true => self.breaks(Fault::ReclaimTakesEndedOperations),
            false => is_over(row.until) || self.breaks(Fault::LeasesAreIgnored),
        };
        self.reclaim_rows(lease, limit, is_abandoned).await
    }

    async fn reclaim_released(
        &self,
        lease: &LeaseConfig,
        limit: usize,
    ) -> Result<Vec<Reclaimed<RecordedResponse>>> {
        let is_released = |row: &Row| !has_ended(&row.record) && row.is_released();
        self.reclaim_rows(lease, limit, is_released).await
    }

    async fn claim(
        &self,
        lease: &LeaseConfig,
        held: &LeaseHandle,
    ) -> Result<Written<RecordedResponse>> {
        let mut rows = self.rows().await;
        let Some(row) = self.find(&rows, &held.id) else {
            return Ok(Written::Gone);
        };
        let record = row.record;
        let step = match self.breaks(Fault::ClaimsIgnoreTheToken) {
            true => record.reclaimed(&lease.node),
            false => record.claimed(held.token, &lease.node),
        };
        let Step::Next(next) = step else {
            return Ok(Written::Lost(record));
        };
        if self.breaks(Fault::ClaimsAreNotAtomic) {
            drop(rows);
            yield_now().await;
            rows = self.rows().await;
        }
        let next = match self.breaks(Fault::ClaimsKeepTheToken) {
            true => next.with_holder(held.token, Some(lease.node.clone())),
            false => next,
        };
        let row = rows.operations.get_mut(&self.name(&held.id));
        let row = row.expect("the row was found above");
        row.record = next.clone();
        if !self.breaks(Fault::ClaimsKeepTheTerm) {
            row.until = Some(Instant::now() + lease.term);
        }
        Ok(Written::Done(next))
    }

    async fn release(&self, held: &[LeaseHandle]) -> Result<()> {
        let mut rows = self.rows().await;
        for held in held {
            if let Some(row) = rows.operations.get_mut(&held.id)
                && (row.record.is_held_by(held.token) || self.breaks(Fault::ReleaseIgnoresTheToken))
                && !self.breaks(Fault::ReleaseDoesNothing)
            {
                row.until = Some(Instant::now());
                row.released_by = Some(row.record.token());
            }
        }
        Ok(())
    }

    async fn revoked(&self, node: &NodeId, at_most: Duration) -> Result<Vec<OperationId>> {
        let take = async || {
            let mut rows = self.rows().await;
            std::mem::take(rows.revocations.entry(node.clone()).or_default())
        };
        if self.breaks(Fault::RevocationsAreLost) {
            sleep(at_most).await;
            return Ok(vec![]);
        }
        let wait = async {
            let mut changes = self.changes.subscribe();
            loop {
                let ids = take().await;
                if !ids.is_empty() {
                    return ids;
                }
                changes.changed().await.unwrap();
            }
        };
        Ok(timeout(at_most, wait).await.unwrap_or_default())
    }
}

impl Table {
    /// Returns the name under which a key is stored.
    fn stored_name(&self, key: &IdempotencyKey) -> Arc<str> {
        match (self.fault, &key.owner) {
            (Some(Fault::OwnersOfKeysAreIgnored), _) => Arc::clone(&key.name),
            (Some(Fault::OwnersAndKeysCollide), Some(owner)) => {
                format!("@{}{}", owner.as_str(), key.name).into()
            }
            (Some(Fault::UnownedAndOwnedKeysCollide), None) => Arc::clone(&key.name),
            _ => key.scoped_name(),
        }
    }

    /// Returns the state of a key for this request; `None` if the key is free.
    fn key_state(
        &self,
        rows: &Rows,
        key: &IdempotencyKey,
    ) -> Option<Reservation<RecordedResponse>> {
        let row = rows.keys.get(&self.stored_name(key))?;
        let never =
            self.breaks(Fault::ReservationsNeverExpire) && matches!(row.target, KeyTarget::Request);
        if is_over(row.until) && !never {
            return None;
        }
        let found = match &row.target {
            KeyTarget::Request => Reservation::InProgress,
            KeyTarget::Operation(id) => Reservation::Operation(self.find(rows, id)?.record),
            KeyTarget::Deleted(record) if self.breaks(Fault::DeletedIsReturned) => {
                Reservation::Operation(record.clone())
            }
            KeyTarget::Deleted(record) => Reservation::Deleted(record.clone()),
            KeyTarget::Answer(_) if self.breaks(Fault::EarlyResponsesAreLost) => return None,
            KeyTarget::Answer(answer) => Reservation::Answered(Arc::clone(answer)),
        };
        let is_same = row.fingerprint == key.fingerprint;
        Some(
            match is_same || self.breaks(Fault::FingerprintsAreIgnored) {
                true => found,
                false => Reservation::Mismatch,
            },
        )
    }

    fn reserved<'a>(
        &self,
        rows: &'a mut Rows,
        key: &IdempotencyKey,
        token: FencingToken,
        ignores: Fault,
    ) -> Option<&'a mut KeyRow> {
        let stored_name = self.stored_name(key);
        let by_name = self.breaks(Fault::ReservationsIgnoreTheOwner);
        let mut found = rows.keys.iter_mut().filter(|(name, row)| match by_name {
            true => name.ends_with(&*key.name) && row.token == token,
            false => **name == stored_name,
        });
        let row = found.next()?.1;
        let is_mine = row.token == token || self.breaks(ignores);
        let is_reserved = matches!(row.target, KeyTarget::Request);
        (is_mine && is_reserved && !is_over(row.until)).then_some(row)
    }
}

impl IdempotencyKeys for Table {
    async fn reserve(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        term: Duration,
    ) -> Result<Reservation<RecordedResponse>> {
        let mut rows = self.rows().await;
        let is_mine = |row: &KeyRow| {
            row.token == token && matches!(row.target, KeyTarget::Request) && !is_over(row.until)
        };
        let stored_name = self.stored_name(key);
        let mine = rows.keys.get_mut(&stored_name).filter(|row| is_mine(row));
        if let Some(row) = mine {
            if !self.breaks(Fault::ReservationsAreNotRenewed) {
                row.until = Some(Instant::now() + term);
            }
            return Ok(Reservation::Reserved(token));
        }
        if let Some(held) = self.key_state(&rows, key) {
            return Ok(held);
        }
        if self.breaks(Fault::ReserveIsNotAtomic) {
            drop(rows);
            yield_now().await;
            rows = self.rows().await;
        }
        let token = match self.breaks(Fault::KeyTokensAreReused) {
            true => FencingToken::NONE,
            false => token,
        };
        let row = KeyRow {
            fingerprint: key.fingerprint,
            token,
            target: KeyTarget::Request,
            until: Some(Instant::now() + term),
        };
        rows.keys.insert(stored_name, row);
        Ok(Reservation::Reserved(token))
    }

    async fn complete(
        &self,
        key: &IdempotencyKey,
        token: FencingToken,
        answer: RecordedResponse,
    ) -> Result<bool> {
        let mut rows = self.rows().await;
        let was_completed = |row: &KeyRow| {
            row.token == token && matches!(row.target, KeyTarget::Answer(_)) && !is_over(row.until)
        };
        if rows
            .keys
            .get(&self.stored_name(key))
            .is_some_and(was_completed)
        {
            return Ok(true);
        }
        let Some(row) = self.reserved(&mut rows, key, token, Fault::CompleteIgnoresTheToken) else {
            return Ok(false);
        };
        row.target = KeyTarget::Answer(Arc::new(answer));
        row.until = Some(Instant::now() + self.ttl);
        Ok(true)
    }

    async fn release_reservation(&self, key: &IdempotencyKey, token: FencingToken) -> Result<bool> {
        let mut rows = self.rows().await;
        let ignores = Fault::ReleaseKeyIgnoresTheToken;
        if self.reserved(&mut rows, key, token, ignores).is_none() {
            return Ok(false);
        }
        rows.keys.remove(&self.stored_name(key));
        Ok(true)
    }
}

impl List for Table {
    async fn list(&self, query: &ListQuery) -> Result<Page<RecordedResponse>> {
        let mut rows = self.rows().await;
        let after = match &query.after {
            None => None,
            Some(cursor) => match self.number(&rows, query, cursor) {
                Some(number) => Some(number),
                None if self.breaks(Fault::CursorsAreUnchecked) => None,
                None if self.breaks(Fault::CursorErrorsAreTransient) => {
                    return Err(StoreError::unavailable("no cursor"));
                }
                None => return Err(StoreError::refused("no cursor")),
            },
        };
        let mut numbered: Vec<(u64, Stored)> = rows
            .operations
            .values()
            .filter(|row| self.is_there(row) || self.breaks(Fault::ListsExpiredOperations))
            .map(|row| (row.number, row.record.clone()))
            .collect();
        numbered.sort_by_key(|(number, _)| *number);
        if !self.breaks(Fault::ListsTheOldestFirst) {
            numbered.reverse();
        }
        numbered.retain(|(_, record)| {
            let is_owners = record.owner() == query.owner.as_ref();
            let state = record.operation().state();
            (is_owners || self.breaks(Fault::ListIgnoresTheOwner))
                && match self.fault {
                    Some(Fault::ListIgnoresTheState) => true,
                    Some(Fault::ListTakesTheFirstState) => {
                        query.states.iter().next() == Some(state) || query.states.is_all()
                    }
                    _ => query.states.contains(state),
                }
        });
        let offset = match after {
            Some(offset) if self.breaks(Fault::ListsByOffset) => offset as usize,
            Some(after) => {
                numbered.retain(|(number, _)| *number < after);
                0
            }
            None => 0,
        };
        let limit = match self.breaks(Fault::ListIgnoresTheLimit) {
            true => usize::MAX,
            false => query.limit,
        };
        let more = numbered.len() > offset.saturating_add(limit);
        let page: Vec<_> = numbered.into_iter().skip(offset).take(limit).collect();
        let next = match self.breaks(Fault::ListsByOffset) {
            true => Some((offset + page.len()) as u64),
            false => page.last().map(|(number, _)| *number),
        };
        let has_next = match self.fault {
            Some(Fault::ListHasNoEnd) => true,
            Some(Fault::ListEndsEarly) => false,
            _ => more,
        };
        let next = next.filter(|_| has_next);
        Ok(Page::new(
            page.into_iter().map(|(_, record)| record).collect(),
            next.map(|number| self.cursor(&mut rows, query, number)),
        ))
    }
}

impl Table {
    fn cursor(&self, rows: &mut Rows, query: &ListQuery, number: u64) -> Cursor {
        let text: Arc<str> = match self.fault {
            Some(Fault::CursorsAreNumbers) => number.to_string().into(),
            // Random, with a sequential prefix.
            Some(Fault::CursorsCount) => format!("{number:08}{}", OperationId::new()).into(),
            _ => FencingToken::random().get().to_string().into(),
        };
        rows.cursors
            .insert(Arc::clone(&text), (query.clone(), number));
        Cursor(text)
    }

    fn number(&self, rows: &Rows, query: &ListQuery, Cursor(text): &Cursor) -> Option<u64> {
        if self.breaks(Fault::CursorsAreNumbers) {
            return text.parse().ok();
        }
        let (issued_for, number) = rows.cursors.get(text)?;
        let is_owners =
            issued_for.owner == query.owner || self.breaks(Fault::CursorsIgnoreTheOwner);
        let is_filtered =
            issued_for.states == query.states || self.breaks(Fault::CursorsIgnoreTheState);
        (is_owners && is_filtered).then_some(*number)
    }
}

impl Purge for Table {
    async fn purge(&self, limit: usize) -> Result<usize> {
        let mut rows = self.rows().await;
        let is_expired = |row: &Row| match self.fault {
            Some(Fault::PurgeTakesLiveOperations) => is_over(row.until) || row.until.is_none(),
            Some(Fault::PurgeTakesUnexpiredOperations) => has_ended(&row.record),
            _ => has_ended(&row.record) && is_over(row.until),
        };
        let limit = match self.breaks(Fault::PurgeIgnoresTheLimit) {
            true => usize::MAX,
            false => limit,
        };
        let expired: HashSet<OperationId> = rows
            .operations
            .values()
            .filter(|row| is_expired(row))
            .map(|row| row.record.operation().id().clone())
            .take(limit)
            .collect();
        rows.operations.retain(|id, _| !expired.contains(id));
        rows.keys.retain(|_, row| !is_over(row.until));
        Ok(expired.len())
    }
}
