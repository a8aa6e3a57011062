//! The task that sends notices to other nodes.

use std::{sync::Arc, time::Duration};

use sqlx::query;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Channel, Gathered, Outbox, payload};

/// The time during which notices gather into one transaction.
const GATHERING: Duration = Duration::from_millis(5);

/// The time-out of sending.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause after a failure to send.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(
    channel: Arc<Channel>,
    me: String,
    outbox: Arc<Outbox>,
    ended: CancellationToken,
) {
    loop {
        let filled = ended.run_until_cancelled(outbox.filled.notified()).await;
        // At the end, the remaining notices are sent.
        let gathered = outbox.take();
        if gathered != Gathered::Nothing {
            let payloads = payload::write(gathered, &me);
            if let Err(error) = send(&channel, &payloads).await {
                tracing::debug!(%error, "notices not sent");
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
        let mut permit = channel.connections.permit().await?;
        let notify = query(&channel.statements.notify)
            .bind(&channel.name)
            .bind(payloads);
        let sent = notify.execute(&mut **permit.begin()?).await?;
        permit.done();
        Ok(sent)
    };
    match timeout(PATIENCE, notify).await {
        Ok(sent) => sent.map(drop),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}
