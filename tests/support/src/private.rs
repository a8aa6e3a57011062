//! What the private servers of the tests have in common: a process in a
//! temporary folder, on a port of its own, that can be stopped and killed.

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

/// More than a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether a server is ready.
const PAUSE: Duration = Duration::from_millis(5);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A folder that is removed when this is dropped.
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

/// A port that nobody listens on. It is none that the system gives to outgoing
/// connections, so a server that is away for a moment finds it free again.
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

/// The first of these programs that is there.
pub fn program(candidates: impl IntoIterator<Item = PathBuf>, package: &str) -> PathBuf {
    let mut candidates = candidates.into_iter();
    candidates.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("this test needs a server of its own: install the Debian package `{package}`")
    })
}

/// Where a program may be, as the shell would look for it.
pub fn on_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/bin".into(), "/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).collect()
}

/// Sends a signal, for example `TERM`. False if there is no such process.
pub fn signal(pid: u32, signal: &str) -> bool {
    // The shell's own `kill`: not every machine has the program.
    let kill = process::Command::new("sh")
        .args(["-c", &format!("kill -{signal} {pid}")])
        .stderr(Stdio::null())
        .status();
    kill.expect("there is a shell").success()
}

/// A server that runs. It is ended when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    /// The signal by which it ends at once, in its own way.
    quit: &'static str,
}

impl Process {
    /// Starts a server, which writes to `log`, and waits until it is ready. The
    /// error is its log, if it ended instead.
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
        let pid = child.id().expect("it has just been started");
        let mut server = Self { child, pid, quit };
        let begun = Instant::now();
        while !is_ready(pid).await {
            let said = || fs::read_to_string(log).unwrap_or_default();
            if server.child.try_wait().unwrap().is_some() {
                return Err(said());
            }
            assert!(begun.elapsed() < PATIENCE, "not ready: {}", said());
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
