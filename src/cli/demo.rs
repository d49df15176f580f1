//! `tidemill demo`.

use super::LogArguments;
use crate::demo::{self, DemoOptions};
use crate::process::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, fail, say};
use crate::rust_job::parse_duration;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The command's arguments.
#[derive(Debug, Args)]
#[command(after_help = "The exit code is 0 only when a recount of the stored input agrees with both outputs.")]
pub(super) struct DemoArguments {
    /// How long clicks flow.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    duration: Duration,
    /// Clicks a second.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Keep the server until Ctrl-C, and the data directory.
    #[arg(long)]
    keep: bool,
    /// Where everything is kept; must be empty [default: a temporary directory, removed at the end].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print the summary as JSON, and nothing else.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: DemoArguments, log: &LogArguments) -> ExitCode {
    let json = arguments.json;
    let is_kept = arguments.keep;
    let options = DemoOptions {
        duration: arguments.duration,
        rate: arguments.rate,
        data_directory: arguments.data_dir,
        keep: arguments.keep,
        json,
        log_format: log.log_format,
        log_level: log.log_level.clone(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .thread_name("demo")
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, format!("cannot start: {error}")),
    };
    let result = runtime.block_on(demo::run(options));
    runtime.shutdown_background();
    match result {
        Ok(Some(summary)) => {
            if (json || !is_kept)
                && let Err(message) = print(&summary, json)
            {
                return fail(EXIT_FAILED, message);
            }
            ExitCode::from(if summary.is_good() { EXIT_OK } else { EXIT_FAILED })
        }
        Ok(None) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => fail(EXIT_FAILED, format!("{error:#}")),
    }
}

fn print(summary: &demo::Summary, json: bool) -> Result<(), String> {
    match serde_json::to_string(summary) {
        Ok(text) if json => say(text),
        _ => say(format_args!("\n{}", summary.text())),
    }
}
