//! Examples as processes of their own.

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

/// More than anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An example that is running. It is killed when this is dropped.
pub struct Example {
    child: Child,
    output: Option<Lines<BufReader<ChildStdout>>>,
    errors: JoinHandle<String>,
    url: String,
}

/// An example that has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// What it printed after it began to listen.
    pub output: String,
    pub errors: String,
}

impl Example {
    /// Starts an example and waits until it says where it listens. What it says
    /// on standard error is the error if it does not.
    pub async fn start(name: &str, arguments: &[&str]) -> Result<Self, String> {
        Self::start_in(name, arguments, &[]).await
    }

    /// The same, with these environment variables.
    pub async fn start_in(
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        Self::start_saying(name, arguments, environment, "listening on ").await
    }

    /// The same, where it has begun once a line begins so.
    pub async fn start_saying(
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        begun: &str,
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
            match line.expect("it says that it has begun").unwrap() {
                Some(line) => {
                    if let Some(url) = line.strip_prefix(begun) {
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
        self.child.id().expect("it is running")
    }

    /// Where it listens, as `http://ADDR`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until it prints this line.
    pub async fn says(&mut self, line: &str) {
        let lines = self.output.as_mut().expect("it is listened to");
        let said = timeout(PATIENCE, async {
            while let Some(said) = lines.next_line().await.unwrap() {
                if said == line {
                    return true;
                }
            }
            false
        });
        assert!(
            said.await.expect("it says something"),
            "it never says {line:?}"
        );
    }

    /// Reads no more of what it prints.
    pub fn hang_up(&mut self) {
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

    /// Waits until it has ended.
    pub async fn ended(mut self) -> Ended {
        let mut output = String::new();
        if let Some(lines) = &mut self.output {
            let read = timeout(PATIENCE, lines.get_mut().read_to_string(&mut output)).await;
            read.expect("it ends").unwrap();
        }
        let status = timeout(PATIENCE, self.child.wait()).await;
        Ended {
            status: status.expect("it ends").unwrap(),
            output,
            errors: self.errors.await.unwrap(),
        }
    }
}

/// Runs an example that is to end by itself.
pub async fn run(name: &str, arguments: &[&str]) -> Output {
    let output = command(name).args(arguments).output();
    timeout(PATIENCE, output).await.expect("it ends").unwrap()
}

fn command(name: &str) -> Command {
    let binary = binary(name);
    assert!(
        binary.exists(),
        "{} is not there; build it with: cargo build -p {name}",
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

/// Cargo puts programs beside the directory that this test is in.
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
