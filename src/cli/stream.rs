//! `tidemill stream`: streams for people, through the Kinesis API of a running server.
//!
//! It works against every Kinesis endpoint that does not check signatures.
//!
//! | file | |
//! |---|---|
//! | `lifecycle.rs` | create, set, delete |
//! | `show.rs` | list, describe |
//! | `reshard.rs` | split, merge |
//! | `put.rs`, `put/` | standard input to records |
//! | `tail.rs`, `tail/` | records to standard output, as they come |
//! | `failure.rs` | how a command fails |
//! | `values.rs` | times, tags and shard ids on the command line |

mod failure;
mod lifecycle;
mod put;
mod reshard;
mod show;
mod tail;
mod values;

use super::kinesis::KinesisClient;
use crate::process::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, StopSignals, fail};
use clap::{Args, Subcommand};
use failure::Failure;
use std::process::ExitCode;
use tokio::sync::watch;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum StreamCommand {
    /// Create a stream.
    Create(lifecycle::CreateArguments),
    /// List all streams.
    List(show::ListArguments),
    /// Show a stream and its shards.
    Describe(show::DescribeArguments),
    /// Put the lines of standard input into a stream.
    Put(put::PutArguments),
    /// Print the records of a stream as they come.
    Tail(tail::TailArguments),
    /// Split a shard in two.
    Split(reshard::SplitArguments),
    /// Merge two neighbouring shards.
    Merge(reshard::MergeArguments),
    /// Change a stream: its shards, retention, mode, tags.
    Set(lifecycle::SetArguments),
    /// Delete a stream and all its records.
    Delete(lifecycle::DeleteArguments),
}

/// Which server.
#[derive(Clone, Debug, Args)]
pub(super) struct Endpoint {
    /// The server, or any Kinesis endpoint that does not check signatures.
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEMILL_SERVER",
        default_value = "http://127.0.0.1:4566"
    )]
    server: String,
}

impl Endpoint {
    fn client(&self) -> Result<KinesisClient, Failure> {
        Ok(KinesisClient::new(&self.server)?)
    }
}

/// Runs the command.
pub(super) fn run(command: StreamCommand) -> ExitCode {
    // One worker beside this thread: it hears Ctrl-C while this one waits for a reader of standard output.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, format!("cannot start: {error}")),
    };
    let result = runtime.block_on(run_here(command));
    // A thread that reads standard input is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(failure) => failure.exit(),
    }
}

async fn run_here(command: StreamCommand) -> Result<(), Failure> {
    match command {
        StreamCommand::Create(arguments) => lifecycle::create(arguments).await,
        StreamCommand::List(arguments) => show::list(arguments).await,
        StreamCommand::Describe(arguments) => show::describe(arguments).await,
        StreamCommand::Put(arguments) => put::put(arguments, stop_signal()?).await,
        StreamCommand::Tail(arguments) => tail::tail(arguments, stop_signal()?).await,
        StreamCommand::Split(arguments) => reshard::split(arguments).await,
        StreamCommand::Merge(arguments) => reshard::merge(arguments).await,
        StreamCommand::Set(arguments) => lifecycle::set(arguments).await,
        StreamCommand::Delete(arguments) => lifecycle::delete(arguments).await,
    }
}

/// Becomes true with Ctrl-C or SIGTERM; the second one ends the process at once, whatever it waits for.
fn stop_signal() -> Result<watch::Receiver<bool>, Failure> {
    let mut signals = StopSignals::listen().map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let (stop_in, stop) = watch::channel(false);
    tokio::spawn(async move {
        signals.next().await;
        stop_in.send_replace(true);
        signals.next().await;
        std::process::exit(i32::from(EXIT_INTERRUPTED));
    });
    Ok(stop)
}
