//! The task that receives notices from other nodes.

use std::{sync::Arc, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
    query,
};
use tokio::time::{sleep, timeout};
use tower_operations::engine::Notifier;

use super::payload;

/// The time-out of connecting, and of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time of silence after which the connection is checked.
const SILENCE: Duration = Duration::from_secs(30);

/// The first pause before connecting again, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Listener {
    pub(super) channel: String,
    pub(super) options: PgConnectOptions,
    pub(super) me: String,
    pub(super) notifier: Arc<Notifier>,
}

impl Listener {
    pub(super) async fn run(self) {
        let mut pause = PAUSE;
        loop {
            // Each connection has its own pool, so that a hanging connection blocks no
            // other.
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(PATIENCE)
                .max_lifetime(None)
                .idle_timeout(None)
                .connect_lazy_with(self.options.clone());
            let error = match self.connect(&pool).await {
                Ok(listener) => {
                    pause = PAUSE;
                    // Notices from before this connection are lost.
                    self.notifier.notify_all();
                    self.hear(listener).await
                }
                Err(error) => error,
            };
            tracing::debug!(%error, "listening connection failed, retrying");
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn connect(&self, pool: &PgPool) -> Result<PgListener, sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.eager_reconnect(false);
        in_time(listener.listen(&self.channel)).await?;
        Ok(listener)
    }

    /// Receives until the connection is lost.
    async fn hear(&self, mut listener: PgListener) -> sqlx::Error {
        loop {
            match timeout(SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    payload::read(notification.payload(), &self.me).pass_to(&self.notifier);
                }
                Ok(Ok(None)) => return sqlx::Error::WorkerCrashed,
                Ok(Err(error)) => return error,
                Err(_) => {
                    let ask = query("SELECT 1").execute(&mut listener);
                    if let Err(error) = in_time(ask).await {
                        return error;
                    }
                }
            }
        }
    }
}

async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}
