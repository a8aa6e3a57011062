//! The cores, and the CPU time of processes.

use std::process::{Command, Stdio, id};

pub(crate) const SERVER: usize = 0;
pub(crate) const CLIENT: usize = 1;

/// The unit of CPU time in `/proc`, in seconds.
const TICK: f64 = 0.01;

/// Returns the user and system time of a process in seconds.
pub(crate) fn seconds(pid: u32) -> f64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs on Linux");
    // The name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let ticks = rest.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|n| n.parse::<u64>().expect("a number")).sum();
    ticks as f64 * TICK
}

/// Pins this process and its future children to a core.
pub(crate) fn pin_this_process(core: usize) -> Result<(), String> {
    pin(id(), core)
}

/// Pins the main thread of a process to a core.
pub(crate) fn pin(pid: u32, core: usize) -> Result<(), String> {
    let taskset = Command::new("taskset")
        .args(["-cp", &core.to_string(), &pid.to_string()])
        .stdout(Stdio::null())
        .status();
    match taskset {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("there is no core {core} for it")),
        Err(_) => Err("there is no `taskset` (Debian package util-linux)".into()),
    }
}
