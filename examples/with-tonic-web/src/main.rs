//! One port for a gRPC service, the same service for browsers by gRPC-Web, slow HTTP
//! endpoints, and their operations. The accepting layer is around the whole application,
//! and leaves the gRPC and gRPC-Web calls as they are, streams included.
//!
//! The gRPC service is the standard one for health. The printer is not serving
//! while it prints.
//!
//! Run with
//!
//! ```not_rust
//! cargo run -p with-tonic-web -- 127.0.0.1:3000
//! ```
//!
//! (the address may be left out) and try, in two terminals,
//!
//! ```not_rust
//! grpcurl -plaintext -import-path DIR -proto health.proto \
//!     -d '{"service":"printer"}' 127.0.0.1:3000 grpc.health.v1.Health/Watch
//! curl -i 127.0.0.1:3000/prints -d 'three slow words'
//! ```
//!
//! (`health.proto` is in the crate tonic-health), and then
//!
//! ```not_rust
//! curl -i 127.0.0.1:3000/operations/ID
//! curl -i 127.0.0.1:3000/operations/ID/result
//! curl -i 127.0.0.1:3000/operations/                  all of them
//! printf '\0\0\0\0\11\12\7printer' | curl -iN 127.0.0.1:3000/grpc.health.v1.Health/Watch \
//!     -H 'content-type: application/grpc-web+proto' --data-binary @- -o -
//! ```

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::post};
use http::Extensions;
use tokio::{net::TcpListener, sync::Mutex, time::sleep};
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};
use tonic_web::GrpcWebLayer;
use tower_operations::{MemoryStore, OperationHandle, Operations};

const PRINTER: &str = "printer";
const PER_WORD: Duration = Duration::from_millis(300);

#[derive(Clone)]
struct Printer {
    health: HealthReporter,
    /// The printer prints one text at a time.
    busy: Arc<Mutex<()>>,
}

impl Printer {
    async fn set(&self, status: ServingStatus) {
        self.health.set_service_status(PRINTER, status).await;
    }
}

/// Prints slowly. If the operation is canceled, the handler stops early and reports that
/// the printer is free.
async fn print(State(printer): State<Printer>, extensions: Extensions, text: String) -> String {
    let canceled = OperationHandle::from_extensions(&extensions).cancellation();
    let words = text.split_whitespace().count();
    let _busy = printer.busy.lock().await;
    printer.set(ServingStatus::NotServing).await;
    for _ in 0..words {
        tokio::select! {
            () = sleep(PER_WORD) => {}
            () = canceled.cancelled() => break,
        }
    }
    printer.set(ServingStatus::Serving).await;
    format!("printed {words}\n")
}

async fn app() -> Router {
    let (reporter, health) = health_reporter();
    let printer = Printer {
        health: reporter,
        busy: Arc::default(),
    };
    printer.set(ServingStatus::Serving).await;
    // The gRPC-Web layer is around the gRPC service alone, since the layer refuses other
    // HTTP/1.1 requests. An unknown path is a 404, which gRPC clients read as unimplemented.
    let grpc = Routes::new(health)
        .into_axum_router()
        .reset_fallback()
        .route_layer(GrpcWebLayer::new());

    // Operations are lost when the process ends.
    let operations = Operations::new(MemoryStore::new());
    Router::new()
        .route("/prints", post(print))
        .with_state(printer)
        // Operations have no owners here, so every client may list, poll and cancel all of them.
        .nest_service("/operations", operations.poll_service().listing())
        .merge(grpc)
        // gRPC is recognized by its `Content-Type`, the operations by their path. The layer
        // is on the routes only, since a `POST` to an unknown path is a 404 and no
        // operation.
        .route_layer(operations.layer())
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app().await).await
}
