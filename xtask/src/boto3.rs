//! The tests that speak to a real server with boto3, the `aws` CLI and aws-kinesis-agg, in a virtual environment with pinned
//! versions.
//!
//! The environment lies in the target directory and is made anew when the requirements change.

use crate::step::{cargo, run as command, step};
use crate::{python, root, target_directory};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long the server may take until it answers, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Builds the binary, starts a server, and runs `tests/boto3` against it.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let tests = root()?.join("tests/boto3");
    let python = step("boto3: environment", || environment(&tests.join("requirements.txt")))?;
    step("boto3: build", || {
        command(cargo().args(["build", "--locked", "--bin", "tidemill"]))
    })?;
    step("boto3: tests", || {
        let directory = target_directory()?.join("boto3-data");
        remove(&directory)?;
        fs::create_dir_all(&directory)?;
        let mut server = Server::start(&directory)?;
        let result = server.wait_until_ready().and_then(|()| {
            command(
                Command::new(&python)
                    .args(["-B", "-m", "pytest", "-p", "no:cacheprovider"])
                    .arg(&tests)
                    .args(arguments)
                    .env("TIDEMILL_ENDPOINT", format!("http://{}", server.address)),
            )
        });
        let stopped = server.stop();
        result.and(stopped)?;
        remove(&directory)
    })
}

/// Makes sure that the virtual environment has exactly these requirements; returns its Python.
fn environment(requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements)
        .with_context(|| format!("{} cannot be read; it pins the packages", requirements.display()))?;
    let directory = target_directory()?.join("boto3-venv");
    let python_in = directory.join("bin/python");
    let stamp = directory.join("installed-requirements.txt");
    if python_in.exists() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("{} is up to date", directory.display());
        return Ok(python_in);
    }
    remove(&directory)?;
    command(python().args(["-m", "venv"]).arg(&directory)).context(
        "no virtual environment could be made; install Python 3 with its venv module, or name one in PYTHON",
    )?;
    command(
        Command::new(&python_in)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
            .arg(requirements),
    )?;
    fs::write(&stamp, wanted)?;
    Ok(python_in)
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", directory.display()))
        }
        _ => Ok(()),
    }
}

/// A server process; killed if it is not stopped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Path) -> Result<Self> {
        let binary = target_directory()?.join("debug/tidemill");
        let mut process = Command::new(&binary)
            .arg("server")
            .arg("--data-dir")
            .arg(directory)
            .args(["--listen", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        let mut said = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        match address_in(&said) {
            Some(address) => Ok(Self { process, address }),
            None => {
                let _ = process.kill();
                let status = process.wait()?;
                bail!("the server did not say where it listens, and ended with {status}")
            }
        }
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait()? {
                bail!("the server ended with {status} before it was ready");
            }
            if is_healthy(self.address).unwrap_or(false) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!(
            "the server did not answer http://{}/healthz within {PATIENCE:?}",
            self.address
        )
    }

    /// Asks the server to end, and checks that it does so well.
    fn stop(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the server ended by itself with {status}");
        }
        // The shell has it built in; the program of that name is not everywhere.
        command(Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &self.process.id().to_string()]))?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait()? {
                if !status.success() {
                    bail!("the server ended with {status} when it was told to stop");
                }
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("the server did not stop within {PATIENCE:?} after SIGTERM")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Does nothing to a process that has been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Finds the address in what a server prints once it listens: `{"url": "http://ADDRESS", ...}`.
fn address_in(said: &str) -> Option<SocketAddr> {
    let (_, behind) = said.split_once("http://")?;
    behind.split('"').next()?.parse().ok()
}

fn is_healthy(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.starts_with(b"HTTP/1.") && status.ends_with(b" 200"))
}
