use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header, request::Builder};
use http_body::Body;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tower_service::Service;

use crate::{
    operation::{BodyCollector, BufferedBody, Operation},
    tower_util::Oneshot,
};

/// The longest time that a test waits for an operation.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that sends requests, follows the `Location` of a 202 and polls.
#[derive(Debug, Clone)]
pub struct Client<S>(S);

/// An operation at a URL, polled by a [`Client`].
#[derive(Debug, Clone)]
pub struct Polled<S> {
    client: Client<S>,
    url: String,
}

impl<S, C> Client<S>
where
    S: Service<Request<BufferedBody>, Response = Response<C>> + Clone,
    S::Error: Debug,
    C: Body<Data = Bytes>,
    C::Error: Debug,
{
    /// Creates a client of `service`: an application, a layered service, or a
    /// [`PollService`](crate::PollService).
    pub fn new(service: S) -> Self {
        Self(service)
    }

    /// Sends a request and returns the response with its collected body.
    ///
    /// # Panics
    /// Panics if the request is malformed or the service returns an error.
    pub async fn send(&self, request: Builder, body: impl Into<Bytes>) -> Response<Bytes> {
        let request = request
            .body(BufferedBody::from(body.into()))
            .expect("the request is well-formed");
        let response = Oneshot::new(self.0.clone(), request)
            .await
            .expect("the service answers");
        let (parts, body) = response.into_parts();
        let mut body = std::pin::pin!(body);
        let mut collecting = BodyCollector::up_to(u64::MAX);
        while let Some(frame) =
            std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await
        {
            let frame = frame.expect("the response body is whole");
            collecting.push(frame).expect("there is no limit");
        }
        Response::from_parts(parts, collecting.finish().into_parts().0)
    }

    /// Sends a request that must be accepted.
    ///
    /// # Panics
    /// Panics unless the response is a 202 with a `Location`.
    pub async fn accepted(&self, request: Builder, body: impl Into<Bytes>) -> Polled<S> {
        let response = self.send(request, body).await;
        assert_eq!(
            response.status(),
            StatusCode::ACCEPTED,
            "{:?}",
            response.body()
        );
        let location = response.headers().get(header::LOCATION);
        let location = location.expect("a 202 has a Location").to_str();
        self.at(location.expect("a Location is a URL"))
    }

    /// Returns the operation at a URL. Only the path and the query of the URL are used, since
    /// the client has one service.
    ///
    /// # Panics
    /// Panics if `url` is not a URL.
    pub fn at(&self, url: impl AsRef<str>) -> Polled<S> {
        let uri: Uri = url.as_ref().parse().expect("a URL");
        let url = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        Polled {
            client: self.clone(),
            url: url.into(),
        }
    }
}

impl<S, C> Polled<S>
where
    S: Service<Request<BufferedBody>, Response = Response<C>> + Clone,
    S::Error: Debug,
    C: Body<Data = Bytes>,
    C::Error: Debug,
{
    /// Returns the path and query of the operation.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Polls the operation once.
    ///
    /// # Panics
    /// Panics unless the response is a success with an operation.
    pub async fn operation(&self) -> Operation<Value> {
        operation(
            &self
                .client
                .send(Request::get(&self.url), Bytes::new())
                .await,
        )
    }

    /// Polls the operation until it has ended. Polls send `Prefer: wait`. If a poll is not held,
    /// the next poll follows after `Retry-After`.
    ///
    /// # Panics
    /// Panics after 60 seconds of waiting, or if a response is not an operation.
    pub async fn finished(&self) -> Operation<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let asked = Instant::now();
            let request = Request::get(&self.url).header("prefer", "wait=10");
            let response = self.client.send(request, Bytes::new()).await;
            let operation = operation(&response);
            if operation.state().is_terminal() {
                return operation;
            }
            assert!(
                Instant::now() < until,
                "{} is still {}",
                self.url,
                operation.state()
            );
            if asked.elapsed() < Duration::from_secs(1) {
                sleep(retry_after(&response)).await;
            }
        }
    }

    /// Waits for the end of the operation and returns the response of its result resource.
    pub async fn result(&self) -> Response<Bytes> {
        self.finished().await;
        let (path, query) = self
            .url
            .split_at(self.url.find('?').unwrap_or(self.url.len()));
        self.client
            .send(Request::get(format!("{path}/result{query}")), Bytes::new())
            .await
    }

    /// Cancels the operation and returns the response.
    pub async fn cancel(&self) -> Response<Bytes> {
        self.client
            .send(Request::delete(&self.url), Bytes::new())
            .await
    }
}

fn operation(response: &Response<Bytes>) -> Operation<Value> {
    let body = response.body();
    assert!(
        response.status().is_success(),
        "{}: {body:?}",
        response.status()
    );
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("no operation ({error}): {body:?}"))
}

fn retry_after(response: &Response<Bytes>) -> Duration {
    let value = response.headers().get(header::RETRY_AFTER);
    let seconds = value.and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}
