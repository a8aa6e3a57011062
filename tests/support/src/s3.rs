//! A private server for S3 that others wrote, on a free port and in a temporary folder.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{net::TcpListener, runtime};

use super::private::Folder;

/// The name of the only bucket.
pub const BUCKET: &str = "reports";

const KEY_ID: &str = "TESTKEY";
const SECRET: &str = "test-secret";

/// A server with one bucket, which is removed when dropped. It has threads of its own.
#[derive(Debug)]
pub struct S3Server {
    runtime: Option<runtime::Runtime>,
    folder: Folder,
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl S3Server {
    #[must_use]
    pub fn start() -> Self {
        let folder = Folder::new("s3");
        fs::create_dir(folder.join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::default();
        runtime.spawn(serve(listener, service.build(), Arc::clone(&requests)));
        Self {
            runtime: Some(runtime),
            folder,
            endpoint,
            requests,
        }
    }

    /// Returns the address, as `http://ADDR`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the credentials as environment variables.
    pub fn environment(&self) -> [(&'static str, &'static str); 2] {
        [
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ]
    }

    /// Returns the settings of a client for the bucket.
    pub fn client(&self) -> AmazonS3Builder {
        // An error says that there is a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_access_key_id(KEY_ID)
            .with_secret_access_key(SECRET)
    }

    /// Returns the bucket.
    pub fn bucket(&self) -> Arc<AmazonS3> {
        Arc::new(self.client().build().unwrap())
    }

    /// Returns the method and the target of each request since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// Returns the files of multipart uploads that were neither completed nor aborted. The server
    /// has no call that lists such uploads.
    pub fn unfinished_uploads(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let is_unfinished = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.contains(".upload") || name.starts_with(".tmp")
        };
        files.filter(is_unfinished).collect()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    service: S3Service,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        let (service, requests) = (service.clone(), Arc::clone(&requests));
        let logged = service_fn(move |request: Request<Incoming>| {
            let line = format!("{} {}", request.method(), request.uri());
            requests.lock().unwrap().push(line);
            hyper::service::Service::call(&service, request)
        });
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            let _ = connection
                .serve_connection(TokioIo::new(socket), logged)
                .await;
        });
    }
}
