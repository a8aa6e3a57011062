//! Sends notices of changes to other nodes, and receives theirs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, FromRedisValue, ProtocolVersion, PushInfo, PushKind,
    aio::MultiplexedConnection, cmd,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower_operations::{
    engine::{Notice, Notifier},
    operation::OperationId,
    store::NodeId,
};

use super::{
    RedisError,
    connection::Connection,
    error::{AnswerError, RedisFault},
};

/// The maximum number of notices in the queue. Further notices are lost, which costs
/// latency.
const WAITING: usize = 4096;

/// The maximum number of notices in one message.
const TOGETHER: usize = 1024;

/// The time during which notices gather after a message. Each message costs the server time.
const GATHERING: Duration = Duration::from_millis(2);

/// The interval at which the subscription is checked.
const ALIVE: Duration = Duration::from_secs(5);

/// The longest pause before subscribing again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A message to the other nodes.
#[derive(Serialize, Deserialize)]
struct Message {
    /// The handle that sends the message, so that it can ignore its own messages.
    from: Box<str>,
    changed: Vec<NoticeSent>,
    /// Whether leases were released.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    released: bool,
}

#[derive(Serialize, Deserialize)]
struct NoticeSent {
    id: OperationId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recalled: Option<Box<str>>,
}

/// The tasks that send and receive notices, as long as the store has handles. The tasks end
/// with the runtime that they were started on, and are started again on the next runtime
/// that uses the store.
pub(super) struct RedisNotices {
    connection: Arc<Connection>,
    subscriber: Subscriber,
    tasks: Mutex<RedisTasks>,
}

struct RedisTasks {
    /// The queue of the sending task; closed if there is no task.
    sender: mpsc::Sender<Notice>,
    hearing: JoinHandle<()>,
}

impl RedisNotices {
    /// Subscribes, and starts both tasks.
    pub(super) async fn start(
        connection: &Arc<Connection>,
        channel: String,
        notifier: &Arc<Notifier>,
    ) -> Result<Self, RedisError> {
        let from: Box<str> = NodeId::new().as_str().into();
        let subscriber = Subscriber {
            client: connection.client().clone(),
            patience: connection.patience(),
            channel,
            from,
            notifier: Arc::downgrade(notifier),
        };
        let first = subscriber.subscribe().await?;
        let tasks = RedisTasks {
            sender: begin_telling(connection, &subscriber),
            hearing: tokio::spawn(subscriber.clone().hear(first)),
        };
        Ok(Self {
            connection: Arc::clone(connection),
            subscriber,
            tasks: Mutex::new(tasks),
        })
    }

    /// Starts the receiving task again if it has ended.
    pub(super) fn ensure_listening(&self) {
        let mut tasks = self.tasks();
        if tasks.hearing.is_finished() {
            tasks.hearing = tokio::spawn(self.subscriber.clone().hear_again());
        }
    }

    pub(super) fn tell(&self, notice: Notice) {
        let mut tasks = self.tasks();
        if tasks.sender.is_closed() {
            tasks.sender = begin_telling(&self.connection, &self.subscriber);
        }
        // A full queue loses the notice: waiting clients read again anyway.
        let _ = tasks.sender.try_send(notice);
    }

    fn tasks(&self) -> MutexGuard<'_, RedisTasks> {
        // A critical section only moves finished values.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisNotices {
    fn drop(&mut self) {
        self.tasks().hearing.abort();
    }
}

fn begin_telling(connection: &Arc<Connection>, of: &Subscriber) -> mpsc::Sender<Notice> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (channel, from) = (of.channel.clone(), of.from.clone());
    tokio::spawn(tell(Arc::clone(connection), channel, from, receiver));
    sender
}

/// Sends notices, all that have gathered in one message; ends with the last handle.
async fn tell(
    connection: Arc<Connection>,
    channel: String,
    from: Box<str>,
    mut notices: mpsc::Receiver<Notice>,
) {
    let mut together = Vec::with_capacity(TOGETHER);
    while notices.recv_many(&mut together, TOGETHER).await > 0 {
        let is_full = together.len() == TOGETHER;
        let mut message = Message {
            from: from.clone(),
            changed: Vec::new(),
            released: false,
        };
        for notice in together.drain(..) {
            match notice {
                Notice::Changed { id, revoked_from } => message.changed.push(NoticeSent {
                    id,
                    recalled: revoked_from.map(|node| node.as_str().into()),
                }),
                Notice::Released => message.released = true,
            }
        }
        let has_released = message.released;
        let Ok(message) = serde_json::to_vec(&message) else {
            continue; // cannot fail
        };
        let mut publish = cmd("PUBLISH");
        publish.arg(&channel).arg(message);
        if let Err(failure) = connection.send(&publish).await {
            let error = failure.into_store_error().report();
            tracing::debug!(error, "notices not sent");
        }
        // A released operation waits for another node, and its node may be about to end.
        if !is_full && !has_released {
            sleep(GATHERING).await;
        }
    }
}

#[derive(Clone)]
struct Subscriber {
    client: Client,
    patience: Duration,
    channel: String,
    from: Box<str>,
    notifier: Weak<Notifier>,
}

/// A connection that receives messages.
struct Subscription {
    connection: MultiplexedConnection,
    messages: mpsc::UnboundedReceiver<PushInfo>,
}

impl Subscriber {
    async fn subscribe(&self) -> Result<Subscription, AnswerError> {
        let (sender, messages) = mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(Some(self.patience))
            .set_push_sender(sender);
        let info = self.client.get_connection_info().clone();
        let settings = info.redis_settings().clone();
        // Messages come between the answers.
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        let subscribe = async {
            let client = Client::open(info.set_redis_settings(settings))?;
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            connection.subscribe(&self.channel).await?;
            Ok(connection)
        };
        match timeout(self.patience, subscribe).await {
            Ok(Ok(connection)) => Ok(Subscription {
                connection,
                messages,
            }),
            Ok(Err(error)) => Err(AnswerError::Server(error)),
            Err(_) => Err(AnswerError::Own(RedisFault::Late(self.patience))),
        }
    }

    /// Subscribes, and receives forever.
    async fn hear_again(self) {
        let subscription = self.subscribe_again().await;
        if let Some(notifier) = self.notifier.upgrade() {
            notifier.notify_all();
        }
        self.hear(subscription).await;
    }

    /// Receives forever, and subscribes again when the connection breaks.
    async fn hear(self, mut subscription: Subscription) {
        loop {
            self.hear_from(&mut subscription).await;
            tracing::debug!("subscription lost, subscribing again");
            subscription = self.subscribe_again().await;
            if let Some(notifier) = self.notifier.upgrade() {
                notifier.notify_all();
            }
        }
    }

    async fn subscribe_again(&self) -> Subscription {
        let mut pause = Duration::from_millis(10);
        loop {
            match self.subscribe().await {
                Ok(subscription) => return subscription,
                Err(failure) => {
                    let error = failure.into_store_error().report();
                    tracing::debug!(error, "subscribing failed, retrying");
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Receives until the connection is broken, or silent.
    async fn hear_from(&self, subscription: &mut Subscription) {
        loop {
            match timeout(ALIVE, subscription.messages.recv()).await {
                Ok(Some(message)) if message.kind == PushKind::Disconnection => return,
                Ok(Some(message)) => self.heard(message),
                Ok(None) => return,
                Err(_) => {
                    let ping = cmd("PING");
                    let ping = ping.query_async::<()>(&mut subscription.connection);
                    if !matches!(timeout(self.patience, ping).await, Ok(Ok(()))) {
                        return;
                    }
                }
            }
        }
    }

    fn heard(&self, message: PushInfo) {
        if message.kind != PushKind::Message {
            return;
        }
        let Some(notifier) = self.notifier.upgrade() else {
            return;
        };
        // The data are the channel and the message.
        let said = message.data.into_iter().nth(1);
        let said = said.and_then(|said| Vec::<u8>::from_redis_value(said).ok());
        let message = said.and_then(|said| serde_json::from_slice::<Message>(&said).ok());
        match message {
            Some(message) if message.from == self.from => {}
            Some(message) => {
                for NoticeSent { id, recalled } in message.changed {
                    let revoked_from = recalled.map(NodeId::named);
                    notifier.notify(&Notice::Changed { id, revoked_from });
                }
                if message.released {
                    notifier.notify(&Notice::Released);
                }
            }
            // The message may come from a later release.
            None => notifier.notify_all(),
        }
    }
}
