//! A receiver of webhooks on loopback.

#![allow(dead_code)] // each test uses a part

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// The time after which a test fails that waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A request that arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The server name of the TLS handshake.
    pub(crate) server_name: Option<String>,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Empty,
    Text(Option<Bytes>),
    /// A kibibyte after the other.
    Endless(Arc<AtomicUsize>),
    Hanging,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Endless(frames) => {
                frames.fetch_add(1, SeqCst);
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))))
            }
            Self::Hanging => Poll::Pending,
        }
    }
}

pub(crate) type Answer = Response<AnswerBody>;

/// Returns an answer without a body.
pub(crate) fn answer(status: u16) -> Answer {
    let mut answer = Response::new(AnswerBody::Empty);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// A receiver of webhooks.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    requests: UnboundedReceiver<Received>,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    /// Starts a receiver on 127.0.0.1.
    pub(crate) async fn start<F>(respond: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self::start_at(([127, 0, 0, 1], 0).into(), None, respond).await
    }

    /// Starts a receiver that gives one answer again and again.
    pub(crate) async fn answering(status: u16) -> Self {
        Self::start(move || async move { answer(status) }).await
    }

    pub(crate) async fn start_at<F>(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        respond: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = unbounded_channel();
        let connections = Arc::<AtomicUsize>::default();
        let (counted, respond) = (Arc::clone(&connections), Arc::new(respond));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                let (tls, sender, respond) = (tls.clone(), sender.clone(), Arc::clone(&respond));
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, None, sender, respond).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else {
                                return;
                            };
                            let name = stream.get_ref().1.server_name().map(str::to_owned);
                            serve(stream, name, sender, respond).await;
                        }
                    }
                });
            }
        });
        Self {
            address,
            requests,
            connections,
        }
    }

    /// Returns the next request.
    pub(crate) async fn next(&mut self) -> Received {
        let next = timeout(PATIENCE, self.requests.recv()).await;
        next.expect("a request arrives").unwrap()
    }

    /// Returns whether no further request has arrived.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }

    /// Returns the number of connections that were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server_name: Option<String>,
    sender: UnboundedSender<Received>,
    respond: Arc<impl Fn() -> F + Send + Sync + 'static>,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (sender, respond) = (sender.clone(), Arc::clone(&respond));
        let server_name = server_name.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            assert_eq!(head.method, http::Method::POST);
            let _ = sender.send(Received {
                uri: head.uri,
                headers: head.headers,
                body,
                server_name,
            });
            Ok::<_, hyper::Error>(respond().await)
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}
