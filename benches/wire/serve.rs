//! One contender as a server: this program as a child process.

use std::{convert::Infallible, future::Future, io::Read};

use axum::serve::ListenerExt;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower::BoxError;

use super::{contender::Contender, hand, limit, ours, workload::Workload};

/// Serves until the input closes, at the latest with the end of the parent process.
pub(crate) fn serve(names: &[String]) {
    let [contender, workload] = names else {
        panic!("serve CONTENDER WORKLOAD");
    };
    let (contender, workload) = (
        Contender::from_name(contender),
        Workload::from_name(workload),
    );
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match contender {
            Contender::Limit => limit::limit(workload).await,
            Contender::Floor => limit::floor(workload).await,
            Contender::Ours => ours::serve(workload).await,
            Contender::InAxum => ours::serve_in_axum(workload).await,
            Contender::Hand => hand::serve::<serde_json::Value>(workload).await,
            Contender::Careful => hand::serve::<Box<serde_json::value::RawValue>>(workload).await,
        }
    });
}

/// Listens on a free port, and prints the port.
async fn listen() -> TcpListener {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    listener
}

/// Serves a service on hyper alone.
pub(crate) async fn on_hyper<S, F, B>(service: S)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let listener = listen().await;
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("no delay");
        let service = service_fn(service.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A client that disconnects is not an error.
        tokio::spawn(async move { drop(connection.await) });
    }
}

/// Serves a router by the server of axum.
pub(crate) async fn in_axum(app: axum::Router) {
    let listener = listen().await.tap_io(|stream| {
        stream.set_nodelay(true).expect("no delay");
    });
    axum::serve(listener, app).await.expect("the server runs");
}
