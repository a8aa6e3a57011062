//! An HTTP client that follows no redirects.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::LOCATION};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::process::PATIENCE;

/// Sends a request, and returns the response once its head arrives.
pub async fn open(
    url: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Incoming> {
    let client = Client::new(url);
    let mut request = client.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.open(request, body).await
}

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Client {
    /// Creates a client for HTTP/1.1.
    pub fn new(url: &str) -> Self {
        Self::with(url, &mut Pool::builder(TokioExecutor::new()))
    }

    /// Creates a client for HTTP/2 with prior knowledge.
    pub fn http2(url: &str) -> Self {
        Self::with(url, Pool::builder(TokioExecutor::new()).http2_only(true))
    }

    fn with(url: &str, builder: &mut hyper_util::client::legacy::Builder) -> Self {
        Self {
            pool: builder.build_http(),
            url: url.into(),
        }
    }

    pub async fn send(&self, request: http::request::Builder, body: Bytes) -> Answer {
        let answer = self.try_send(request, body).await;
        answer.expect("the server answers")
    }

    /// Sends a request, and returns `None` if the connection breaks.
    pub async fn try_send(&self, request: http::request::Builder, body: Bytes) -> Option<Answer> {
        let request: Request<Full<Bytes>> = request.body(Full::new(body)).unwrap();
        let answered = timeout(PATIENCE, async {
            let (parts, body) = self.pool.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Response::from_parts(parts, body))
        });
        answered
            .await
            .expect("the server answers in time")
            .map(Answer)
    }

    /// Sends a request, and returns the response with its body unread.
    pub async fn open(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let request = request.body(Full::new(body.into())).unwrap();
        let answered = timeout(PATIENCE, self.pool.request(request)).await;
        answered.expect("the server answers in time").unwrap()
    }

    /// Builds a request for a path or a `Location`.
    pub fn request(&self, method: Method, location: &str) -> http::request::Builder {
        let url = match location.starts_with('/') {
            true => format!("{}{location}", self.url),
            false => location.into(),
        };
        Request::builder().method(method).uri(url)
    }

    pub async fn get(&self, location: &str) -> Answer {
        let request = self.request(Method::GET, location);
        self.send(request, Bytes::new()).await
    }

    pub async fn delete(&self, location: &str) -> Answer {
        let request = self.request(Method::DELETE, location);
        self.send(request, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = self.request(Method::POST, path);
        let request = request.header("content-type", "application/json");
        self.send(request, body.into()).await
    }

    /// Posts a request, asserts that the answer is a 202, and returns its `Location`.
    pub async fn post_accepted(&self, path: &str, body: impl Into<Bytes>) -> String {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{answer:?}");
        answer.header(LOCATION.as_str()).to_owned()
    }

    /// Waits for the end of an operation, and returns its representation.
    pub async fn wait_for_end(&self, location: &str) -> Value {
        let separator = if location.contains('?') { '&' } else { '?' };
        let waiting = format!("{location}{separator}wait=5");
        let begun = Instant::now();
        loop {
            let answer = self.get(&waiting).await;
            assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
            let operation = answer.json();
            if !matches!(operation["state"].as_str(), Some("pending" | "running")) {
                return operation;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the operation never ends: {operation}"
            );
        }
    }
}

/// A whole response.
#[derive(Debug)]
pub struct Answer(Response<Bytes>);

impl Answer {
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.headers().contains_key(name)
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.0.headers().get(name);
        let value = value.unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.to_str().unwrap()
    }

    /// Returns all values of a repeated header.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.0.headers().get_all(name).into_iter();
        values.map(|value| value.to_str().unwrap())
    }

    pub fn body(&self) -> &Bytes {
        self.0.body()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(self.body()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
