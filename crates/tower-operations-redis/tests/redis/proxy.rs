//! Stands between the store and its server: counts, cuts and mutes.

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

/// A way to a server. It ends when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// The commands of each round trip, but for those of nobody's concern.
    trips: Mutex<Vec<Vec<String>>>,
    /// The next answer to this command does not arrive.
    cut: Mutex<Option<String>>,
    muted: Mutex<bool>,
    /// Bytes that came back.
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

    /// The round trips since this was asked last.
    pub(crate) fn trips(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut self.state.trips.lock().unwrap())
    }

    /// How many bytes came back since this was asked last.
    pub(crate) fn answered(&self) -> usize {
        self.state.answered.swap(0, SeqCst)
    }

    /// Cuts the connection when the answer to the next such command is there.
    pub(crate) fn cut(&self, command: &str) {
        *self.state.cut.lock().unwrap() = Some(command.into());
    }

    /// Whether it has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.state.cut.lock().unwrap().is_none()
    }

    /// What is published does not arrive.
    pub(crate) fn mute(&self, muted: bool) {
        *self.state.muted.lock().unwrap() = muted;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What both directions of one connection know.
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
    let there = ask(
        from_client,
        to_server,
        Arc::clone(state),
        Arc::clone(&connection),
    );
    let back = answer(
        from_server,
        to_client,
        Arc::clone(state),
        Arc::clone(&connection),
    );
    tokio::spawn(async move {
        // With either way the other ends, and with it both sockets.
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    });
}

async fn ask(
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

async fn answer(
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

/// The name of the first command in these bytes, and how long it is, if all of it
/// is there.
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
