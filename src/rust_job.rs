//! Runs a Rust job: alone, or as a worker of a server.

use crate::environment::JobEnvironment;
use crate::jobs::protocol::message::IntervalWish;
use crate::logging::{self, LogFormat};
use crate::planning::Planner;
use crate::process::{EXIT_REFUSED, fail};
use crate::settings::PARALLELISM_MAX;
use crate::standalone::{self, Standalone};
use crate::worker::{self, WorkerArguments};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tidemill_engine::graph::JobGraph;

/// Any error of a job's own code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Builds a job's graph.
pub(crate) type BuildJob = Box<dyn FnOnce(&JobEnvironment) -> Result<JobGraph, BoxError> + Send>;

const USAGE: &str = "\
usage: JOB [OPTIONS] [-- ARGUMENTS OF THE JOB'S OWN]

Runs the job alone, with everything embedded. Ctrl-C stops it after a final checkpoint; started again, it continues there.
Under a server, submit this binary with POST /v1/jobs and \"executable\".

options:
  --data-dir DIR               where streams and checkpoints are kept [default: tidemill-data]
  --name NAME                  the job's name, under which its checkpoints are kept [default: the binary's name]
  --parallelism N              worker threads [default: 1]
  --checkpoint-interval TIME   time between checkpoints, like 10s, 500ms or 2m; none for none [default: 10s]
  --checkpoint-url URL         where checkpoints are kept [default: the data directory]
  --restore POINT              start from savepoint/NAME, checkpoint/NUMBER, or either of JOB/..., not from the newest
  --allow-non-restored-state   start although the checkpoint holds state of operators that the job no longer has
  --log-format text|json       [default: text]
  --log-level LEVEL            a filter as in RUST_LOG [default: info]
  --help                       this text
";

/// Runs a Rust job, as the whole of a binary's `main`; `build` makes the job's graph.
///
/// The command line decides how: with the options that `--help` lists the job runs alone; a server that was asked to run
/// the binary starts it as its worker. `build` is called once per process. It must make the same graph, with the same
/// uids, each time, because checkpoints are restored into it; on a change of the job, keep the uids of what did not change.
///
/// The exit code is 0 when the job has finished or was stopped by Ctrl-C or SIGTERM, 1 when it failed, 2 when the command
/// line or the graph is not valid, 130 after a second Ctrl-C.
pub fn run_job<F>(build: F) -> ExitCode
where
    F: FnOnce(&JobEnvironment) -> Result<JobGraph, BoxError> + Send + 'static,
{
    run_planner(Planner::Rust(Box::new(build)))
}

/// Runs what a planner makes, as the command line says.
pub(crate) fn run_planner(planner: Planner) -> ExitCode {
    match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Alone(options)) => {
            if let Err(message) = logging::start(options.log_format, options.log_level.as_deref(), "info") {
                return fail(EXIT_REFUSED, message);
            }
            standalone::run(options.standalone, planner, options.arguments)
        }
        Ok(Command::Worker(arguments)) => worker::run(arguments, planner),
        Ok(Command::Help) => {
            use std::io::Write as _;
            let _ = std::io::stdout().write_all(USAGE.as_bytes());
            ExitCode::SUCCESS
        }
        Err(message) => fail(EXIT_REFUSED, format!("{message}; --help lists the options")),
    }
}

enum Command {
    Alone(Box<Alone>),
    Worker(WorkerArguments),
    Help,
}

struct Alone {
    standalone: Standalone,
    arguments: Vec<String>,
    log_format: LogFormat,
    log_level: Option<String>,
}

impl Command {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut text = Vec::new();
        for argument in arguments {
            text.push(
                argument
                    .into_string()
                    .map_err(|argument| format!("{argument:?} is not UTF-8"))?,
            );
        }
        if text.first().is_some_and(|first| first == worker::COMMAND) {
            return WorkerArguments::parse(&text[1..]).map(Self::Worker);
        }
        let mut alone = Alone {
            standalone: Standalone::new(default_name(), "the job".into()),
            arguments: Vec::new(),
            log_format: LogFormat::default(),
            log_level: None,
        };
        let mut rest = text.into_iter();
        while let Some(argument) = rest.next() {
            let (option, inline) = match argument.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| rest.next())
                    .ok_or_else(|| format!("{option} needs a value"))
            };
            let job = &mut alone.standalone;
            match option.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--data-dir" => job.data_directory = PathBuf::from(value()?),
                "--name" => job.name = Some(value()?),
                "--parallelism" => job.parallelism = Some(parse_parallelism(&value()?)?),
                "--checkpoint-interval" => job.checkpoint_interval = parse_interval(&value()?)?,
                "--checkpoint-url" => job.checkpoint_url = Some(value()?),
                "--restore" => job.restore = Some(value()?),
                "--allow-non-restored-state" if inline.is_none() => job.allow_non_restored_state = true,
                "--log-format" => alone.log_format = value()?.parse()?,
                "--log-level" => alone.log_level = Some(value()?),
                "--" if inline.is_none() => {
                    alone.arguments = rest.collect();
                    break;
                }
                _ => return Err(format!("there is no option {option}")),
            }
        }
        Ok(Self::Alone(Box::new(alone)))
    }
}

fn default_name() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    let stem = program
        .as_deref()
        .and_then(|path| path.file_stem())
        .map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or_else(|| "job".into())
}

/// Reads a number of worker threads.
pub(crate) fn parse_parallelism(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(parallelism) if (1..=PARALLELISM_MAX).contains(&parallelism) => Ok(parallelism),
        _ => Err(format!("{text:?} cannot be a parallelism; use 1 to {PARALLELISM_MAX}")),
    }
}

/// Reads a time between checkpoints like `10s`, `500ms`, `2m`, or `none`.
pub(crate) fn parse_interval(text: &str) -> Result<IntervalWish, String> {
    if text == "none" {
        return Ok(IntervalWish::Never);
    }
    parse_duration(text).map(|interval| IntervalWish::EveryMs(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)))
}

/// Reads a time like `10s`, `500ms`, `2m` or `1h`, above 0.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write a number above 0 and its unit, like 500ms, 10s, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit_ms)
        .filter(|&ms| ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        Command::parse(arguments.iter().map(OsString::from))
    }

    fn alone(arguments: &[&str]) -> Alone {
        match parse(arguments) {
            Ok(Command::Alone(alone)) => *alone,
            Ok(_) => panic!("not alone: {arguments:?}"),
            Err(message) => panic!("{message}"),
        }
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let parsed = alone(&[
            "--parallelism",
            "3",
            "--data-dir=/d",
            "--checkpoint-interval",
            "250ms",
            "--",
            "a",
            "--b",
        ]);
        assert_eq!(parsed.standalone.parallelism, Some(3));
        assert_eq!(parsed.standalone.data_directory, PathBuf::from("/d"));
        assert_eq!(parsed.standalone.checkpoint_interval, IntervalWish::EveryMs(250));
        assert_eq!(parsed.arguments, ["a", "--b"]);
        assert_eq!(
            alone(&["--checkpoint-interval=none"]).standalone.checkpoint_interval,
            IntervalWish::Never
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let cases = [
            (vec!["--paralelism", "2"], "there is no option --paralelism"),
            (vec!["--parallelism", "0"], "use 1 to 256"),
            (vec!["--parallelism"], "needs a value"),
            (vec!["--checkpoint-interval", "10"], "is no time"),
            (vec!["--checkpoint-interval", "0s"], "is no time"),
            (vec!["--log-format", "xml"], "use text or json"),
            (vec!["positional"], "there is no option positional"),
        ];
        for (arguments, expected) in cases {
            let error = parse(&arguments)
                .err()
                .unwrap_or_else(|| panic!("accepted {arguments:?}"));
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn a_server_starts_the_binary_as_its_worker() {
        let parsed = parse(&["worker", "--server-pid", "7", "--log-format", "json", "--", "x"]);
        let Ok(Command::Worker(worker)) = parsed else {
            panic!("not a worker")
        };
        assert_eq!(worker.job_arguments, ["x"]);
    }
}
