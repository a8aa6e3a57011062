//! A TCP proxy in front of the server: it counts what is asked, and can cut a
//! connection after a commit, before its answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The SQL of each statement that was executed.
    executed: Mutex<Vec<String>>,
    /// The statement in whose SQL this is has its answer cut off.
    doomed: Mutex<Option<String>>,
    cuts: AtomicUsize,
    /// Bytes that came back.
    answered: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Seen>::default();
        let accepting = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                    continue;
                };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                join(client, server, Arc::clone(&accepting));
            }
        });
        Self { port, seen, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The next statement with `sql` in it is committed, and its answer lost.
    pub(crate) fn cut_answer_to(&self, sql: &str) {
        *self.seen.doomed.lock().unwrap() = Some(sql.into());
    }

    pub(crate) fn cuts(&self) -> usize {
        self.seen.cuts.load(SeqCst)
    }

    /// How many bytes came back since the last time.
    pub(crate) fn answered(&self) -> usize {
        self.seen.answered.swap(0, SeqCst)
    }

    /// What was executed since the last time, without what notices are sent by.
    pub(crate) fn executed(&self) -> Vec<String> {
        let mut executed = std::mem::take(&mut *self.seen.executed.lock().unwrap());
        executed.retain(|sql| !sql.contains("pg_notify") && !sql.contains("LISTEN"));
        executed
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn join(client: TcpStream, server: TcpStream, seen: Arc<Seen>) {
    let is_doomed = Arc::<AtomicBool>::default();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::spawn(ask(
        from_client,
        to_server,
        Arc::clone(&seen),
        Arc::clone(&is_doomed),
    ));
    tokio::spawn(answer(from_server, to_client, seen, is_doomed));
}

/// A message: its type, and all of its bytes.
async fn message(from: &mut OwnedReadHalf, typed: bool) -> Option<(u8, Vec<u8>)> {
    let kind = if typed { from.read_u8().await.ok()? } else { 0 };
    let length = from.read_u32().await.ok()?;
    let mut bytes = Vec::new();
    if typed {
        bytes.push(kind);
    }
    bytes.extend(length.to_be_bytes());
    let begin = bytes.len();
    bytes.resize(begin + length as usize - 4, 0);
    from.read_exact(&mut bytes[begin..]).await.ok()?;
    Some((kind, bytes))
}

/// The text up to the next zero byte, and what follows.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    (
        String::from_utf8_lossy(&bytes[..end]).into_owned(),
        &bytes[end + 1..],
    )
}

async fn ask(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    seen: Arc<Seen>,
    is_doomed: Arc<AtomicBool>,
) {
    let mut prepared = HashMap::new();
    let mut bound = String::new();
    let mut typed = false;
    while let Some((kind, bytes)) = message(&mut from, typed).await {
        typed = true;
        match kind {
            b'P' => {
                let (name, rest) = text(&bytes[5..]);
                prepared.insert(name, text(rest).0);
            }
            b'B' => {
                let (_, rest) = text(&bytes[5..]);
                bound = prepared[&text(rest).0].clone();
            }
            b'E' | b'Q' => {
                let sql = match kind {
                    b'E' => bound.clone(),
                    _ => text(&bytes[5..]).0,
                };
                let mut doomed = seen.doomed.lock().unwrap();
                if doomed.as_ref().is_some_and(|doomed| sql.contains(doomed)) {
                    *doomed = None;
                    is_doomed.store(true, SeqCst);
                }
                seen.executed.lock().unwrap().push(sql);
            }
            _ => {}
        }
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
}

async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    seen: Arc<Seen>,
    is_doomed: Arc<AtomicBool>,
) {
    while let Some((kind, bytes)) = message(&mut from, true).await {
        if is_doomed.load(SeqCst) {
            // Ready for the next query: this one is committed.
            if kind == b'Z' {
                seen.cuts.fetch_add(1, SeqCst);
                return;
            }
            continue;
        }
        seen.answered.fetch_add(bytes.len(), SeqCst);
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
