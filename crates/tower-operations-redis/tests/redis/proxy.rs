//! A TCP proxy between the store and its server. The proxy records round trips, cuts
//! connections and drops published messages.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::JoinHandle,
};

use super::server::Redis;

/// A proxy to a server, which stops when dropped.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// The commands of the store in each round trip.
    trips: Mutex<Vec<Vec<String>>>,
    /// The command whose next answer is cut off.
    cut: Mutex<Option<String>>,
    muted: Mutex<bool>,
    /// The number of bytes in answers.
    answered: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn to(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, server) = (Arc::new(State::default()), redis.port());
        let accepting = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                        continue;
                    };
                    connect(client, server, &state);
                }
            }
        });
        Self {
            port,
            state,
            accepting,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Returns the round trips since the last call.
    pub(crate) fn trips(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut self.state.trips.lock().unwrap())
    }

    /// Returns the number of answered bytes since the last call.
    pub(crate) fn answered(&self) -> usize {
        self.state.answered.swap(0, SeqCst)
    }

    /// Cuts the connection when the answer to the next `command` arrives.
    pub(crate) fn cut(&self, command: &str) {
        *self.state.cut.lock().unwrap() = Some(command.into());
    }

    /// Returns whether the connection was cut.
    pub(crate) fn has_cut(&self) -> bool {
        self.state.cut.lock().unwrap().is_none()
    }

    /// Drops published messages, or stops dropping them.
    pub(crate) fn mute(&self, muted: bool) {
        *self.state.muted.lock().unwrap() = muted;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The state that both directions of a connection share.
#[derive(Default)]
struct Connection {
    cutting: Mutex<bool>,
    subscribed: Mutex<bool>,
    closed: Notify,
}

fn connect(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let connection = Arc::<Connection>::default();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = forward_requests(
        from_client,
        to_server,
        Arc::clone(state),
        Arc::clone(&connection),
    );
    let answers = forward_answers(
        from_server,
        to_client,
        Arc::clone(state),
        Arc::clone(&connection),
    );
    tokio::spawn(async move {
        // The end of one direction ends the other, and closes both sockets.
        tokio::select! {
            () = requests => {}
            () = answers => {}
        }
    });
}

async fn forward_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    state: Arc<State>,
    connection: Arc<Connection>,
) {
    let (mut unread, mut bytes) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let read = tokio::select! {
            read = client.read(&mut bytes) => read,
            () = connection.closed.notified() => return,
        };
        let Ok(length @ 1..) = read else {
            return;
        };
        unread.extend_from_slice(&bytes[..length]);
        let mut trip = Vec::new();
        while let Some((name, length)) = command(&unread) {
            unread.drain(..length);
            if name == "SUBSCRIBE" {
                *connection.subscribed.lock().unwrap() = true;
            }
            let mut cut = state.cut.lock().unwrap();
            if cut.as_ref() == Some(&name) {
                *cut = None;
                *connection.cutting.lock().unwrap() = true;
            }
            trip.push(name);
        }
        trip.retain(|name| ["EVALSHA", "HMGET", "SCRIPT", "PERSIST"].contains(&&**name));
        if !trip.is_empty() {
            state.trips.lock().unwrap().push(trip);
        }
        if server.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

async fn forward_answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    state: Arc<State>,
    connection: Arc<Connection>,
) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let Ok(length @ 1..) = server.read(&mut bytes).await else {
            return;
        };
        if *connection.cutting.lock().unwrap() {
            connection.closed.notify_one();
            return;
        }
        let is_message = bytes[..length].starts_with(b">3\r\n$7\r\nmessage\r\n");
        if is_message && *connection.subscribed.lock().unwrap() && *state.muted.lock().unwrap() {
            continue;
        }
        state.answered.fetch_add(length, SeqCst);
        if client.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Returns the name and the length of the first command, if the command is complete.
fn command(bytes: &[u8]) -> Option<(String, usize)> {
    let line = |from: usize| {
        let length = bytes
            .get(from..)?
            .windows(2)
            .position(|end| end == b"\r\n")?;
        let text = std::str::from_utf8(&bytes[from + 1..from + length]).unwrap();
        Some((text.parse::<usize>().unwrap(), from + length + 2))
    };
    let (arguments, mut at) = line(0)?;
    let mut name = None;
    for _ in 0..arguments {
        let (length, from) = line(at)?;
        let argument = bytes.get(from..from + length)?;
        bytes.get(from + length..from + length + 2)?;
        name.get_or_insert_with(|| String::from_utf8_lossy(argument).to_uppercase());
        at = from + length + 2;
    }
    Some((name.unwrap_or_default(), at))
}
