//! Servers as processes, which never outlive this one.

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

/// Starts everybody who takes part, and makes sure that each does what it claims.
pub(crate) fn start(workload: Workload, pinned: bool) -> Vec<Server> {
    let contenders = workload.contenders();
    // All are started before the first is waited for.
    let children: Vec<_> = contenders
        .into_iter()
        .map(|contender| (contender, Guard(Some(spawn(contender, workload, pinned)))))
        .collect();
    let servers: Vec<_> = children
        .into_iter()
        .map(|(contender, mut child)| {
            let port = child.port();
            let child = child.take();
            if pinned {
                cpu::pin(child.id(), cpu::SERVER).expect("as it was possible before");
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

/// Started, but not a server yet: killed if one of the others fails to start.
struct Guard(Option<Child>);

impl Guard {
    /// What it prints once it listens.
    fn port(&mut self) -> u16 {
        let child = self.0.as_mut().expect("it is here");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        output.read_line(&mut line).expect("readable");
        line.trim().parse().expect("the server did not start")
    }

    fn take(&mut self) -> Child {
        self.0.take().expect("it is here")
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
    // It is gone already, or goes now.
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(contender: Contender, workload: Workload, pinned: bool) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = match pinned {
        true => {
            let mut command = Command::new("taskset");
            // Not where this process is; until it has stored what it serves, anywhere.
            let cores = format!("{},{}", cpu::SERVER, cpu::CLIENT);
            command.args(["-c", &cores]).arg(program);
            command
        }
        false => Command::new(program),
    };
    command
        .args(["serve", contender.name(), workload.name()])
        // It ends when this closes: however this process ends.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command.spawn().expect("it can be started")
}

/// The largest difference in size that still is the same answer.
const SIZES: f64 = 0.35;

/// Everybody gives the status of the workload, and about as many bytes as we do.
fn check(servers: &[Server]) {
    let ask = |server: &Server| {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("it listens");
        Answer::to_one_request(stream, server.workload)
    };
    let ours = servers
        .iter()
        .find(|server| server.contender == Contender::Ours)
        .map(ask)
        .expect("we take part");
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
