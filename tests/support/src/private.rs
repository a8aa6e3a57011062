//! Common parts of the private servers: a process in a temporary folder and on a free port,
//! which can be stopped and killed.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{self, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// The time-out for the start and the end of a server.
const PATIENCE: Duration = Duration::from_secs(30);

/// The interval between two checks of a server.
const PAUSE: Duration = Duration::from_millis(5);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A temporary folder, which is removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let number = NUMBER.fetch_add(1, Relaxed);
        let own = format!("tower-operations-{name}-{}-{number}", process::id());
        let path = env::temp_dir().join(own);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A server that was killed may still be writing its last lines.
        for _ in 0..20 {
            if fs::remove_dir_all(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Returns a free port outside the range of outgoing connections, so that the port stays
/// free while its server restarts.
pub fn free_port() -> u16 {
    let seed = process::id().wrapping_mul(7919);
    for _ in 0..1000 {
        let number = NUMBER.fetch_add(1, Relaxed).wrapping_mul(31);
        let port = 20_000 + u16::try_from(seed.wrapping_add(number) % 12_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Returns the first of these programs that exists.
pub fn program(candidates: impl IntoIterator<Item = PathBuf>, package: &str) -> PathBuf {
    let mut candidates = candidates.into_iter();
    candidates.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("this test needs a server of its own: install the Debian package `{package}`")
    })
}

/// Returns the possible paths of a program, as the shell searches them.
pub fn on_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/bin".into(), "/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).collect()
}

/// Sends a signal, for example `TERM`. Returns false if the process does not exist.
pub fn signal(pid: u32, signal: &str) -> bool {
    // The shell's own `kill`: not every machine has the program.
    let kill = process::Command::new("sh")
        .args(["-c", &format!("kill -{signal} {pid}")])
        .stderr(Stdio::null())
        .status();
    kill.expect("there is a shell").success()
}

/// A running server, which is ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    /// The signal for an immediate shutdown.
    quit: &'static str,
}

impl Process {
    /// Starts a server that writes to `log`, and waits until the server is ready. The error is
    /// the log of a server that exits instead.
    pub async fn start<F: Future<Output = bool>>(
        mut command: Command,
        quit: &'static str,
        log: &Path,
        mut is_ready: impl FnMut(u32) -> F,
    ) -> Result<Self, String> {
        let open = fs::File::options().create(true).append(true).open(log);
        let output = open.unwrap();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let child = command.spawn().expect("the server can be started");
        let pid = child.id().expect("the process was just started");
        let mut server = Self { child, pid, quit };
        let begun = Instant::now();
        while !is_ready(pid).await {
            let read_log = || fs::read_to_string(log).unwrap_or_default();
            if server.child.try_wait().unwrap().is_some() {
                return Err(read_log());
            }
            assert!(begun.elapsed() < PATIENCE, "not ready: {}", read_log());
            sleep(PAUSE).await;
        }
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal and waits for the end.
    pub async fn end(mut self, with: &str) -> ExitStatus {
        signal(self.pid, with);
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the server ends").unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut has_ended = || !matches!(self.child.try_wait(), Ok(None));
        if has_ended() {
            return;
        }
        for with in [self.quit, "KILL"] {
            signal(self.pid, with);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(5) {
                if has_ended() {
                    return;
                }
                thread::sleep(PAUSE);
            }
        }
    }
}
