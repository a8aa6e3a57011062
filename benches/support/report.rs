//! The handler of the benchmarks, which answers with 1 KiB of JSON.

// Each benchmark uses a part of this module.
#![allow(dead_code)]

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use tower::{Service, service_fn};
use tower_operations::BufferedBody;

/// Returns 1 KiB of JSON.
pub(crate) fn report() -> Bytes {
    let pages = "p".repeat(1024 - 24);
    format!(r#"{{"title":"Q3","pages":"{pages}"}}"#).into()
}

/// Returns a JSON response with this body.
pub(crate) fn answer(body: Bytes) -> Response<BufferedBody> {
    let mut response = Response::new(BufferedBody::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns a service that answers each request with 1 KiB of JSON after `takes`.
pub(crate) fn work<B: Send + 'static>(
    takes: Duration,
) -> impl Service<Request<B>, Response = Response<BufferedBody>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let body = report();
    service_fn(move |_: Request<B>| {
        let response = answer(body.clone());
        async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            Ok(response)
        }
    })
}
