//! A server as a child process, and what processes cost.

use anyhow::{Context as _, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(120);
/// Clock ticks a second in what Linux tells of a process: the same for all programs, whatever the kernel's own are.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server; dropping it kills it.
#[derive(Debug)]
pub(super) struct ChildServer {
    _child: Child,
    /// Where it listens.
    pub(super) url: String,
    /// Its process.
    pub(super) process: u32,
    /// From its start until it listens.
    pub(super) started_in: Duration,
}

impl ChildServer {
    /// Starts this program as a server on a directory.
    pub(super) async fn start(directory: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let started = Instant::now();
        let mut child = Command::new(&program)
            .arg("server")
            .arg("--data-dir")
            .arg(directory)
            .args(["--listen", "127.0.0.1:0", "--json", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("the server has no standard output")?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let read = tokio::time::timeout(START_MAX, stdout.read_line(&mut line)).await;
        let started_in = started.elapsed();
        let announced: Value = match read {
            Ok(Ok(_)) => serde_json::from_str(&line).unwrap_or_default(),
            _ => bail!("the server did not start within {} s", START_MAX.as_secs()),
        };
        let url = announced["url"].as_str().context("the server did not start")?;
        Ok(Self {
            url: url.to_owned(),
            process: child.id().context("the server has ended")?,
            _child: child,
            started_in,
        })
    }
}

/// CPU time of this process, user and system.
pub(super) fn own_cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// CPU time of a process of this machine, user and system; resolution 10 ms.
pub(super) fn cpu_of(process: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} is not as expected"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name stands in parentheses and may hold anything; behind it the 12th and 13th field are user and system time.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Resident memory, bytes.
    pub(super) memory_bytes: u64,
    /// Threads.
    pub(super) threads: u64,
}

/// Looks at a process of this machine.
pub(super) fn held_by(process: u32) -> anyhow::Result<Held> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    held(&status).with_context(|| format!("{path} is not as expected"))
}

fn held(status: &str) -> Option<Held> {
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Held {
        memory_bytes: number("VmRSS:")? * 1_024,
        threads: number("Threads:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_any_name_is_read() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t9\n";
        let expected = Held {
            memory_bytes: 2 << 20,
            threads: 9,
        };
        assert_eq!(held(status), Some(expected));
        assert_eq!(held("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let process = std::process::id();
        assert!(held_by(process).unwrap().memory_bytes > 0);
        assert!(cpu_of(process).is_ok() && own_cpu().is_ok());
    }
}
