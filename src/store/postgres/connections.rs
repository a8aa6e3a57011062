//! Connections of the application's pool, handed from one statement to the next.
//!
//! A pool tests a connection whenever one is given back to it, which is a round
//! trip. So a connection goes straight to the statement that waits for one, if
//! any does, and back to the pool if none does.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio::{sync::oneshot, time::timeout};

/// After so many statements a connection goes back to the pool in any case: others
/// of the application may wait there.
const IN_A_ROW: u32 = 64;

/// How long a connection may take to come to rest after its statement was given
/// up. Then it is closed: the server may be unreachable.
const REST: Duration = Duration::from_secs(5);

pub(super) struct Connections {
    pool: PgPool,
    at_most: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// How many are lent.
    lent: usize,
    waiting: VecDeque<oneshot::Sender<Lent>>,
}

/// The right to use a connection, and soon a connection.
pub(super) struct Lent {
    /// `None` once it has been passed on.
    of: Option<Arc<Connections>>,
    connection: Option<PoolConnection<Postgres>>,
    statements: u32,
    /// A statement has begun on it and not ended well.
    is_busy: bool,
}

impl Connections {
    pub(super) fn new(pool: PgPool, at_most: usize) -> Arc<Self> {
        Arc::new(Self {
            pool,
            at_most: at_most.max(1),
            queue: Mutex::default(),
        })
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) async fn lend(self: &Arc<Self>) -> Result<Lent, sqlx::Error> {
        let turn = {
            let mut queue = self.queue();
            if queue.lent < self.at_most {
                queue.lent += 1;
                None
            } else {
                let (sender, receiver) = oneshot::channel();
                queue.waiting.push_back(sender);
                Some(receiver)
            }
        };
        let mut lent = match turn {
            None => Lent {
                of: Some(Arc::clone(self)),
                connection: None,
                statements: 0,
                is_busy: false,
            },
            Some(turn) => timeout(self.pool.options().get_acquire_timeout(), turn)
                .await
                .map_err(|_| sqlx::Error::PoolTimedOut)?
                .map_err(|_| sqlx::Error::WorkerCrashed)?,
        };
        if lent.connection.is_none() {
            lent.connection = Some(self.pool.acquire().await?);
        }
        Ok(lent)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A critical section only moves finished values.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// The connection, for one statement.
    pub(super) fn begin(&mut self) -> Result<&mut PoolConnection<Postgres>, sqlx::Error> {
        self.is_busy = true;
        self.statements += 1;
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// The statement has ended well.
    pub(super) fn done(mut self) {
        self.is_busy = false;
    }

    /// The connection, if it is fit for the next statement.
    fn take_fit(&mut self) -> Option<PoolConnection<Postgres>> {
        let connection = self.connection.take()?;
        if self.is_busy {
            bring_to_rest(connection);
            return None;
        }
        // The pool takes it back.
        (self.statements < IN_A_ROW).then_some(connection)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(of) = self.of.take() else {
            return;
        };
        let mut connection = self.take_fit();
        let statements = match connection {
            Some(_) => self.statements,
            None => 0,
        };
        loop {
            let next = {
                let mut queue = of.queue();
                let next = queue.waiting.pop_front();
                if next.is_none() {
                    queue.lent -= 1;
                }
                next
            };
            let Some(next) = next else {
                return;
            };
            let lent = Self {
                of: Some(Arc::clone(&of)),
                connection: connection.take(),
                statements,
                is_busy: false,
            };
            match next.send(lent) {
                Ok(()) => return,
                // It waits no more.
                Err(mut back) => {
                    back.of = None;
                    connection = back.connection.take();
                }
            }
        }
    }
}

/// Waits until a connection has done what was given up, and gives it back.
fn bring_to_rest(mut connection: PoolConnection<Postgres>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        use sqlx::Connection;
        if !matches!(timeout(REST, connection.ping()).await, Ok(Ok(()))) {
            connection.close_on_drop();
        }
    });
}
