//! Developer tasks: `cargo xtask --help`.
//!
//! | file | |
//! |---|---|
//! | `main.rs` | the commands |
//! | `step.rs` | runs a named step and tells its time |
//! | `boto3.rs` | the tests that speak to a real server with boto3 |
//! | `power_cut.rs` | power cuts on a real file system |
#![allow(clippy::print_stdout, reason = "what it prints is its result")]
#![allow(clippy::disallowed_methods, reason = "a developer's tool is all edge")]

mod boto3;
mod power_cut;
mod step;

use anyhow::{Context, Result, bail};
use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;
use step::{cargo, run, step};

const HELP: &str = "\
Developer tasks.

Usage: cargo xtask COMMAND [ARGUMENTS]

Commands:
  test           everything that must pass: formatting, lints, documentation, all tests, boto3 tests
  boto3          only the tests with boto3, the aws CLI and aws-kinesis-agg; ARGUMENTS go to pytest
  power-cut [--cycles N]
                 the shard store under power cuts on ext4 in a loop device, 40 unless N is given; needs root, and says
                 `skipped` and why where that is not possible
  bench          the benchmarks; ARGUMENTS go to `cargo bench`, for example a filter
  help, --help   this text

The target directory is CARGO_TARGET_DIR, or `target`. The boto3 tests need Python 3.10 or newer with its venv module, as `python3`, or
the program that PYTHON names.";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let begin = Instant::now();
    let result = match (command.as_str(), rest.as_slice()) {
        ("test", []) => test(),
        ("boto3", _) => boto3::run(&rest),
        ("power-cut", []) => power_cut::run(power_cut::CYCLES_DEFAULT),
        ("power-cut", [option, cycles]) if option == "--cycles" => match cycles.parse() {
            Ok(cycles) if cycles > 0 => power_cut::run(cycles),
            _ => usage(&format!("--cycles takes a number from 1, found {cycles:?}")),
        },
        ("power-cut", _) => usage("power-cut takes --cycles N and nothing else"),
        ("bench", _) => bench(&rest),
        ("help" | "--help" | "-h", []) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ("", _) => usage("a command is missing"),
        ("test" | "help" | "--help" | "-h", [extra, ..]) => {
            usage(&format!("{command} takes no arguments, found {extra:?}"))
        }
        _ => usage(&format!("there is no command {command:?}")),
    };
    match result {
        Ok(()) => {
            println!("\n{command}: passed in {:.1} s", begin.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nxtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> Result<()> {
    bail!("{problem}\n\n{HELP}")
}

/// Everything that must pass before a change is merged.
fn test() -> Result<()> {
    step("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
    step("lints", || {
        run(cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("documentation", || {
        run(cargo()
            .args(["doc", "--workspace", "--no-deps", "--locked"])
            .env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    // The end-to-end tests start these programs.
    step("programs", || {
        run(cargo().args([
            "build",
            "--locked",
            "--package",
            "tidemill",
            "--package",
            "example-keyed-count",
        ]))
    })?;
    if has_nextest() {
        step("tests", || {
            run(cargo().args(["nextest", "run", "--workspace", "--locked"]))
        })?;
    } else {
        // Not --all-targets: that would run the benchmarks.
        step("tests", || {
            run(cargo().args([
                "test",
                "--workspace",
                "--locked",
                "--lib",
                "--bins",
                "--tests",
                "--examples",
            ]))
        })?;
    }
    step("examples in documentation", || {
        run(cargo().args(["test", "--workspace", "--locked", "--doc"]))
    })?;
    boto3::run(&[])
}

fn bench(arguments: &[String]) -> Result<()> {
    step("benchmarks", || {
        run(cargo()
            .args(["bench", "--package", "tidemill-benches", "--benches", "--locked", "--"])
            .args(arguments))
    })
}

fn has_nextest() -> bool {
    let version = cargo().args(["nextest", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

/// Returns the root of the workspace: that which cargo runs in, for a target directory that two clones share may hold the
/// other's program.
fn root() -> Result<PathBuf> {
    let here = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    Ok(here.parent().context("xtask lies in the workspace")?.to_owned())
}

/// Returns the directory that cargo builds into.
fn target_directory() -> Result<PathBuf> {
    let root = root()?;
    Ok(env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |directory| root.join(directory)))
}

/// Returns the Python to make environments with.
fn python() -> Command {
    Command::new(env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
}
