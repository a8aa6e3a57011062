//! A private PostgreSQL on a free port and in a temporary folder.

use std::{
    fs,
    future::ready,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::private::{Folder, Process, free_port, program, signal};

/// A private PostgreSQL with one database, which trusts every client and is removed when dropped.
#[derive(Debug)]
pub struct Postgres {
    // Fields are dropped in order, so the server ends before its folder is removed.
    server: Option<Process>,
    folder: Folder,
    port: u16,
    user: Option<User>,
    settings: Vec<String>,
}

/// The user of PostgreSQL if the tests run as root, which PostgreSQL refuses.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

fn mentions_the_previous_server(line: &str) -> bool {
    line.contains("pre-existing shared memory block")
}

impl Postgres {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with settings, each as `name=value`.
    pub async fn with(settings: &[&str]) -> Self {
        let folder = Folder::new("postgres");
        let user = User::instead_of_root(folder.path());
        let mut this = Self {
            server: None,
            folder,
            port: free_port(),
            user,
            settings: settings.iter().map(ToString::to_string).collect(),
        };
        this.initialise().await;
        for _ in 0..5 {
            match this.try_run().await {
                Ok(()) => return this,
                // Another process has bound the port.
                Err(log) if log.contains("could not bind") => this.port = free_port(),
                Err(log) => panic!("PostgreSQL does not start: {log}"),
            }
        }
        panic!("no port for PostgreSQL");
    }

    /// Returns the URL, `postgres://…`, which is the same after a restart.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server is running").pid()
    }

    /// Starts the server again after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub async fn run(&mut self) {
        assert!(self.server.is_none(), "the server is running");
        for _ in 0..500 {
            match self.try_run().await {
                Ok(()) => return,
                // Killed processes of the previous server have not exited yet.
                Err(log) if log.lines().rev().take(3).any(mentions_the_previous_server) => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                Err(log) => panic!("PostgreSQL does not start: {log}"),
            }
        }
        panic!("the killed processes of PostgreSQL never exit");
    }

    /// Shuts the server down and closes its connections.
    pub async fn stop(&mut self) {
        let server = self.server.take().expect("the server is running");
        server.end("INT").await;
    }

    /// Stops the server at once, so that its next start is a recovery.
    pub async fn stop_immediately(&mut self) {
        let server = self.server.take().expect("the server is running");
        server.end("QUIT").await;
    }

    /// Kills each process of the server, so that unwritten data is lost.
    pub async fn kill(&mut self) {
        let server = self.server.take().expect("the server is running");
        // A suspended postmaster does not notice the death of its children.
        signal(server.pid(), "STOP");
        for child in children(server.pid()) {
            signal(child, "KILL");
        }
        server.end("KILL").await;
    }

    /// Stops and starts the server.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    async fn initialise(&self) {
        let mut command = self.command("initdb");
        command
            .args(["-A", "trust", "-U", "postgres", "--locale=C.UTF-8"])
            .args(["-E", "UTF8", "--no-sync", "-D"])
            .arg(self.data());
        let output = command.output().await.expect("initdb can be started");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb: {errors}");
    }

    async fn try_run(&mut self) -> Result<(), String> {
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(self.folder.path())
            .args(["-c", "listen_addresses=127.0.0.1"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let file = self.data().join("postmaster.pid");
        let is_ready = |pid| ready(is_ready(&file, pid));
        let log = self.folder.join("log");
        self.server = Some(Process::start(command, "QUIT", &log, is_ready).await?);
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.current_dir(self.folder.path());
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl User {
    /// Returns the user `postgres` and gives it the folder; `None` unless the tests run as root.
    fn instead_of_root(folder: &Path) -> Option<Self> {
        if fs::metadata(folder).unwrap().uid() != 0 {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let user = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let is_postgres = fields.next() == Some("postgres");
            let mut number = |skip| fields.nth(skip).and_then(|field| field.parse().ok());
            is_postgres.then_some(Self {
                uid: number(1)?,
                gid: number(0)?,
            })
        });
        let user = user.expect("a user `postgres`: install the Debian package `postgresql`");
        chown(folder, Some(user.uid), Some(user.gid)).unwrap();
        Some(user)
    }
}

/// Returns a program of the newest installed version.
fn binary(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<_> = versions.map(|entry| entry.unwrap().path()).collect();
    let number = |path: &PathBuf| -> u32 {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    versions.sort_by_key(number);
    let folders = versions.iter().rev();
    program(
        folders.map(|folder| folder.join("bin").join(name)),
        "postgresql",
    )
}

/// Returns whether a postmaster is ready. Its file for `pg_ctl` has the process id in the
/// first line and the status in the eighth.
fn is_ready(file: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    lines.next() == Some(&*pid.to_string()) && lines.nth(6) == Some("ready")
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        // `pid (name) state parent …`, and a name may have blanks.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest);
        let field = rest.and_then(|rest| rest.split_ascii_whitespace().nth(1));
        field == Some(&*parent.to_string())
    })
    .collect()
}
