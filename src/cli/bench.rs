//! `tidemill bench`.

use crate::bench::{self, BenchOptions, Part, Protocol};
use crate::process::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUSED, StopSignals, fail};
use crate::rust_job::parse_duration;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Measure the shard store on this machine and disk.
    Shards(ShardsArguments),
}

/// The arguments of `shards`.
#[derive(Debug, Args)]
#[command(
    after_help = "Use a release build on a machine where nothing else runs. Appends of 5 seconds take some 2 GB in --dir,
which are freed after each round.

Examples:
  tidemill bench shards --dir /var/lib/tidemill                 everything, on that disk
  tidemill bench shards append --in-flight 4096 --rounds 5
  tidemill bench shards http --protocol cbor --rate 60000 --json
  tidemill bench shards http --server http://127.0.0.1:4566     a server that runs already"
)]
pub(super) struct ShardsArguments {
    /// What to measure [default: everything].
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// The directory whose disk is measured [default: the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long each measurement takes.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// How often appends are measured, in turns with a plain writer.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Records in flight of appends; can be repeated.
    #[arg(long, value_name = "N", default_values_t = [1_000, 4_096], value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: Vec<u32>,
    /// Shards of the stream that is written to.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    shards: u32,
    /// Records a second of the open loops over HTTP; can be repeated.
    #[arg(long = "rate", value_name = "N", default_values_t = [20_000, 40_000], value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    rates: Vec<u32>,
    /// Requests in flight of the closed loop over HTTP.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Encodings over HTTP; can be repeated.
    #[arg(long = "protocol", value_enum, value_name = "PROTOCOL", value_delimiter = ',', default_values = ["json", "cbor"])]
    protocols: Vec<Protocol>,
    /// Measure this server over HTTP, in a stream of its own, instead of one that is started for it.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// That server's process on this machine, whose CPU is measured.
    #[arg(long, value_name = "PID", requires = "server")]
    server_pid: Option<u32>,
    /// Shards of the large store.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    many: u32,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(command: BenchCommand) -> ExitCode {
    let BenchCommand::Shards(arguments) = command;
    let json = arguments.json;
    let options = match arguments.into_options() {
        Ok(options) => options,
        Err(message) => return fail(EXIT_REFUSED, message),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, format!("cannot start: {error}")),
    };
    let result = runtime.block_on(async {
        let mut signals = StopSignals::listen()?;
        tokio::select! {
            result = bench::run(&options) => result.map(Some),
            () = signals.next() => Ok(None),
        }
    });
    match result {
        Ok(Some(report)) => {
            print(&report, json);
            ExitCode::from(EXIT_OK)
        }
        Ok(None) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => fail(EXIT_FAILED, format!("{error:#}")),
    }
}

#[allow(clippy::print_stdout)] // the result of the command
fn print(report: &bench::Report, json: bool) {
    match serde_json::to_string(report) {
        Ok(text) if json => println!("{text}"),
        _ => println!("{}", report.text()),
    }
}

impl ShardsArguments {
    fn into_options(self) -> Result<BenchOptions, String> {
        let all = [Part::Append, Part::Read, Part::Tail, Part::Http, Part::Many];
        let parts = match (self.parts.is_empty(), self.server.is_some()) {
            (true, true) => vec![Part::Http],
            (true, false) => all.to_vec(),
            (false, true) if self.parts != [Part::Http] => {
                return Err("--server is measured over HTTP only; leave the other parts out".into());
            }
            (false, _) => self.parts,
        };
        if self.dir.as_ref().is_some_and(|dir| !dir.is_dir()) {
            return Err(format!(
                "--dir {} is no directory; make it first",
                self.dir.unwrap_or_default().display()
            ));
        }
        Ok(BenchOptions {
            parts,
            directory: self.dir,
            duration: self.duration,
            rounds: self.rounds as usize,
            in_flight: self.in_flight.into_iter().map(|count| count as usize).collect(),
            shards: self.shards,
            rates: self.rates,
            connections: self.connections as usize,
            protocols: self.protocols,
            server: self.server.map(|url| (url, self.server_pid)),
            many: self.many,
        })
    }
}
