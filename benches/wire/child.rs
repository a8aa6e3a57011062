//! Servers as processes, which end with the benchmark.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use super::{answer::Answer, client::Connections, contender::Contender, cpu, workload::Workload};

#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    port: u16,
    pub(crate) contender: Contender,
    pub(crate) workload: Workload,
    pub(crate) connections: Connections,
}

/// Starts all contenders of a workload, and checks their answers.
pub(crate) fn start(workload: Workload, pinned: bool) -> Vec<Server> {
    // All processes are started before the first one is awaited.
    let children: Vec<_> = Contender::ALL
        .into_iter()
        .map(|contender| (contender, Guard(Some(spawn(contender, workload, pinned)))))
        .collect();
    let servers: Vec<_> = children
        .into_iter()
        .map(|(contender, mut child)| {
            let port = child.port();
            let child = child.take();
            if pinned {
                cpu::pin(child.id(), cpu::SERVER).expect("pinning works, as it did before");
            }
            Server {
                child,
                port,
                contender,
                workload,
                connections: Connections::open(port, workload),
            }
        })
        .collect();
    check(&servers);
    servers
}

/// A process that is not listening yet. The process is killed if another one fails to start.
struct Guard(Option<Child>);

impl Guard {
    /// Reads the port that the process prints once it listens.
    fn port(&mut self) -> u16 {
        let child = self.0.as_mut().expect("the process is not taken");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        output.read_line(&mut line).expect("readable");
        line.trim().parse().expect("the server did not start")
    }

    fn take(&mut self) -> Child {
        self.0.take().expect("the process is not taken")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

impl Server {
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu::seconds(self.child.id())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // The process may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(contender: Contender, workload: Workload, pinned: bool) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = match pinned {
        true => {
            let mut command = Command::new("taskset");
            // The server may use both cores until its operations are stored.
            let cores = format!("{},{}", cpu::SERVER, cpu::CLIENT);
            command.args(["-c", &cores]).arg(program);
            command
        }
        false => Command::new(program),
    };
    command
        .args(["serve", contender.name(), workload.name()])
        // The server ends when its input closes, even if the benchmark is killed.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command.spawn().expect("the process can be started")
}

/// The largest allowed difference between the sizes of answers.
const SIZES: f64 = 0.35;

/// Asserts that each contender answers with the status of the workload, and with about as
/// many bytes as this crate.
fn check(servers: &[Server]) {
    let ask = |server: &Server| {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
        Answer::to_one_request(stream, server.workload)
    };
    let ours = servers
        .iter()
        .find(|server| server.contender == Contender::Ours)
        .map(ask)
        .expect("this crate takes part");
    for server in servers {
        let (name, answer) = (server.contender.name(), ask(server));
        assert_eq!(answer.status, server.workload.status(), "{name}");
        let differs = (answer.length as f64 / ours.length as f64 - 1.0).abs();
        assert!(
            differs < SIZES,
            "{name} answers {} bytes, we {}",
            answer.length,
            ours.length
        );
        if let Contender::Limit | Contender::Floor = server.contender {
            assert_eq!(answer.length, ours.length, "{name}");
            assert_eq!(answer.names, ours.names, "the headers of {name}");
        }
    }
}
