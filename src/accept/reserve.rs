//! Holding the key of a request whose answer may come without an operation.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::refuse::Refusal;
use crate::{
    operation::RecordedResponse,
    run::Node,
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
    /// for. While another request with it is being answered, it waits for
    /// `max_wait`.
    pub(super) async fn reserve(
        node: Arc<Node<R>>,
        powers: KeyPowers<R>,
        key: Key,
        owner: Option<Owner>,
        call: Duration,
        max_wait: Duration,
    ) -> Result<Reserved<R>, Refusal> {
        let begun = Instant::now();
        loop {
            let (node, key, owner) = (Arc::clone(&node), key.clone(), owner.clone());
            // In a task of its own: if the client leaves, what comes of it is
            // dropped there, and so freed.
            let tried = Self::try_reserve(node, powers, key, owner, TERM.saturating_add(call));
            let tried = tokio::spawn(tried.in_current_span()).await;
            match tried.unwrap_or(Err(Refusal::Unavailable))? {
                Some(reserved) => return Ok(reserved),
                None if begun.elapsed() >= max_wait => return Err(Refusal::KeyInUse),
                None => sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Asks the store once; `None` while another request with the key is being
    /// answered.
    async fn try_reserve(
        node: Arc<Node<R>>,
        powers: KeyPowers<R>,
        key: Key,
        owner: Option<Owner>,
        term: Duration,
    ) -> Result<Option<Reserved<R>>, Refusal> {
        match (powers.reserve)(&node.store, &key, owner.as_ref(), term).await {
            Ok(Reservation::Reserved(token)) => Ok(Some(Reserved::Free(Self {
                node,
                powers,
                key,
                token,
                reserved: true,
            }))),
            Ok(Reservation::Operation(record)) => Ok(Some(Reserved::Operation(record))),
            Ok(Reservation::Answered(answer)) => Ok(Some(Reserved::Answered(answer))),
            Ok(Reservation::InProgress) => Ok(None),
            Ok(Reservation::Mismatch) => Err(Refusal::KeyReused),
            Ok(Reservation::Taken) => Err(Refusal::Taken),
            Err(error) => {
                tracing::error!(error = error.chain(), "a key could not be reserved");
                Err(Refusal::Unavailable)
            }
        }
    }

    /// The key stands for an operation now.
    pub(super) fn bound(&mut self) {
        self.reserved = false;
    }

    /// Keeps an answer for repetitions.
    pub(super) async fn settle(mut self, answer: RecordedResponse) {
        match (self.powers.settle)(&self.node.store, &self.key, self.token, answer).await {
            Ok(_) => self.reserved = false,
            Err(error) => {
                tracing::warn!(error = error.chain(), "an early answer could not be kept");
            }
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
