//! Telling the other nodes of changes, and hearing of theirs.
//!
//! Notifying holds a lock of the whole server over the commit, so it must not be
//! part of a change. A task sends what has gathered in the meantime, in a
//! transaction of its own that does not wait for the disk. Another one listens, on
//! a connection of its own. Both end with the store; if the runtime they are on goes before,
//! they are begun again on the next that uses it. A notice that gets lost costs
//! time, no more: whoever waits reads again now and then.

mod listening;
mod payload;
mod sending;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::postgres::PgConnectOptions;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{connections::PostgresConnections, statements::Statements};
use crate::store::durable::{Hub, Notice};

/// More than this is told as *anything may have changed*.
const CAPACITY: usize = 10_000;

pub(super) struct PostgresNotices {
    outbox: Arc<Outbox>,
    channel: Arc<Channel>,
    hub: Arc<Hub>,
    /// Says whose notices are one's own.
    me: Box<str>,
    tasks: Mutex<Option<PostgresTasks>>,
    ended: CancellationToken,
    _until: DropGuard,
}

/// What goes on in the background, until the store ends or its runtime does.
struct PostgresTasks {
    listening: JoinHandle<()>,
    sending: JoinHandle<()>,
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
    Notices(HashSet<Notice>),
    /// More than there is room for.
    Anything,
}

/// Where notices go through.
pub(super) struct Channel {
    pub(super) name: String,
    pub(super) connections: Arc<PostgresConnections>,
    pub(super) statements: Arc<Statements>,
    /// How a connection is made that can listen.
    pub(super) listening: PgConnectOptions,
}

impl PostgresNotices {
    /// Begins to listen for `hub`.
    pub(super) fn begin(channel: Channel, hub: Arc<Hub>) -> Self {
        let ended = CancellationToken::new();
        let this = Self {
            outbox: Arc::default(),
            channel: Arc::new(channel),
            hub,
            me: uuid::Uuid::new_v4().simple().to_string().into(),
            tasks: Mutex::default(),
            ended: ended.clone(),
            _until: ended.drop_guard(),
        };
        this.attend();
        this
    }

    /// Sees to it that both tasks are there: they go with the runtime they were begun on.
    pub(super) fn attend(&self) {
        // A critical section only moves finished values.
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *tasks {
            None => {
                *tasks = Some(PostgresTasks {
                    listening: self.listen(),
                    sending: self.send(),
                });
            }
            Some(PostgresTasks { listening, sending }) => {
                if listening.is_finished() {
                    *listening = self.listen();
                }
                if sending.is_finished() {
                    // It may have taken what it did not tell.
                    self.outbox.put_anything();
                    *sending = self.send();
                }
            }
        }
    }

    fn listen(&self) -> JoinHandle<()> {
        let listener = listening::Listener {
            channel: self.channel.name.clone(),
            options: self.channel.listening.clone(),
            me: self.me.to_string(),
            hub: Arc::clone(&self.hub),
        };
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let _: Option<()> = ended.run_until_cancelled(listener.run()).await;
        })
    }

    fn send(&self) -> JoinHandle<()> {
        tokio::spawn(sending::run(
            Arc::clone(&self.channel),
            self.me.to_string(),
            Arc::clone(&self.outbox),
            self.ended.clone(),
        ))
    }

    pub(super) fn tell(&self, notice: Notice) {
        self.outbox.put(notice);
        self.attend();
    }
}

impl Outbox {
    fn put(&self, notice: Notice) {
        self.gathered().add(notice);
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
    fn add(&mut self, notice: Notice) {
        match self {
            Self::Nothing => *self = Self::Notices(HashSet::from([notice])),
            Self::Notices(notices) if notices.len() < CAPACITY => {
                notices.insert(notice);
            }
            Self::Notices(_) => *self = Self::Anything,
            Self::Anything => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::OperationId;

    #[test]
    fn what_is_told_twice_is_told_once_and_too_much_is_anything() {
        let outbox = Outbox::default();
        let changed = || Notice::Changed {
            id: OperationId::new(),
            recalled: None,
        };
        let notices = HashSet::from([changed(), Notice::Released]);
        for notice in notices.iter().chain(&notices) {
            outbox.put(notice.clone());
        }
        assert_eq!(outbox.take(), Gathered::Notices(notices));
        assert_eq!(outbox.take(), Gathered::Nothing);
        for _ in 0..=CAPACITY {
            outbox.put(changed());
        }
        assert_eq!(outbox.take(), Gathered::Anything);
    }
}
