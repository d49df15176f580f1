//! `tidemill run`.

use super::store::StoreArguments;
use crate::jobs::protocol::message::IntervalWish;
use crate::object_tier;
use crate::planning::Planner;
use crate::process::{EXIT_REFUSED, fail};
use crate::rust_job::{parse_interval, parse_parallelism};
use crate::standalone::{self, Standalone};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The command's arguments.
#[derive(Debug, Args)]
#[command(after_help = "Ctrl-C stops the job after a final checkpoint; started again, it continues there.")]
pub(super) struct RunArguments {
    /// The SQL text; - reads standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where streams and checkpoints are kept.
    #[arg(long, value_name = "DIR", default_value = "tidemill-data")]
    data_dir: PathBuf,
    /// The job's name, under which its checkpoints are kept [default: as the text says, or the file's name].
    #[arg(long)]
    name: Option<String>,
    /// Worker threads [default: as the text says, or 1].
    #[arg(long, value_name = "N", value_parser = parse_parallelism)]
    parallelism: Option<usize>,
    /// Time between checkpoints, like 10s; none for only the final one [default: as the text says, or 10s].
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    checkpoint_interval: Option<IntervalWish>,
    /// Where checkpoints are kept: file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX [default:
    /// the data directory].
    #[arg(long, value_name = "URL")]
    checkpoint_url: Option<String>,
    /// Start from savepoint/NAME, checkpoint/NUMBER, or either of JOB/..., not from the newest checkpoint; or from
    /// nothing, that is afresh.
    #[arg(long, value_name = "POINT")]
    restore: Option<String>,
    /// Start although the checkpoint holds state of operators that the job no longer has.
    #[arg(long)]
    allow_non_restored_state: bool,
    /// Print the job's last status as JSON when it has ended.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArguments,
}

/// Runs the command.
pub(super) fn run(arguments: RunArguments) -> ExitCode {
    let sql = match read_text(&arguments.file) {
        Ok(sql) => sql,
        Err(message) => return fail(EXIT_REFUSED, message),
    };
    let tier_url = arguments.store.tier_url();
    let tier = match tier_url.as_deref().map(object_tier::open).transpose() {
        Ok(tier) => tier,
        Err(message) => return fail(EXIT_REFUSED, message),
    };
    let is_stdin = arguments.file == Path::new("-");
    let stem = if is_stdin {
        "job".into()
    } else {
        arguments.file.file_stem().unwrap_or_default().to_string_lossy()
    };
    let options = Standalone {
        name: arguments.name,
        name_default: stem.into_owned(),
        data_directory: arguments.data_dir,
        parallelism: arguments.parallelism,
        checkpoint_interval: arguments.checkpoint_interval.unwrap_or_default(),
        checkpoint_url: arguments.checkpoint_url,
        restore: arguments.restore,
        allow_non_restored_state: arguments.allow_non_restored_state,
        sql: Some(sql),
        source_name: arguments.file.display().to_string(),
        print_json: arguments.json,
        store: arguments.store.options(),
        tier,
    };
    standalone::run(options, Planner::Sql, Vec::new())
}

/// Reads a SQL text from a file, or from standard input when the file is `-`.
///
/// # Errors
/// Says which file cannot be read.
pub(super) fn read_text(file: &Path) -> Result<String, String> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| format!("cannot read {}: {error}", file.display()))
}
