//! Runs a named step and tells its time.

use anyhow::{Context, Result, bail};
use std::env;
use std::process::Command;
use std::time::Instant;

/// Runs a step under a heading.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n=== {name}");
    let begin = Instant::now();
    let result = work().with_context(|| format!("step {name:?} failed"))?;
    println!("=== {name}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(result)
}

/// Runs a command to its end; one that fails is an error with the command in it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{command:?} cannot be started"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Returns the cargo that runs us, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if let Ok(root) = crate::root() {
        command.current_dir(root);
    }
    command
}
