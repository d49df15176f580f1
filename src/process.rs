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

/// Prints the result of a command on standard output. That nobody reads it, or no more of it (`tidemill job list | head -1`),
/// is the reader's choice and no failure.
///
/// # Errors
/// When it cannot be written for another reason, such as a full disk.
pub(crate) fn say(text: impl std::fmt::Display) -> Result<(), String> {
    say_to(&mut std::io::stdout().lock(), text)
}

fn say_to(out: &mut dyn std::io::Write, text: impl std::fmt::Display) -> Result<(), String> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("the result cannot be printed: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes the options that a message of REST or of the engine names as they are typed on a command line.
pub(crate) fn with_options_as_typed(message: &str) -> String {
    message
        .replace("\"allow_non_restored_state\"", "--allow-non-restored-state")
        .replace("allow_non_restored_state", "--allow-non-restored-state")
        .replace("the restore point \"nothing\"", "--restore nothing")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind, Write};

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(Error::from(self.0))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
        assert_eq!(say_to(&mut Fails(ErrorKind::BrokenPipe), "x"), Ok(()));
        assert!(
            say_to(&mut Fails(ErrorKind::StorageFull), "x")
                .unwrap_err()
                .contains("cannot be printed")
        );
        let mut out = Vec::new();
        say_to(&mut out, "x").unwrap();
        assert_eq!(out, b"x\n");
    }

    #[test]
    fn options_are_named_as_they_are_typed() {
        let told =
            "add \"allow_non_restored_state\", or start (allow_non_restored_state) with the restore point \"nothing\"";
        assert_eq!(
            with_options_as_typed(told),
            "add --allow-non-restored-state, or start (--allow-non-restored-state) with --restore nothing"
        );
    }
}
