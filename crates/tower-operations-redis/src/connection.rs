//! The connections of a node, which are replaced when they break.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use ::redis::{
    Arg, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline, RedisResult, Script,
    ServerErrorKind, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::time::timeout;
use tower_operations::store::StoreError;

use super::{
    RedisError,
    error::{AnswerError, RedisFault},
};

/// The largest value that a server accepts by default, in bytes.
pub(super) const LARGEST: usize = 512 << 20;

/// The number of connections for commands. The server reads about 16 KiB at a time from each
/// connection, and writes to its disk between two rounds.
const CONNECTIONS: usize = 4;

/// Connections used in turn.
pub(super) struct RedisConnections {
    all: [Arc<Connection>; CONNECTIONS],
    turn: AtomicUsize,
}

impl RedisConnections {
    /// Creates the connections; sends nothing yet.
    pub(super) fn new(url: &str, patience: Duration) -> Result<Self, RedisError> {
        let first = Connection::new(url, patience)?;
        let another = || Connection::to(&first.client, patience).map(Arc::new);
        let others = || Ok([another()?, another()?, another()?]);
        let [second, third, fourth] = others().map_err(url_error)?;
        Ok(Self {
            all: [Arc::new(first), second, third, fourth],
            turn: AtomicUsize::new(0),
        })
    }

    pub(super) fn first(&self) -> &Arc<Connection> {
        &self.all[0]
    }

    /// Sends commands that may be repeated, in one round trip. The retry covers a connection
    /// that the server closed because it was idle. `script` is the script of the calls, if they
    /// call one.
    pub(super) async fn ask_twice(
        &self,
        script: Option<&Script>,
        calls: &Pipeline,
    ) -> Result<Vec<Value>, AnswerError> {
        let connection = self.next();
        match connection.run_all(script, calls).await {
            Err(failure) if failure.is_cut() => connection.run_all(script, calls).await,
            answers => answers,
        }
    }

    /// Returns the next connection.
    pub(super) fn next(&self) -> &Connection {
        &self.all[self.turn.fetch_add(1, Relaxed) % CONNECTIONS]
    }
}

fn url_error(error: ::redis::RedisError) -> RedisError {
    RedisError::Url(error.into())
}

/// One connection.
pub(super) struct Connection {
    client: Client,
    /// The time-out of an answer, connecting included.
    patience: Duration,
    current: Mutex<CurrentConnection>,
}

struct CurrentConnection {
    manager: ConnectionManager,
    /// The number of earlier connections.
    number: u64,
}

impl Connection {
    fn new(url: &str, patience: Duration) -> Result<Self, RedisError> {
        let open = || -> RedisResult<Self> {
            let info: ConnectionInfo = url.into_connection_info()?;
            // Commands are small and many, so none may wait to share a packet with the next.
            let tcp = TcpSettings::default().set_nodelay(true);
            Self::to(&Client::open(info.set_tcp_settings(tcp))?, patience)
        };
        open().map_err(url_error)
    }

    fn to(client: &Client, patience: Duration) -> RedisResult<Self> {
        let manager = manager(client, patience)?;
        Ok(Self {
            client: client.clone(),
            patience,
            current: Mutex::new(CurrentConnection { manager, number: 0 }),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Sends a command in one round trip.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, AnswerError> {
        fits(command)?;
        self.ask(async |mut manager| command.query_async(&mut manager).await)
            .await
    }

    /// Sends all commands in one round trip.
    pub(super) async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, AnswerError> {
        self.ask(async |mut manager| commands.query_async(&mut manager).await)
            .await
    }

    /// Runs a script in one round trip, unless the server no longer has the script.
    pub(super) async fn run(&self, script: &Script, call: &Cmd) -> Result<Value, AnswerError> {
        match self.send(call).await {
            Err(failure) if failure.is_of(ServerErrorKind::NoScript) => {
                self.load(script).await?;
                self.send(call).await
            }
            answer => answer,
        }
    }

    /// Runs calls that may be repeated any number of times.
    async fn run_all(
        &self,
        script: Option<&Script>,
        calls: &Pipeline,
    ) -> Result<Vec<Value>, AnswerError> {
        match (self.send_all(calls).await, script) {
            (Err(failure), Some(script)) if failure.is_of(ServerErrorKind::NoScript) => {
                self.load(script).await?;
                self.send_all(calls).await
            }
            (answers, _) => answers,
        }
    }

    async fn load(&self, script: &Script) -> Result<(), AnswerError> {
        self.ask(async |mut manager| script.load_async(&mut manager).await)
            .await
            .map(drop)
    }

    async fn ask<T, F>(&self, send: impl FnOnce(ConnectionManager) -> F) -> Result<T, AnswerError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let (manager, number) = {
            let current = self.current();
            (current.manager.clone(), current.number)
        };
        match timeout(self.patience, send(manager)).await {
            Ok(Err(error)) if !is_of_the_server(&error) && !error.is_io_error() => {
                // The manager connects again only after a network error, so this error would
                // last forever.
                self.give_up(number)?;
                Err(AnswerError::Server(error))
            }
            Ok(answer) => answer.map_err(AnswerError::Server),
            Err(_) => {
                // The connection may be half dead, which would otherwise stay undetected for a
                // long time.
                self.give_up(number)?;
                Err(AnswerError::Own(RedisFault::Late(self.patience)))
            }
        }
    }

    fn give_up(&self, number: u64) -> Result<(), AnswerError> {
        let mut current = self.current();
        if current.number == number {
            *current = CurrentConnection {
                manager: manager(&self.client, self.patience).map_err(AnswerError::Server)?,
                number: number + 1,
            };
        }
        Ok(())
    }

    fn current(&self) -> MutexGuard<'_, CurrentConnection> {
        // A critical section only moves finished values.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RedisConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client contains a password.
        let address = self.first().client.get_connection_info().addr();
        f.debug_tuple("Connections")
            .field(&format_args!("{address}"))
            .finish()
    }
}

/// Returns whether the error is an answer to a command, on a healthy connection.
fn is_of_the_server(error: &::redis::RedisError) -> bool {
    use ErrorKind::{Extension, Server, UnexpectedReturnType};
    matches!(error.kind(), Server(_) | Extension | UnexpectedReturnType)
}

/// Creates a manager that connects with the first command. While the server is unavailable, each
/// command is retried a few times and fails soon.
fn manager(client: &Client, patience: Duration) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(patience / 2))
        .set_response_timeout(None) // `patience` bounds both together
        .set_number_of_retries(2)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(200))
        .set_pipeline_buffer_size(1024);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

/// Refuses a value that is too large: the server would close the connection, with
/// everything in flight on it.
fn fits(command: &Cmd) -> Result<(), AnswerError> {
    let sizes = command.args_iter().map(|arg| match arg {
        Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    });
    match sizes.max() {
        Some(largest) if largest > LARGEST => Err(AnswerError::Own(RedisFault::TooLarge(largest))),
        _ => Ok(()),
    }
}

impl From<AnswerError> for StoreError {
    fn from(failure: AnswerError) -> Self {
        failure.into_store_error()
    }
}

impl AnswerError {
    fn is_of(&self, kind: ServerErrorKind) -> bool {
        matches!(self, Self::Server(error) if error.kind() == ErrorKind::Server(kind))
    }
}
