//! The task that tells the others.

use std::{sync::Arc, time::Duration};

use sqlx::query;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Channel, Gathered, Outbox, payload};

/// What comes in so short a time is told together.
const GATHERING: Duration = Duration::from_millis(5);

/// How long telling may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it waits after it could not tell.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(
    channel: Arc<Channel>,
    me: String,
    outbox: Arc<Outbox>,
    ended: CancellationToken,
) {
    loop {
        let filled = ended.run_until_cancelled(outbox.filled.notified()).await;
        // With the end goes what is left.
        let gathered = outbox.take();
        if gathered != Gathered::Nothing {
            let payloads = payload::write(gathered, &me);
            if let Err(error) = send(&channel, &payloads).await {
                tracing::debug!(%error, "other nodes could not be told of a change");
                outbox.put_anything();
                ended.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
        if filled.is_none() {
            return;
        }
        ended.run_until_cancelled(sleep(GATHERING)).await;
    }
}

async fn send(channel: &Channel, payloads: &[String]) -> Result<(), sqlx::Error> {
    let notify = async {
        let mut lent = channel.connections.lend().await?;
        let notify = query(&channel.statements.notify)
            .bind(&channel.name)
            .bind(payloads);
        let sent = notify.execute(&mut **lent.begin()?).await?;
        lent.done();
        Ok(sent)
    };
    match timeout(PATIENCE, notify).await {
        Ok(sent) => sent.map(drop),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}
