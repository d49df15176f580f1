//! What holds for every process of ours: exit codes, and the bond between a job's process and its server.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use std::process::ExitCode;

/// Everything went well: the job has finished, or was stopped as asked.
pub(crate) const EXIT_OK: u8 = 0;
/// Something failed; the message says what.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line or the program was refused; nothing was started.
pub(crate) const EXIT_REFUSED: u8 = 2;
/// A job's process has lost its server.
pub(crate) const EXIT_ORPHANED: u8 = 3;
/// A second Ctrl-C or SIGTERM: ended at once, without a final checkpoint.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Says why a process ends, on standard error, and gives the code to end with.
pub(crate) fn fail(code: u8, message: impl std::fmt::Display) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(code)
}

/// Ends this process when `server` does: the kernel kills it, whatever it is doing.
///
/// # Errors
/// When the server is gone already, or the kernel has no such service.
pub(crate) fn die_with(server: Pid) -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("cannot ask for a parent-death signal: {error}"))?;
    // It may have died before the kernel was asked; then nobody will send the signal.
    if getppid() == server {
        return Ok(());
    }
    Err(format!(
        "the server (process {server}) that started this worker is gone"
    ))
}

/// Asks for the end of the process, by Ctrl-C or by SIGTERM.
pub(crate) struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Begins to listen; from here on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one. Safe to cancel.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
