//! Telling the other nodes of changes, and hearing of theirs.
//!
//! Notifying holds a lock of the whole server over the commit, so it must not be
//! part of a change. A task sends what has gathered in the meantime, in a
//! transaction of its own that does not wait for the disk. Another one listens, on
//! a connection of its own. Both end with the store. A notice that gets lost costs
//! time, no more: whoever waits reads again now and then.

mod listening;
mod payload;
mod sending;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{connections::Connections, statements::Statements};
use crate::{
    operation::OperationId,
    store::{
        NodeId,
        durable::{Hub, Notice},
    },
};

/// More than this is told as *anything may have changed*.
const CAPACITY: usize = 10_000;

pub(super) struct Notices {
    outbox: Arc<Outbox>,
    _until: DropGuard,
}

/// What is to be told.
#[derive(Default)]
struct Outbox {
    gathered: Mutex<Gathered>,
    filled: Notify,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Gathered {
    #[default]
    Nothing,
    Changes(HashSet<Change>),
    /// More than there is room for.
    Anything,
}

/// An operation that has changed, and who has lost it by that.
type Change = (OperationId, Option<NodeId>);

/// Where notices go through.
pub(super) struct Channel {
    pub(super) name: String,
    pub(super) connections: Arc<Connections>,
    pub(super) statements: Arc<Statements>,
    /// How a connection is made that can listen.
    pub(super) listening: PgConnectOptions,
}

impl Notices {
    /// Begins to listen for `hub`.
    pub(super) fn begin(channel: Channel, hub: Arc<Hub>) -> Self {
        let outbox = Arc::<Outbox>::default();
        let ended = CancellationToken::new();
        // Says whose notices are one's own.
        let me = uuid::Uuid::new_v4().simple().to_string();
        let listener = listening::Listener {
            channel: channel.name.clone(),
            options: channel.listening.clone(),
            me: me.clone(),
            hub,
        };
        tokio::spawn(ended.clone().run_until_cancelled_owned(listener.run()));
        tokio::spawn(sending::run(
            channel,
            me,
            Arc::clone(&outbox),
            ended.clone(),
        ));
        Self {
            outbox,
            _until: ended.drop_guard(),
        }
    }

    pub(super) fn tell(&self, notice: Notice) {
        self.outbox.put((notice.id, notice.recalled));
    }
}

impl Outbox {
    fn put(&self, change: Change) {
        self.gathered().add(change);
        self.filled.notify_one();
    }

    /// Something was not told that should have been.
    fn put_anything(&self) {
        *self.gathered() = Gathered::Anything;
        self.filled.notify_one();
    }

    fn take(&self) -> Gathered {
        std::mem::take(&mut *self.gathered())
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        // A critical section only moves finished values.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    fn add(&mut self, change: Change) {
        match self {
            Self::Nothing => *self = Self::Changes(HashSet::from([change])),
            Self::Changes(changes) if changes.len() < CAPACITY => {
                changes.insert(change);
            }
            Self::Changes(_) => *self = Self::Anything,
            Self::Anything => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_twice_is_told_once_and_too_much_is_anything() {
        let outbox = Outbox::default();
        let id = OperationId::new();
        outbox.put((id.clone(), None));
        outbox.put((id.clone(), None));
        assert_eq!(
            outbox.take(),
            Gathered::Changes(HashSet::from([(id, None)]))
        );
        assert_eq!(outbox.take(), Gathered::Nothing);
        for _ in 0..=CAPACITY {
            outbox.put((OperationId::new(), None));
        }
        assert_eq!(outbox.take(), Gathered::Anything);
    }
}
