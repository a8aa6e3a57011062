//! Holding the key of a request whose answer may come without an operation.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::refuse::Refusal;
use crate::{
    operation::RecordedResponse,
    run::{Node, until_answered},
    store::{FencingToken, Key, KeyPowers, Owner, Record, Reservation},
};

/// What a key stands for, once that is certain.
pub(super) enum Reserved<R: Send + Sync + 'static> {
    Free(ReservedKey<R>),
    Operation(Arc<Record<RecordedResponse>>),
    Answered(Arc<RecordedResponse>),
}

/// A key that is reserved for this request. Dropped, it is freed.
pub(super) struct ReservedKey<R: Send + Sync + 'static> {
    node: Arc<Node<R>>,
    powers: KeyPowers<R>,
    pub(super) key: Key,
    pub(super) token: FencingToken,
    reserved: bool,
}

/// How long a key stays reserved if its node dies, beyond what its call may
/// take.
const TERM: Duration = Duration::from_secs(10 * 60);

/// How often it is asked whether the first request has been answered.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);

impl<R: Send + Sync + 'static> ReservedKey<R> {
    /// Reserves `key` for as long as its call may take, or finds what it stands
    /// for. The store has `patience` to answer; while another request with the
    /// key is being answered, that is waited for, for `max_wait`.
    pub(super) async fn reserve(
        node: Arc<Node<R>>,
        powers: KeyPowers<R>,
        key: Key,
        owner: Option<Owner>,
        call: Duration,
        patience: Duration,
        max_wait: Duration,
    ) -> Result<Reserved<R>, Refusal> {
        let begun = Instant::now();
        loop {
            let (node, key, owner) = (Arc::clone(&node), key.clone(), owner.clone());
            // In a task of its own: if the client leaves, what comes of it is
            // dropped there, and so freed.
            let term = TERM.saturating_add(call);
            let tried = Self::try_reserve(node, powers, key, owner, term, patience);
            let tried = tokio::spawn(tried.in_current_span()).await;
            match tried.unwrap_or(Err(Refusal::Unavailable))? {
                Some(reserved) => return Ok(reserved),
                None if begun.elapsed() >= max_wait => return Err(Refusal::KeyInUse),
                None => sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Asks the store until it answers; `None` while another request with the
    /// key is being answered.
    async fn try_reserve(
        node: Arc<Node<R>>,
        powers: KeyPowers<R>,
        key: Key,
        owner: Option<Owner>,
        term: Duration,
        patience: Duration,
    ) -> Result<Option<Reserved<R>>, Refusal> {
        // From here on: what an error hides is freed as well.
        let mut mine = Self {
            node,
            powers,
            key,
            token: FencingToken::random(),
            reserved: true,
        };
        let node = Arc::clone(&mine.node);
        let asked = until_answered(node.in_flight.abandoned(), || {
            (powers.reserve)(&node.store, &mine.key, owner.as_ref(), mine.token, term)
        });
        let answer = timeout(patience, asked).await;
        if let Ok(Ok(Reservation::Reserved(_))) = answer {
            return Ok(Some(Reserved::Free(mine)));
        }
        let Ok(Ok(found)) = answer else {
            tracing::error!("a key could not be reserved");
            return Err(Refusal::Unavailable);
        };
        // It is somebody else's.
        mine.reserved = false;
        match found {
            Reservation::Operation(record) => Ok(Some(Reserved::Operation(record))),
            Reservation::Answered(answer) => Ok(Some(Reserved::Answered(answer))),
            Reservation::InProgress => Ok(None),
            Reservation::Taken => Err(Refusal::Taken),
            Reservation::Mismatch | Reservation::Reserved(_) => Err(Refusal::KeyReused),
        }
    }

    /// The key stands for an operation now.
    pub(super) fn bound(&mut self) {
        self.reserved = false;
    }

    /// Keeps an answer for repetitions. If the store does not say that it has
    /// within `patience`, the key stays reserved until it lapses: it is not to
    /// run the call again.
    pub(super) async fn settle(mut self, answer: RecordedResponse, patience: Duration) {
        self.reserved = false;
        let settled = until_answered(self.node.in_flight.abandoned(), || {
            (self.powers.settle)(&self.node.store, &self.key, self.token, answer.clone())
        });
        match timeout(patience, settled).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => tracing::warn!("a key lapsed before its answer could be kept"),
            Ok(Err(_)) | Err(_) => tracing::warn!("an early answer could not be kept"),
        }
    }
}

impl<R: Send + Sync + 'static> Drop for ReservedKey<R> {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.reserved {
            let (node, release) = (Arc::clone(&self.node), self.powers.release);
            let (key, token) = (self.key.clone(), self.token);
            runtime.spawn(async move {
                if let Err(error) = release(&node.store, &key, token).await {
                    tracing::warn!(
                        error = error.chain(),
                        "a key could not be freed; it will lapse"
                    );
                }
            });
        }
    }
}
