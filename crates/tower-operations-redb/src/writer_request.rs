//! The requests to the writer, and the rounds in which it serves them.

use tokio::sync::{mpsc::Receiver, oneshot};
use tower_operations::store::StoreError;

use super::{
    desk::Desk,
    error::{RedbError, RedbFault},
    leases::LeaseRequest,
};

/// The maximum size of a batch, in changes and in bytes.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// A request to the writer.
pub(super) enum WriterRequest {
    Change(Box<dyn Job>),
    Lease(LeaseRequest),
    /// Compacts the file.
    Compact(oneshot::Sender<Result<bool, RedbError>>),
    /// Opens the database again if it has failed.
    Check(oneshot::Sender<()>),
    /// Closes the file.
    Close(CloseReply),
}

pub(super) type CloseReply = oneshot::Sender<Result<(), RedbError>>;

/// The changes that share a transaction.
pub(super) type Batch = Vec<Box<dyn Job>>;

/// A change that can be repeated after it was undone.
pub(super) trait Transaction: Send + 'static {
    type Answer: Send;

    fn apply(&self, desk: &mut Desk<'_>) -> Result<Self::Answer, RedbFault>;

    /// Returns roughly how many bytes the change writes.
    fn weight(&self) -> usize {
        0
    }
}

/// A change and its waiting caller.
pub(super) trait Job: Send {
    fn apply(&mut self, desk: &mut Desk<'_>) -> Result<(), RedbFault>;
    fn weight(&self) -> usize;
    /// Reports that the change is durable.
    fn done(self: Box<Self>);
    fn failed(self: Box<Self>, error: StoreError);
}

struct WaitingJob<C: Transaction> {
    change: C,
    answer: Option<C::Answer>,
    waiting: oneshot::Sender<Result<C::Answer, StoreError>>,
}

impl WriterRequest {
    pub(super) fn change<C: Transaction>(
        change: C,
        waiting: oneshot::Sender<Result<C::Answer, StoreError>>,
    ) -> Self {
        Self::Change(Box::new(WaitingJob {
            change,
            answer: None,
            waiting,
        }))
    }
}

impl<C: Transaction> Job for WaitingJob<C> {
    fn apply(&mut self, desk: &mut Desk<'_>) -> Result<(), RedbFault> {
        self.answer = Some(self.change.apply(desk)?);
        Ok(())
    }

    fn weight(&self) -> usize {
        self.change.weight()
    }

    fn done(self: Box<Self>) {
        // The caller may have stopped waiting.
        if let Some(answer) = self.answer {
            let _ = self.waiting.send(Ok(answer));
        }
    }

    fn failed(self: Box<Self>, error: StoreError) {
        let _ = self.waiting.send(Err(error));
    }
}

/// The requests that share a commit.
#[derive(Default)]
pub(super) struct Round {
    pub(super) batch: Batch,
    pub(super) leases: Vec<LeaseRequest>,
    pub(super) checks: Vec<oneshot::Sender<()>>,
    pub(super) compact: Vec<oneshot::Sender<Result<bool, RedbError>>>,
    pub(super) close: Option<CloseReply>,
}

impl Round {
    /// Returns the requests that are there, after the first one.
    pub(super) fn gather(first: WriterRequest, asked: &mut Receiver<WriterRequest>) -> Self {
        let mut round = Self::default();
        let (mut next, mut weight) = (Some(first), 0);
        while let Some(ask) = next {
            match ask {
                WriterRequest::Change(job) => {
                    weight += job.weight();
                    round.batch.push(job);
                }
                WriterRequest::Lease(ask) => round.leases.push(ask),
                WriterRequest::Compact(waiting) => round.compact.push(waiting),
                WriterRequest::Check(waiting) => round.checks.push(waiting),
                WriterRequest::Close(waiting) => {
                    round.close = Some(waiting);
                    break;
                }
            }
            let has_room = round.batch.len() < BATCH && weight < BATCH_BYTES;
            next = has_room.then(|| asked.try_recv().ok()).flatten();
        }
        round
    }
}
