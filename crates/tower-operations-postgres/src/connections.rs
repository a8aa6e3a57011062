//! Connections of the application's pool, passed from one statement to the next.
//!
//! A pool tests a connection on every return and every acquisition, and each test is a round
//! trip. So a free connection goes straight to the next waiting statement. If no statement
//! waits, the connection is kept for a moment, and returns to the pool only if no statement has
//! come.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{sleep, timeout},
};

/// The number of statements after which a connection returns to the pool in any case: other
/// parts of the application may wait for it.
const IN_A_ROW: u32 = 64;

/// The time after which an unneeded connection returns to the pool.
const IDLE: Duration = Duration::from_millis(10);

/// The time that a connection may take to finish an abandoned statement. After this time the
/// connection is closed, since the server may be unreachable.
const REST: Duration = Duration::from_secs(5);

pub(super) struct PostgresConnections {
    pool: PgPool,
    at_most: usize,
    queue: Mutex<ConnectionQueue>,
    /// The runtime on which connections return to their pool if there is no current runtime. A
    /// connection returns in a task.
    runtime: Handle,
}

#[derive(Default)]
struct ConnectionQueue {
    /// The number of connections in use.
    in_use: usize,
    /// The number of statements that wait for the pool. Free connections go to the pool
    /// meanwhile.
    at_the_pool: usize,
    waiting: VecDeque<oneshot::Sender<ConnectionPermit>>,
    /// Free connections, the latest last. Together with the connections in use they never
    /// exceed the limit.
    idle: Vec<IdleConnection>,
    /// The lowest number of free connections since the last look; `None` if no reaper runs.
    fewest: Option<usize>,
}

/// A connection that is ready for the next statement.
struct IdleConnection {
    connection: PoolConnection<Postgres>,
    /// The number of statements that the connection has served in a row.
    statements: u32,
}

/// The right to use a connection, and the connection once there is one.
pub(super) struct ConnectionPermit {
    /// The connections that the permit belongs to; `None` once the permit has been passed on.
    of: Option<Arc<PostgresConnections>>,
    fit: Option<IdleConnection>,
    /// Whether a statement has begun on the connection and not ended well.
    is_busy: bool,
}

impl PostgresConnections {
    /// # Panics
    /// Panics outside of a runtime.
    pub(super) fn new(pool: PgPool, at_most: usize) -> Arc<Self> {
        Arc::new(Self {
            pool,
            at_most: at_most.max(1),
            queue: Mutex::default(),
            runtime: Handle::current(),
        })
    }

    /// Returns the current runtime if there is one, since the runtime of the first use may have
    /// ended.
    fn runtime(&self) -> Handle {
        Handle::try_current().unwrap_or_else(|_| self.runtime.clone())
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) async fn permit(self: &Arc<Self>) -> Result<ConnectionPermit, sqlx::Error> {
        if self.pool.is_closed() {
            return Err(sqlx::Error::PoolClosed);
        }
        let turn = {
            let mut queue = self.queue();
            if queue.in_use < self.at_most {
                queue.in_use += 1;
                Ok(queue.take_idle())
            } else {
                let (sender, receiver) = oneshot::channel();
                queue.waiting.push_back(sender);
                Err(receiver)
            }
        };
        let mut permit = match turn {
            Ok(fit) => ConnectionPermit {
                of: Some(Arc::clone(self)),
                fit,
                is_busy: false,
            },
            Err(turn) => timeout(self.pool.options().get_acquire_timeout(), turn)
                .await
                .map_err(|_| sqlx::Error::PoolTimedOut)?
                .map_err(|_| sqlx::Error::WorkerCrashed)?,
        };
        if permit.fit.is_none() {
            permit.fit = Some(IdleConnection {
                connection: self.acquire().await?,
                statements: 0,
            });
        }
        Ok(permit)
    }

    async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        struct PoolWait<'a>(&'a PostgresConnections);

        impl Drop for PoolWait<'_> {
            fn drop(&mut self) {
                self.0.queue().at_the_pool -= 1;
            }
        }

        self.queue().at_the_pool += 1;
        let _waiting = PoolWait(self);
        self.pool.acquire().await
    }

    /// Takes back a permit that no statement waits for: keeps its connection for a moment,
    /// or returns the connection to the pool.
    fn take_back(
        self: &Arc<Self>,
        mut queue: MutexGuard<'_, ConnectionQueue>,
        fit: Option<IdleConnection>,
    ) {
        queue.in_use -= 1;
        let keeps = queue.at_the_pool == 0 && !self.pool.is_closed();
        let unkept = match fit {
            Some(fit) if keeps => {
                queue.idle.push(fit);
                None
            }
            unkept => unkept,
        };
        let looks_on = queue.idle.is_empty() || queue.fewest.is_some();
        if !looks_on {
            // The connections that are free now are too recent to count as unneeded.
            queue.fewest = Some(0);
        }
        drop(queue);
        let runtime = self.runtime();
        let _entered = runtime.enter();
        drop(unkept);
        if !looks_on {
            runtime.spawn(IdleReaper(Arc::downgrade(self)).run());
        }
    }

    fn queue(&self) -> MutexGuard<'_, ConnectionQueue> {
        // A critical section only moves finished values.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionQueue {
    fn take_idle(&mut self) -> Option<IdleConnection> {
        let fit = self.idle.pop();
        self.fewest = self.fewest.map(|fewest| fewest.min(self.idle.len()));
        fit
    }

    /// Takes the connections that were not needed since the last look.
    fn take_unneeded(&mut self) -> Vec<IdleConnection> {
        let unneeded = self.fewest.unwrap_or_default();
        let unneeded = self.idle.drain(..unneeded).collect();
        self.fewest = (!self.idle.is_empty()).then_some(self.idle.len());
        unneeded
    }
}

/// Returns unneeded connections to the pool, as long as there are free connections.
struct IdleReaper(Weak<PostgresConnections>);

impl IdleReaper {
    async fn run(mut self) {
        loop {
            sleep(IDLE).await;
            let Some(connections) = self.0.upgrade() else {
                return;
            };
            let (unneeded, looks_on) = {
                let mut queue = connections.queue();
                (queue.take_unneeded(), queue.fewest.is_some())
            };
            drop(unneeded);
            if !looks_on {
                self.0 = Weak::new();
                return;
            }
        }
    }
}

impl Drop for IdleReaper {
    /// Returns the free connections to the pool, so that none is kept forever if the runtime of
    /// the reaper ends.
    fn drop(&mut self) {
        let Some(connections) = self.0.upgrade() else {
            return;
        };
        let kept = {
            let mut queue = connections.queue();
            match queue.fewest.take() {
                Some(_) => std::mem::take(&mut queue.idle),
                None => return,
            }
        };
        let runtime = connections.runtime();
        let _entered = runtime.enter();
        drop(kept);
    }
}

impl Drop for PostgresConnections {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut self.queue().idle);
        let runtime = self.runtime();
        let _entered = runtime.enter();
        drop(idle);
    }
}

impl ConnectionPermit {
    /// Returns the connection for one statement.
    pub(super) fn begin(&mut self) -> Result<&mut PoolConnection<Postgres>, sqlx::Error> {
        self.is_busy = true;
        let fit = self.fit.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        fit.statements += 1;
        Ok(&mut fit.connection)
    }

    /// Marks the statement as ended well.
    pub(super) fn done(mut self) {
        self.is_busy = false;
    }

    /// Takes the connection, if it is ready for the next statement.
    fn take_fit(&mut self, runtime: &Handle) -> Option<IdleConnection> {
        let fit = self.fit.take()?;
        let _entered = runtime.enter();
        if self.is_busy {
            runtime.spawn(bring_to_rest(fit.connection));
            return None;
        }
        // Otherwise the pool takes the connection back.
        (fit.statements < IN_A_ROW).then_some(fit)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some(of) = self.of.take() else {
            return;
        };
        let mut fit = self.take_fit(&of.runtime());
        loop {
            let mut queue = of.queue();
            let Some(next) = queue.waiting.pop_front() else {
                of.take_back(queue, fit);
                return;
            };
            drop(queue);
            let permit = Self {
                of: Some(Arc::clone(&of)),
                fit: fit.take(),
                is_busy: false,
            };
            match next.send(permit) {
                Ok(()) => return,
                // The receiver is gone.
                Err(mut back) => {
                    back.of = None;
                    fit = back.fit.take();
                }
            }
        }
    }
}

/// Waits until a connection has finished an abandoned statement, and returns it to the
/// pool.
async fn bring_to_rest(mut connection: PoolConnection<Postgres>) {
    use sqlx::Connection;
    if !matches!(timeout(REST, connection.ping()).await, Ok(Ok(()))) {
        connection.close_on_drop();
    }
}
