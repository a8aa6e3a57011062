//! Examples, run as processes.

use std::{
    env,
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

/// The time-out of every wait.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running example, which is killed when dropped.
pub struct Example {
    child: Child,
    output: Option<Lines<BufReader<ChildStdout>>>,
    errors: JoinHandle<String>,
    url: String,
}

/// The exit of an example.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    /// The output after the first line that was waited for.
    pub output: String,
    pub errors: String,
}

impl Example {
    /// Starts an example and waits until the example prints its address. The error is the
    /// standard error of an example that exits instead.
    pub async fn start(name: &str, arguments: &[&str]) -> Result<Self, String> {
        Self::start_in(name, arguments, &[]).await
    }

    /// Starts an example with environment variables, as [`start`](Self::start) does.
    pub async fn start_in(
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        Self::start_until(name, arguments, environment, "listening on ").await
    }

    /// Starts an example and waits for a line that begins with `prefix`.
    pub async fn start_until(
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        prefix: &str,
    ) -> Result<Self, String> {
        let mut child = command(name)
            .args(arguments)
            .envs(environment.iter().copied())
            .spawn()
            .expect("the example can be started");
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = tokio::spawn(all(child.stderr.take().unwrap()));
        let url = loop {
            let line = timeout(PATIENCE, output.next_line()).await;
            match line.expect("the example prints the line").unwrap() {
                Some(line) => {
                    if let Some(url) = line.strip_prefix(prefix) {
                        break url.to_owned();
                    }
                }
                None => return Err(errors.await.unwrap()),
            }
        };
        Ok(Self {
            child,
            output: Some(output),
            errors,
            url,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the example is running")
    }

    /// Returns the address, as `http://ADDR`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the example prints `line`.
    pub async fn wait_for_line(&mut self, line: &str) {
        let lines = self.output.as_mut().expect("the output is open");
        let found = timeout(PATIENCE, async {
            while let Some(printed) = lines.next_line().await.unwrap() {
                if printed == line {
                    return true;
                }
            }
            false
        });
        assert!(
            found.await.expect("the example prints something"),
            "the example never prints {line:?}"
        );
    }

    /// Closes the output of the example.
    pub fn close_output(&mut self) {
        self.output = None;
    }

    /// Sends a signal, for example `TERM`.
    pub async fn signal(&self, signal: &str) {
        let pid = self.pid();
        // The shell's own `kill`: not every machine has the program.
        let kill = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {pid}")])
            .status();
        assert!(kill.await.unwrap().success(), "SIG{signal} to {pid}");
    }

    /// Waits until the example exits.
    pub async fn wait(mut self) -> Exit {
        let mut output = String::new();
        if let Some(lines) = &mut self.output {
            let read = timeout(PATIENCE, lines.get_mut().read_to_string(&mut output)).await;
            read.expect("the example exits").unwrap();
        }
        let status = timeout(PATIENCE, self.child.wait()).await;
        Exit {
            status: status.expect("the example exits").unwrap(),
            output,
            errors: self.errors.await.unwrap(),
        }
    }
}

/// Runs an example until it exits.
pub async fn run(name: &str, arguments: &[&str]) -> Output {
    let output = command(name).args(arguments).output();
    timeout(PATIENCE, output)
        .await
        .expect("the example exits")
        .unwrap()
}

fn command(name: &str) -> Command {
    let binary = binary(name);
    assert!(
        binary.exists(),
        "{} does not exist; build it with: cargo build -p {name}",
        binary.display()
    );
    let mut command = Command::new(binary);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Returns the path of a program, which Cargo puts beside the directory of the test.
fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    target.join(name).with_extension(env::consts::EXE_EXTENSION)
}

async fn all(mut reader: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let _ = reader.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
