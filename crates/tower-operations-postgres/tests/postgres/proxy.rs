//! A TCP proxy in front of the server. The proxy records the executed statements, and can
//! close a connection between a commit and its answer.

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
    traffic: Arc<Traffic>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Traffic {
    /// The SQL of the executed statements.
    executed: Mutex<Vec<String>>,
    /// A part of the SQL of the statement whose answer is cut off next.
    cut: Mutex<Option<String>>,
    cuts: AtomicUsize,
    /// The number of bytes in answers.
    answered: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let traffic = Arc::<Traffic>::default();
        let accepting = Arc::clone(&traffic);
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
        Self {
            port,
            traffic,
            task,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Commits the next statement that contains `sql`, and cuts off its answer.
    pub(crate) fn cut_answer_to(&self, sql: &str) {
        *self.traffic.cut.lock().unwrap() = Some(sql.into());
    }

    pub(crate) fn cuts(&self) -> usize {
        self.traffic.cuts.load(SeqCst)
    }

    /// Returns the number of answered bytes since the last call.
    pub(crate) fn answered(&self) -> usize {
        self.traffic.answered.swap(0, SeqCst)
    }

    /// Returns the statements since the last call, except those of notifications.
    pub(crate) fn executed(&self) -> Vec<String> {
        let mut executed = std::mem::take(&mut *self.traffic.executed.lock().unwrap());
        executed.retain(|sql| !sql.contains("pg_notify") && !sql.contains("LISTEN"));
        executed
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn join(client: TcpStream, server: TcpStream, traffic: Arc<Traffic>) {
    let is_cut = Arc::<AtomicBool>::default();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::spawn(forward_queries(
        from_client,
        to_server,
        Arc::clone(&traffic),
        Arc::clone(&is_cut),
    ));
    tokio::spawn(forward_answers(from_server, to_client, traffic, is_cut));
}

/// Reads a message: its type, and all of its bytes.
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

/// Splits the bytes into the text before the next zero byte and the rest.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    (
        String::from_utf8_lossy(&bytes[..end]).into_owned(),
        &bytes[end + 1..],
    )
}

async fn forward_queries(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    traffic: Arc<Traffic>,
    is_cut: Arc<AtomicBool>,
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
                let mut cut = traffic.cut.lock().unwrap();
                if cut.as_ref().is_some_and(|cut| sql.contains(cut)) {
                    *cut = None;
                    is_cut.store(true, SeqCst);
                }
                traffic.executed.lock().unwrap().push(sql);
            }
            _ => {}
        }
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
}

async fn forward_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    traffic: Arc<Traffic>,
    is_cut: Arc<AtomicBool>,
) {
    while let Some((kind, bytes)) = message(&mut from, true).await {
        if is_cut.load(SeqCst) {
            // `ReadyForQuery`: the statement is committed.
            if kind == b'Z' {
                traffic.cuts.fetch_add(1, SeqCst);
                return;
            }
            continue;
        }
        traffic.answered.fetch_add(bytes.len(), SeqCst);
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
