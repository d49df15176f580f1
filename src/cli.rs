//! The `tidemill` command.
//!
//! Exit codes: 0 when all went well, 1 when something failed, 2 when the command line or a program was refused, 130 when a
//! second Ctrl-C cut the end short.
//!
//! File map: one file per command; `client` speaks REST for those that need a server, `kinesis` the Kinesis API; `table`
//! writes columns.

mod bench;
pub(crate) mod client;
mod demo;
mod job;
pub(crate) mod kinesis;
mod run;
mod server;
mod store;
mod stream;
mod table;

use crate::logging::{self, LogFormat};
use crate::planning::Planner;
use crate::process::{EXIT_REFUSED, fail};
use crate::worker::{self, WorkerArguments};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Durable shard streams and checkpointed stream-processing jobs, in one program.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 refused, 130 interrupted twice.")]
struct Cli {
    #[command(flatten)]
    log: LogArguments,
    #[command(subcommand)]
    command: Command,
}

/// How logs are written, on standard error.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogArguments {
    /// The form of log lines: text or json.
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
    /// Which log lines are written: error, warn, info, debug, trace, or a filter as in RUST_LOG, which counts otherwise.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a server: shard store, AWS APIs, REST and jobs on one port.
    Server(server::ServerArguments),
    /// Run one SQL job in the foreground, with everything embedded.
    Run(run::RunArguments),
    /// Submit jobs to a server and look after them.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Create streams, write to them, look at them.
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    /// Measure what this machine reaches.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Show it all at work: a stream, a job, a kill and a recount.
    Demo(demo::DemoArguments),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // A worker's command line is written by a server, not by a person.
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    if arguments.first().is_some_and(|first| first == worker::COMMAND) {
        return match WorkerArguments::parse(&arguments[1..]) {
            Ok(parsed) => worker::run(parsed, Planner::Sql),
            Err(message) => fail(EXIT_REFUSED, message),
        };
    }
    let cli = Cli::parse();
    let default_level = match &cli.command {
        Command::Server(_) | Command::Run(_) => "info",
        // The command's own output is what matters; logs would tear it apart.
        Command::Job(_) | Command::Stream(_) => "warn",
        Command::Bench(_) | Command::Demo(_) => "error",
    };
    if let Err(message) = logging::start(cli.log.log_format, cli.log.log_level.as_deref(), default_level) {
        return fail(EXIT_REFUSED, message);
    }
    match cli.command {
        Command::Server(arguments) => server::run(arguments, &cli.log),
        Command::Run(arguments) => run::run(arguments),
        Command::Job(command) => job::run(command),
        Command::Stream(command) => stream::run(command),
        Command::Bench(command) => bench::run(command),
        Command::Demo(arguments) => demo::run(arguments, &cli.log),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_commands_are_understood() {
        for line in [
            "tidemill server --data-dir d --listen 127.0.0.1:4566 --checkpoint-url s3://b/p --job-binaries x",
            "tidemill server --restart-delay-initial 500ms --restart-delay-max 2m --insecure-listen-anywhere --json",
            "tidemill run job.sql --data-dir d --parallelism 2 --checkpoint-interval 1s --json",
            "tidemill job submit job.sql --name a --parallelism 3 --server http://127.0.0.1:1 --json",
            "tidemill job submit --executable bin --name a -- x --y",
            "tidemill job list --json",
            "tidemill job show a",
            "tidemill job stop a --savepoint s",
            "tidemill job stop a --now",
            "tidemill job start a --restore savepoint/s",
            "tidemill job delete a --force",
            "tidemill job savepoint a s",
            "tidemill job savepoints a",
            "tidemill job checkpoint a",
            "tidemill stream create a --shards 2 --retention 7d --tag a=b --tag c=d --json",
            "tidemill stream create a --on-demand --server http://127.0.0.1:1",
            "tidemill stream list --long --json",
            "tidemill stream describe a --open",
            "tidemill stream put a --key k --rate 100 --unordered --progress 1s",
            "tidemill stream put a --key-field user.id --hash-key 7 --base64",
            "tidemill stream tail a --from 5m --shard 0 --shard shardId-000000000001 --key k -n 10 -f -v",
            "tidemill stream tail a --from trim-horizon --no-follow --raw",
            "tidemill stream split a 0 --at 7",
            "tidemill stream merge a 0 1 --json",
            "tidemill stream set a --shards 4 --retention 48h --mode on-demand --tag a=b --untag c",
            "tidemill stream delete a --yes --with-consumers",
            "tidemill bench shards",
            "tidemill bench shards append tail --dir d --for 1s --rounds 1 --in-flight 1,2 --json",
            "tidemill bench shards http --server http://127.0.0.1:1 --server-pid 7 --protocol cbor --rate 1000",
            "tidemill demo --for 60s --keep --data-dir d --rate 1000 --log-format json",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn a_misspelt_option_is_refused_with_the_right_one() {
        let error = Cli::try_parse_from(["tidemill", "server", "--data-dri", "d"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("--data-dri") && error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for line in [
            "tidemill run job.sql --parallelism 0",
            "tidemill run job.sql --checkpoint-interval soon",
            "tidemill run",
            "tidemill job submit --name a",
            "tidemill job submit job.sql --executable x --name a",
            "tidemill job stop a --now --savepoint s",
            "tidemill demo --for 0s",
            "tidemill stream create a --shards 0",
            "tidemill stream create a --shards 1 --on-demand",
            "tidemill stream create a --retention 1h",
            "tidemill stream put a --key k --key-field f",
            "tidemill stream put a --raw --base64",
            "tidemill stream tail a --json --raw",
            "tidemill stream tail a --follow --no-follow",
            "tidemill stream tail a --from yesterday",
            "tidemill stream split a 0 --at x",
            "tidemill stream set a",
            "tidemill bench shards everything",
            "tidemill bench shards --server-pid 7",
            "tidemill bench shards --in-flight 0",
            "tidemill server --listen nowhere",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
