//! `tidemill bench`.

use crate::bench::nexmark::{self, NexmarkOptions, Query};
use crate::bench::{self, BenchOptions, Part, Protocol};
use crate::process::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUSED, StopSignals, fail, say};
use crate::rust_job::{parse_duration, parse_parallelism};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Measure the shard store on this machine and disk.
    Shards(ShardsArguments),
    /// Run a query of the auction benchmark Nexmark as a job.
    Nexmark(NexmarkArguments),
}

/// Events per second of event time, unless told otherwise: the density that published figures call V1.
const EVENT_RATE_DEFAULT: u64 = 10_000_000;

/// The arguments of `nexmark`.
#[derive(Debug, Args)]
#[command(
    after_help = "Use a release build on a machine where nothing else runs. Figures count the generator, too.

Examples:
  tidemill bench nexmark --list                                 what the queries ask
  tidemill bench nexmark --query q0 --events 20000000 --parallelism 2
  tidemill bench nexmark --query q7-part --event-rate 100000 --json
  tidemill bench nexmark --generator-only                       the generator's share
  tidemill bench nexmark --query q5-part --events-per-second 100000 --events 6000000     how long results take
  tidemill bench nexmark --query q2 --show-sql > q2.sql         to run it with tidemill run"
)]
pub(super) struct NexmarkArguments {
    /// The query, such as q0.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["list", "generator_only"], conflicts_with_all = ["list", "generator_only"])]
    query: Option<String>,
    /// List the queries and what they ask; one that the planner refuses says why.
    #[arg(long, conflicts_with = "generator_only")]
    list: bool,
    /// Make every column of every event, and do nothing with them.
    #[arg(long)]
    generator_only: bool,
    /// Print the query's SQL text instead of running it; files are written below --dir.
    #[arg(long, requires = "query")]
    show_sql: bool,
    /// Events to make.
    #[arg(long, value_name = "N", default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    events: u64,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_parallelism)]
    parallelism: usize,
    /// Events per second of event time [default: 10000000, or that of --events-per-second].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    event_rate: Option<u64>,
    /// Events per second of the wall clock: measures how long results of windows take. Event time runs as fast,
    /// or, with --event-rate, faster or slower.
    #[arg(long, value_name = "N", conflicts_with = "generator_only", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    events_per_second: Option<u64>,
    /// What the events are made from: the same seed, the same events.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Time between checkpoints to the local disk.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    checkpoint_interval: Duration,
    /// Take no checkpoints, except the last one at the end.
    #[arg(long, conflicts_with = "checkpoint_interval")]
    no_checkpoints: bool,
    /// Where checkpoints and files are written [default: the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
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
    /// Records of one put of appends; can be repeated.
    #[arg(long, value_name = "N", default_values_t = [1, 128], value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=500))]
    request_records: Vec<u32>,
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
    match command {
        BenchCommand::Shards(arguments) => {
            let json = arguments.json;
            match arguments.into_options() {
                Ok(options) => measure(bench::run(&options), |report| print(&report, json)),
                Err(message) => fail(EXIT_REFUSED, message),
            }
        }
        BenchCommand::Nexmark(arguments) => nexmark(arguments),
    }
}

fn nexmark(arguments: NexmarkArguments) -> ExitCode {
    let (json, is_list, shows_sql) = (arguments.json, arguments.list, arguments.show_sql);
    let options = match arguments.into_options() {
        Ok(options) => options,
        Err(message) => return fail(EXIT_REFUSED, message),
    };
    let said = if is_list {
        let listed = nexmark::list(&options);
        say(if json {
            serde_json::to_string(&listed).unwrap_or_default()
        } else {
            let line = |listed: &nexmark::Listed| match &listed.reason {
                None => format!("{:<9} {}", listed.query, listed.asks),
                Some(reason) => format!("{:<9} {} REFUSED: {reason}", listed.query, listed.asks),
            };
            listed.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    } else if let (true, Some(query)) = (shows_sql, options.query) {
        let directory = options.directory.clone().unwrap_or_else(std::env::temp_dir);
        say(query.sql(&options, &directory).trim_end())
    } else {
        return measure(nexmark::run(&options), |report| {
            say(match serde_json::to_string(&report) {
                Ok(text) if json => text,
                _ => report.text(),
            })
        });
    };
    match said {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(message) => fail(EXIT_FAILED, message),
    }
}

/// Waits for a measurement, or for Ctrl-C, and prints its report.
fn measure<R>(
    measurement: impl Future<Output = anyhow::Result<R>>,
    print: impl FnOnce(R) -> Result<(), String>,
) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, format!("cannot start: {error}")),
    };
    let result = runtime.block_on(async {
        let mut signals = StopSignals::listen()?;
        tokio::select! {
            result = measurement => result.map(Some),
            () = signals.next() => Ok(None),
        }
    });
    match result {
        Ok(Some(report)) => match print(report) {
            Ok(()) => ExitCode::from(EXIT_OK),
            Err(message) => fail(EXIT_FAILED, message),
        },
        Ok(None) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => fail(EXIT_FAILED, format!("{error:#}")),
    }
}

fn print(report: &bench::Report, json: bool) -> Result<(), String> {
    say(match serde_json::to_string(report) {
        Ok(text) if json => text,
        _ => report.text(),
    })
}

impl NexmarkArguments {
    fn into_options(self) -> Result<NexmarkOptions, String> {
        if self.checkpoint_interval.is_zero() {
            return Err("--checkpoint-interval must be above 0; --no-checkpoints takes none".into());
        }
        check_directory(self.dir.as_deref())?;
        Ok(NexmarkOptions {
            query: self.query.as_deref().map(Query::find).transpose()?,
            events: self.events,
            parallelism: self.parallelism,
            event_rate: self.event_rate.or(self.events_per_second).unwrap_or(EVENT_RATE_DEFAULT),
            events_per_second: self.events_per_second,
            seed: self.seed,
            checkpoints: (!self.no_checkpoints).then_some(self.checkpoint_interval),
            directory: self.dir,
        })
    }
}

fn check_directory(directory: Option<&Path>) -> Result<(), String> {
    match directory.filter(|directory| !directory.is_dir()) {
        Some(directory) => Err(format!("--dir {} is no directory; make it first", directory.display())),
        None => Ok(()),
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
        check_directory(self.dir.as_deref())?;
        Ok(BenchOptions {
            parts,
            directory: self.dir,
            duration: self.duration,
            rounds: self.rounds as usize,
            in_flight: self.in_flight.into_iter().map(|count| count as usize).collect(),
            request_records: self.request_records.into_iter().map(|count| count as usize).collect(),
            shards: self.shards,
            rates: self.rates,
            connections: self.connections as usize,
            protocols: self.protocols,
            server: self.server.map(|url| (url, self.server_pid)),
            many: self.many,
        })
    }
}
