use std::{
    fmt,
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes};
use http::{
    HeaderValue, Method, Request, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::timeout_at;
use tower_operations::{BoxError, engine::wall_clock};
use tower_service::Service;

use crate::{
    AttemptOutcome, EventBody, FailureReason, Secrets, Target, TargetError, WebhookId,
    header_names::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP},
    retry_after::retry_after,
    timeouts::after,
    unix_seconds,
};

/// The time-out of an attempt, as Standard Webhooks 1.0.0 recommends it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The number of bytes of an answer that are read. An answer that is read to its end leaves the
/// connection for the next request.
const MAX_ANSWER: usize = 4 * 1024;

const DEFAULT_USER_AGENT: &str = concat!("tower-operations-webhooks/", env!("CARGO_PKG_VERSION"));

/// One attempt to deliver a webhook: one signed POST.
///
/// The client is any [`Service`] of requests: `WebhookClient`, or another one. Another client must not
/// follow redirects, and has to apply [`TargetPolicy::admits`](crate::TargetPolicy::admits) to the
/// addresses to which it connects.
///
/// The request has the fields `webhook-id`, `webhook-timestamp`, `webhook-signature`, `Content-Type` and
/// `User-Agent`. The answer decides the [`AttemptOutcome`]. Its body is ignored, and read until 4 KiB of
/// it have come.
#[derive(Clone)]
pub struct Attempt {
    id: WebhookId,
    target: Target,
    body: EventBody,
    secrets: Secrets,
    timeout: Duration,
    user_agent: HeaderValue,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Attempt {
    /// Creates an attempt. The id is the same for each attempt to deliver the same webhook.
    #[must_use]
    pub fn new(id: WebhookId, target: Target, body: EventBody, secrets: Secrets) -> Self {
        Self {
            id,
            target,
            body,
            secrets,
            timeout: TIMEOUT,
            user_agent: HeaderValue::from_static(DEFAULT_USER_AGENT),
            clock: Arc::new(wall_clock),
        }
    }

    /// Sets the time-out of the whole exchange, from connecting to the end of the answer, 15 seconds by
    /// default.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets the field `User-Agent`, `tower-operations-webhooks/` and the version by default.
    #[must_use]
    pub fn user_agent(self, user_agent: HeaderValue) -> Self {
        Self { user_agent, ..self }
    }

    /// Sets the wall clock, for tests. It tells the timestamp, and the delay of a `Retry-After` that is a
    /// date.
    #[must_use]
    pub fn clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            ..self
        }
    }

    /// Sends the webhook. The client is driven to readiness first, within the time-out.
    pub async fn send<S, B>(self, mut client: S) -> AttemptOutcome
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
        B: Body,
    {
        let deadline = after(self.timeout);
        let exchange = async {
            poll_fn(|context| client.poll_ready(context)).await?;
            client.call(self.request()).await
        };
        let response = match timeout_at(deadline, exchange).await {
            Err(_) => return AttemptOutcome::without_answer(FailureReason::Timeout),
            Ok(Err(error)) => return AttemptOutcome::without_answer(reason(&*error.into())),
            Ok(Ok(response)) => response,
        };
        let (head, body) = response.into_parts();
        // The status is the answer. A body that is too long, late or broken changes nothing.
        let _ = timeout_at(deadline, read(body)).await;
        let retry_after = retry_after(&head.headers, (self.clock)());
        AttemptOutcome::of_status(head.status, retry_after)
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let now = (self.clock)();
        let body = self.body.bytes();
        let id = HeaderValue::from_str(self.id.as_str());
        let id = id.expect("an id consists of visible characters");
        let signature = HeaderValue::try_from(self.secrets.sign(&self.id, now, body));
        let signature = signature.expect("a signature is Base64");

        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.uri().clone();
        request.headers_mut().extend([
            (CONTENT_TYPE, self.body.content_type().clone()),
            // hyper leaves it out if the body is empty.
            (CONTENT_LENGTH, body.len().into()),
            (USER_AGENT, self.user_agent.clone()),
            (WEBHOOK_ID, id),
            (WEBHOOK_TIMESTAMP, unix_seconds(now).into()),
            (WEBHOOK_SIGNATURE, signature),
        ]);
        request
    }
}

/// Reads an answer up to its bound.
async fn read(body: impl Body) {
    let mut body = pin!(body);
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Buf::remaining);
        if length > MAX_ANSWER {
            return;
        }
    }
}

/// Returns the reason that is in an error or one of its sources.
fn reason(error: &(dyn std::error::Error + 'static)) -> FailureReason {
    let mut source = Some(error);
    while let Some(error) = source {
        #[cfg(feature = "client")]
        if let Some(error) = error.downcast_ref::<crate::ClientError>() {
            return error.reason();
        }
        if error.is::<TargetError>() {
            return FailureReason::Refused;
        }
        // The source of an I/O error is that of the error inside, which is left out itself.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        source = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    FailureReason::Exchange
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("target", &self.target)
            .field("secrets", &self.secrets)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
