//! The server: a layer on hyper.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_operations::{BufferedBody, Operations, RecordedResponse, RequestBody, store::Lease};

/// Serves a layer over this store, and returns the port.
pub(crate) async fn serve<R>(store: R) -> u16
where
    R: Lease<Output = RecordedResponse>,
{
    let text = "p".repeat(1024 - 24);
    let body = Bytes::from(format!(r#"{{"title":"Q3","pages":"{text}"}}"#));
    let reports = tower::service_fn(move |_: Request<RequestBody<Incoming>>| {
        let mut response = Response::new(BufferedBody::from(body.clone()));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let reports = Operations::new(store).layer().layer(reports);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("no delay");
            let reports = reports.clone();
            let service = service_fn(move |request| reports.clone().oneshot(request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that disconnects is not an error.
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    port
}
