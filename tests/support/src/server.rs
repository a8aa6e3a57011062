//! Servers on free ports, and clients that see every byte.

// Each test file uses a part of this module.
#![allow(dead_code)]

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

/// The time-out of every wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The maximum number of open streams on an HTTP/2 connection of hyper.
const MAX_STREAMS: u32 = 2000;

/// Waits at most [`PATIENCE`].
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("nothing came within {PATIENCE:?}"),
    }
}

/// Polls a condition until it holds, at most for [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// A server on a free port of 127.0.0.1.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
    ended: watch::Receiver<usize>,
}

impl Server {
    /// Serves HTTP/1.1 and HTTP/2 (with prior knowledge) on hyper alone.
    pub async fn hyper<S, B>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (end, ended) = watch::channel(0);
        let task = tokio::spawn(async move {
            let graceful = GracefulShutdown::new();
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = stopped.cancelled() => break,
                };
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder.http2().max_concurrent_streams(MAX_STREAMS);
                let service = TowerToHyperService::new(service.clone());
                let connection = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .into_owned();
                let connection = graceful.watch(connection);
                let end = end.clone();
                tokio::spawn(async move {
                    // A client that disconnects is an error to hyper, and expected in
                    // these tests.
                    let _ = connection.await;
                    end.send_modify(|ended| *ended += 1);
                });
            }
            graceful.shutdown().await;
        });
        Self {
            address,
            stop,
            task,
            ended,
        }
    }

    /// Serves an application with `axum::serve`.
    pub async fn axum(app: axum::Router) -> Self {
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            axum::serve(listener, app)
                .with_graceful_shutdown(stopped)
                .await
                .unwrap();
        });
        Self {
            address,
            stop,
            task,
            ended: watch::channel(0).1,
        }
    }

    /// Waits until `connections` connections and their requests have ended. Only a server of
    /// [`hyper`](Self::hyper) counts them.
    pub async fn ended(&mut self, connections: usize) {
        soon(self.ended.wait_for(|ended| *ended >= connections))
            .await
            .unwrap();
    }

    /// Stops accepting connections and waits for the end of the open ones.
    pub async fn stop(self) {
        self.stop.cancel();
        soon(self.task).await.expect("the server panicked");
    }

    pub async fn raw(&self) -> Raw {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Raw {
            stream,
            read: Vec::new(),
        }
    }

    pub async fn http1(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client(Sender::Http1(sender))
    }

    pub async fn http2(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Client(Sender::Http2(sender))
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A connection of the hyper client.
pub struct Client(Sender);

enum Sender {
    Http1(http1::SendRequest<AnyBody>),
    Http2(http2::SendRequest<AnyBody>),
}

pub type AnyBody = BoxBody<Bytes, Infallible>;

impl Client {
    /// Sends a request and returns the response once its head arrives.
    pub async fn open(&mut self, request: Request<AnyBody>) -> hyper::Result<Response<Incoming>> {
        soon(async {
            match &mut self.0 {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(with_host(request)).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(with_authority(request)).await
                }
            }
        })
        .await
    }

    /// Sends a request and returns the whole answer.
    pub async fn send(&mut self, request: Request<AnyBody>) -> Answer {
        let response = self.open(request).await.expect("no answer");
        Answer::of(response).await
    }

    pub async fn get(&mut self, uri: &str) -> Answer {
        self.send(Request::get(uri).body(empty()).unwrap()).await
    }

    pub async fn post(&mut self, uri: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Request::post(uri).body(full(body)).unwrap())
            .await
    }

    /// Sends the request `method uri` with header fields and no body.
    pub async fn ask(&mut self, line: &str, fields: &[(&str, &str)]) -> Answer {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send(request.body(empty()).unwrap()).await
    }

    /// Returns another handle to the same HTTP/2 connection.
    pub fn stream(&self) -> Self {
        match &self.0 {
            Sender::Http1(_) => panic!("an HTTP/1 connection has one stream"),
            Sender::Http2(sender) => Self(Sender::Http2(sender.clone())),
        }
    }

    /// Returns whether the connection accepts another request.
    pub async fn serves_on(&mut self) -> bool {
        soon(async {
            match &mut self.0 {
                Sender::Http1(sender) => sender.ready().await.is_ok(),
                Sender::Http2(sender) => sender.ready().await.is_ok(),
            }
        })
        .await
    }
}

fn with_host<B>(mut request: Request<B>) -> Request<B> {
    let host = HeaderValue::from_static("localhost");
    request.headers_mut().insert(header::HOST, host);
    request
}

fn with_authority<B>(mut request: Request<B>) -> Request<B> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme.get_or_insert(http::uri::Scheme::HTTP);
    uri.authority
        .get_or_insert(http::uri::Authority::from_static("localhost"));
    *request.uri_mut() = uri.try_into().unwrap();
    request
}

pub fn empty() -> AnyBody {
    Empty::new().boxed()
}

/// Returns a body of known length, which is sent with `Content-Length`.
pub fn full(data: impl Into<Bytes>) -> AnyBody {
    Full::new(data.into()).boxed()
}

/// Returns a body of unknown length, which is sent chunked.
pub fn chunked(data: impl Into<Bytes>, trailers: Option<HeaderMap>) -> AnyBody {
    let data = data.into();
    let mut left: Vec<_> = trailers.map(Frame::trailers).into_iter().collect();
    let mut pieces: Vec<_> = data
        .chunks(16 * 1024)
        .map(|piece| Frame::data(data.slice_ref(piece)))
        .collect();
    pieces.reverse();
    left.append(&mut pieces);
    Frames { left }.boxed()
}

/// A body of frames, stored from the last to the first.
struct Frames {
    left: Vec<Frame<Bytes>>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.pop().map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// Returns a body and the sender of its pieces. The body ends when the sender is dropped.
pub fn piecemeal() -> (mpsc::UnboundedSender<Bytes>, AnyBody) {
    let (sender, pieces) = mpsc::unbounded_channel();
    let to_frame = Frame::data;
    (sender, Piecemeal { pieces, to_frame }.boxed())
}

/// Returns a body and the sender of its frames, which may be trailers.
pub fn framewise() -> (mpsc::UnboundedSender<Frame<Bytes>>, AnyBody) {
    let (sender, pieces) = mpsc::unbounded_channel();
    let to_frame = |frame| frame;
    (sender, Piecemeal { pieces, to_frame }.boxed())
}

struct Piecemeal<T> {
    pieces: mpsc::UnboundedReceiver<T>,
    to_frame: fn(T) -> Frame<Bytes>,
}

impl<T> Body for Piecemeal<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok((self.to_frame)(piece))))
    }
}

/// Returns the next piece of a body that is still being sent.
pub async fn next_piece(body: &mut Incoming) -> Option<Bytes> {
    loop {
        let frame = soon(body.frame()).await?;
        let piece = frame.expect("the body broke off").into_data().ok()?;
        // The end of an HTTP/2 stream may come as a frame of its own.
        if !piece.is_empty() {
            return Some(piece);
        }
    }
}

/// A complete answer.
#[derive(Clone, PartialEq)]
pub struct Answer {
    pub version: Version,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub async fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let whole = soon(body.collect()).await.expect("the answer broke off");
        let trailers = whole.trailers().cloned();
        Self {
            version: parts.version,
            status: parts.status,
            headers: parts.headers,
            body: whole.to_bytes(),
            trailers,
        }
    }

    /// Returns the first value of a field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is no text")
    }

    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {self:?}"),
        }
    }

    /// Returns one member of the JSON body as text.
    pub fn member(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts that the answer is a problem of this crate, and returns its JSON.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> serde_json::Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(
            problem["type"],
            format!("urn:tower-operations:{code}"),
            "{self:?}"
        );
        assert_eq!(problem["status"], status, "{self:?}");
        problem
    }

    /// Asserts that the answer is a 202, and returns its `Location`.
    #[track_caller]
    pub fn accepted(&self) -> String {
        assert_eq!(self.status, StatusCode::ACCEPTED, "{self:?}");
        self.header("location").expect("no location").to_owned()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} {}", self.version, self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value:?}")?;
        }
        let shown = &self.body[..self.body.len().min(500)];
        writeln!(f, "{}", String::from_utf8_lossy(shown))?;
        match &self.trailers {
            Some(trailers) => write!(f, "{trailers:?}"),
            None => Ok(()),
        }
    }
}

/// A connection on which a test reads and writes raw HTTP/1.1.
pub struct Raw {
    stream: TcpStream,
    /// Bytes that were read and belong to no answer yet.
    read: Vec<u8>,
}

impl Raw {
    /// Writes all bytes before anything is read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        soon(self.stream.write_all(bytes.as_ref())).await
    }

    /// Sends a request without a body.
    pub async fn ask(&mut self, line: &str) -> Answer {
        self.send(format!("{line} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await
            .unwrap();
        self.answer().await
    }

    /// Reads the next answer, which may be an interim one (1xx).
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("no answer")
    }

    pub async fn try_answer(&mut self) -> io::Result<Answer> {
        let (status, headers) = self.head().await?;
        let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let has_no_body = status.is_informational() || matches!(status.as_u16(), 204 | 304);
        let (body, trailers) = if has_no_body {
            (Vec::new(), None)
        } else if field("transfer-encoding") == Some("chunked") {
            self.chunks().await?
        } else {
            let length = field("content-length").map_or(0, |length| length.parse().unwrap());
            (self.exactly(length).await?, None)
        };
        Ok(Answer {
            version: Version::HTTP_11,
            status,
            headers,
            body: body.into(),
            trailers,
        })
    }

    /// Reads the answer to a `HEAD`.
    pub async fn head_only(&mut self) -> Answer {
        let (status, headers) = self.head().await.expect("no answer");
        Answer {
            version: Version::HTTP_11,
            status,
            headers,
            body: Bytes::new(),
            trailers: None,
        }
    }

    /// Returns whether the server closes the connection and sends nothing more.
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = [0; 1];
        self.read.is_empty() && matches!(soon(self.stream.read(&mut rest)).await, Ok(0))
    }

    /// Returns whether nothing has arrived since the last answer.
    pub fn has_nothing_yet(&mut self) -> bool {
        let mut rest = [0; 1];
        self.read.is_empty()
            && matches!(self.stream.try_read(&mut rest),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn head(&mut self) -> io::Result<(StatusCode, HeaderMap)> {
        let line = self.line().await?;
        let status = line
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| StatusCode::from_bytes(rest.get(..3)?).ok());
        let status = status.ok_or_else(|| {
            io::Error::other(format!("no status: {}", String::from_utf8_lossy(&line)))
        })?;
        Ok((status, self.fields().await?))
    }

    /// Reads header or trailer fields and the empty line after them.
    async fn fields(&mut self) -> io::Result<HeaderMap> {
        let mut fields = HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            fields.append(
                HeaderName::from_bytes(&line[..colon]).unwrap(),
                HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).unwrap(),
            );
        }
    }

    async fn chunks(&mut self) -> io::Result<(Vec<u8>, Option<HeaderMap>)> {
        let mut body = Vec::new();
        loop {
            let size = String::from_utf8(self.line().await?).unwrap();
            let size = usize::from_str_radix(&size, 16).unwrap();
            if size == 0 {
                let trailers = self.fields().await?;
                return Ok((body, Some(trailers).filter(|fields| !fields.is_empty())));
            }
            body.extend(self.exactly(size).await?);
            assert!(self.line().await?.is_empty());
        }
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let mut line: Vec<u8> = self.read.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            self.more().await?;
        }
    }

    /// Reads exactly `length` bytes.
    pub async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            self.more().await?;
        }
        Ok(self.read.drain(..length).collect())
    }

    async fn more(&mut self) -> io::Result<()> {
        match soon(self.stream.read_buf(&mut self.read)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
