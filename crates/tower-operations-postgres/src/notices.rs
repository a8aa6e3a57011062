//! Sends notices of changes to other nodes, and receives theirs.
//!
//! A notification holds a server-wide lock during the commit, so it must not be part of a
//! change. One task sends the gathered notices, in a transaction of its own that does not wait
//! for the disk. Another task listens, on a connection of its own. Both tasks end with the
//! store. If their runtime ends before, the tasks are started again on the next runtime that
//! uses the store. A lost notice costs only time: waiting clients read again at intervals.

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
use tower_operations::{
    engine::{Notice, Notifier},
    store::NodeId,
};

use super::{connections::PostgresConnections, statements::Statements};

/// The number of notices above which the outbox sends *anything may have changed*.
const CAPACITY: usize = 10_000;

pub(super) struct PostgresNotices {
    outbox: Arc<Outbox>,
    channel: Arc<Channel>,
    notifier: Arc<Notifier>,
    /// The name of this handle, by which it ignores its own notices.
    me: Box<str>,
    tasks: Mutex<Option<PostgresTasks>>,
    ended: CancellationToken,
    _until: DropGuard,
}

/// The background tasks, which run until the store or their runtime ends.
struct PostgresTasks {
    listening: JoinHandle<()>,
    sending: JoinHandle<()>,
}

/// The notices to send.
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
    /// There are more notices than the outbox holds.
    Anything,
}

/// The channel for notices.
pub(super) struct Channel {
    pub(super) name: String,
    pub(super) connections: Arc<PostgresConnections>,
    pub(super) statements: Arc<Statements>,
    /// The options of a connection that can listen.
    pub(super) listening: PgConnectOptions,
}

impl PostgresNotices {
    /// Starts to send, and to listen for `notifier`.
    pub(super) fn begin(channel: Channel, notifier: Arc<Notifier>) -> Self {
        let ended = CancellationToken::new();
        let this = Self {
            outbox: Arc::default(),
            channel: Arc::new(channel),
            notifier,
            me: NodeId::new().as_str().into(),
            tasks: Mutex::default(),
            ended: ended.clone(),
            _until: ended.drop_guard(),
        };
        this.ensure_listening();
        this
    }

    /// Starts the tasks that have ended: tasks end with the runtime that they were started
    /// on.
    pub(super) fn ensure_listening(&self) {
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
                    // The task may have taken notices that it did not send.
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
            notifier: Arc::clone(&self.notifier),
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
        self.ensure_listening();
    }
}

impl Outbox {
    fn put(&self, notice: Notice) {
        self.gathered().add(notice);
        self.filled.notify_one();
    }

    /// Notes that a notice was lost.
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
    /// Passes the notices on.
    fn pass_to(&self, notifier: &Notifier) {
        match self {
            Self::Nothing => {}
            Self::Notices(notices) => notices.iter().for_each(|notice| notifier.notify(notice)),
            Self::Anything => notifier.notify_all(),
        }
    }

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
    use tower_operations::operation::OperationId;

    use super::*;

    #[test]
    fn repeated_notices_are_merged_and_too_many_become_anything() {
        let outbox = Outbox::default();
        let changed = || Notice::Changed {
            id: OperationId::new(),
            revoked_from: None,
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
