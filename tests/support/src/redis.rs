//! A private Redis on a free port and in a temporary folder.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use super::private::{Folder, Process, free_port, on_path, program, signal};

/// A private Redis, which is removed when dropped. Each write is in the append-only file
/// before its answer is sent.
#[derive(Debug)]
pub struct Redis {
    // Fields are dropped in order, so the server ends before its folder is removed.
    server: Option<Process>,
    folder: Folder,
    port: u16,
    settings: Vec<String>,
}

impl Redis {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with settings, as on its command line: `&["--appendfsync", "everysec"]`.
    pub async fn with(settings: &[&str]) -> Self {
        let mut this = Self {
            server: None,
            folder: Folder::new("redis"),
            port: free_port(),
            settings: settings.iter().map(ToString::to_string).collect(),
        };
        for _ in 0..5 {
            match this.try_run().await {
                Ok(()) => return this,
                // Another process has bound the port.
                Err(log) if log.contains("in use") => this.port = free_port(),
                Err(log) => panic!("Redis does not start: {log}"),
            }
        }
        panic!("no port for Redis");
    }

    /// Returns the URL, `redis://…`, which is the same after a restart.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server is running").pid()
    }

    /// Starts the server again after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub async fn run(&mut self) {
        assert!(self.server.is_none(), "the server is running");
        let started = self.try_run().await;
        started.unwrap_or_else(|log| panic!("Redis does not start: {log}"));
    }

    /// Shuts the server down.
    pub async fn stop(&mut self) {
        let server = self.server.take().expect("the server is running");
        server.end("TERM").await;
    }

    pub async fn kill(&mut self) {
        let server = self.server.take().expect("the server is running");
        server.end("KILL").await;
    }

    /// Stops and starts the server.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    /// Suspends the server until [`resume`](Self::resume).
    pub fn pause(&self) {
        let server = self.server.as_ref().expect("the server is running");
        assert!(signal(server.pid(), "STOP"));
    }

    pub fn resume(&self) {
        let server = self.server.as_ref().expect("the server is running");
        assert!(signal(server.pid(), "CONT"));
    }

    async fn try_run(&mut self) -> Result<(), String> {
        let redis = on_path("redis-server").into_iter();
        let candidates = redis.chain(on_path("valkey-server"));
        let mut command = Command::new(program(candidates, "redis-server"));
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--dir"])
            .arg(self.folder.path())
            .args(&self.settings);
        let port = self.port;
        let is_ready = |pid| async move { serves(port, pid).await.unwrap_or(false) };
        let log = self.folder.join("log");
        self.server = Some(Process::start(command, "KILL", &log, is_ready).await?);
        Ok(())
    }
}

/// Returns whether the server on the port has this process id and has loaded its file.
async fn serves(port: u16, pid: u32) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"INFO\r\nQUIT\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let has_line = |line: &str| answer.lines().any(|found| found == line);
    Ok(has_line(&format!("process_id:{pid}")) && has_line("loading:0"))
}
