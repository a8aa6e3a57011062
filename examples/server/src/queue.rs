//! The queue of a command line: a queue of apalis in PostgreSQL or Redis.

use std::{str::FromStr, time::Duration};

use apalis_postgres::PostgresStorage;
use apalis_redis::RedisStorage;
use sqlx::postgres::PgPoolOptions;
use tower::BoxError;
use tower_operations::{Dispatch, QueuedRequest};
use tower_operations_apalis::{ApalisDispatch, ApalisTask};

use crate::stores::StoreKind;

/// The name of the queue in the engine.
const QUEUE: &str = "reports";
/// A worker that was silent for this many intervals has died. The store has a lease for
/// that, so this only decides when the engine gives up waiting.
const HEARTBEAT: Duration = Duration::from_secs(1);
const MISSED_HEARTBEATS: usize = 5;
/// One task at a time: a worker without free places would hold back further tasks, and would
/// send no heartbeats meanwhile.
const BATCH: usize = 1;

#[derive(Clone)]
pub enum QueueUrl {
    Postgres(String),
    Redis(String),
}

impl FromStr for QueueUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("postgres" | "postgresql", _) => Ok(Self::Postgres(text.into())),
            ("redis", _) => Ok(Self::Redis(text.into())),
            _ => Err("expected `postgres://…` or `redis://…`".into()),
        }
    }
}

/// A connected queue.
#[derive(Clone)]
pub enum Queue {
    Postgres(PostgresStorage<ApalisTask>),
    Redis(RedisStorage<ApalisTask>),
}

impl QueueUrl {
    /// Returns the store at the same place.
    pub fn store(&self) -> StoreKind {
        match self {
            Self::Postgres(url) => StoreKind::Postgres(url.clone()),
            Self::Redis(url) => StoreKind::Redis(url.clone()),
        }
    }

    /// Connects to the queue, and sets it up if it does not exist yet.
    pub async fn connect(&self) -> Result<Queue, BoxError> {
        Ok(match self {
            Self::Postgres(url) => {
                let pool = PgPoolOptions::new().max_connections(4).connect(url).await?;
                PostgresStorage::setup(&pool).await?;
                let config = apalis_postgres::Config::default()
                    .queue(QUEUE)
                    .heartbeat_interval(HEARTBEAT)
                    .missed_heartbeats(MISSED_HEARTBEATS)
                    .batch_size(BATCH);
                Queue::Postgres(PostgresStorage::new(&pool).with_config(config))
            }
            Self::Redis(url) => {
                let connection = apalis_redis::connect(url.as_str()).await?;
                let config = apalis_redis::Config::default()
                    .queue(QUEUE)
                    .heartbeat_interval(HEARTBEAT)
                    .missed_heartbeats(MISSED_HEARTBEATS)
                    .batch_size(BATCH)
                    .emit_events(false);
                Queue::Redis(RedisStorage::new(connection).with_config(config))
            }
        })
    }
}

/// The dispatch of reports to either queue.
pub enum ReportDispatch {
    Postgres(ApalisDispatch<PostgresStorage<ApalisTask>>),
    Redis(ApalisDispatch<RedisStorage<ApalisTask>>),
}

impl Dispatch for ReportDispatch {
    async fn dispatch(&self, request: QueuedRequest) -> Result<(), BoxError> {
        match self {
            Self::Postgres(queue) => queue.dispatch(request).await,
            Self::Redis(queue) => queue.dispatch(request).await,
        }
    }

    fn claimed_within(&self) -> Duration {
        match self {
            Self::Postgres(queue) => queue.claimed_within(),
            Self::Redis(queue) => queue.claimed_within(),
        }
    }
}

impl Queue {
    pub fn dispatch(self, claimed_within: Duration) -> ReportDispatch {
        match self {
            Self::Postgres(queue) => {
                ReportDispatch::Postgres(ApalisDispatch::new(queue).claimed_within(claimed_within))
            }
            Self::Redis(queue) => {
                ReportDispatch::Redis(ApalisDispatch::new(queue).claimed_within(claimed_within))
            }
        }
    }
}
