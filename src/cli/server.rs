//! `tidemill server`.

use super::LogArguments;
use super::store::StoreArguments;
use crate::jobs::decide::RestartPolicy;
use crate::process::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, fail};
use crate::rust_job::parse_duration;
use crate::server::Server;
use crate::server::options::{CONNECTIONS_MAX_DEFAULT, LISTEN_DEFAULT, ServerOptions};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The command's arguments.
#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// Where streams, checkpoints and jobs are kept.
    #[arg(long, value_name = "DIR", default_value = "tidemill-data")]
    data_dir: PathBuf,
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value_t = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// Allow addresses that other machines can reach, although there is no authentication yet.
    #[arg(long)]
    insecure_listen_anywhere: bool,
    /// Where checkpoints are kept: file:///DIR or s3://BUCKET/PREFIX [default: the data directory].
    #[arg(long, value_name = "URL")]
    checkpoint_url: Option<String>,
    /// Checkpoints kept per job.
    #[arg(long, value_name = "N", default_value_t = 3)]
    checkpoints_retained: usize,
    /// The directory of Rust jobs' binaries; without it none can be submitted.
    #[arg(long, value_name = "DIR")]
    job_binaries: Option<PathBuf>,
    /// The time before a failed job is started again; it doubles with each failure in a row.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    restart_delay_initial: Duration,
    /// The longest time before a failed job is started again.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    restart_delay_max: Duration,
    /// A job that ran this long was healthy: its failures are counted anew.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    restart_healthy_after: Duration,
    /// A job's process that is silent this long is killed and started again.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    heartbeat_timeout: Duration,
    /// The time within which a job must be planned.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    plan_timeout: Duration,
    /// The time that jobs have for their final checkpoint when the server stops.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    shutdown_grace: Duration,
    /// Connections at a time; further ones wait.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_MAX_DEFAULT)]
    connections_max: usize,
    #[command(flatten)]
    store: StoreArguments,
    /// Print the address as JSON once the server listens.
    #[arg(long)]
    json: bool,
}

impl ServerArguments {
    fn into_options(self, log: &LogArguments) -> ServerOptions {
        ServerOptions {
            data_directory: self.data_dir,
            listen: self.listen,
            insecure_listen_anywhere: self.insecure_listen_anywhere,
            checkpoint_url: self.checkpoint_url,
            checkpoints_retained: self.checkpoints_retained,
            store: self.store.options(),
            store_tier_url: self.store.tier_url(),
            job_binaries: self.job_binaries,
            restart: RestartPolicy {
                delay_initial: self.restart_delay_initial,
                delay_max: self.restart_delay_max,
                healthy_after: self.restart_healthy_after,
                heartbeat_timeout: self.heartbeat_timeout,
                plan_timeout: self.plan_timeout,
            },
            shutdown_grace: self.shutdown_grace,
            connections_max: self.connections_max,
            log_format: log.log_format,
            log_level: log.log_level.clone(),
        }
    }
}

/// Runs the command.
pub(super) fn run(arguments: ServerArguments, log: &LogArguments) -> ExitCode {
    let json = arguments.json;
    let options = arguments.into_options(log);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .thread_name("server")
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, format!("cannot start: {error}")),
    };
    let result = runtime.block_on(async {
        let server = Server::start(options).await?;
        announce(&server, json);
        server.run_until_stopped().await
    });
    // After a second signal nothing is waited for; the jobs' processes end with this one.
    runtime.shutdown_background();
    match result {
        Ok(true) => ExitCode::from(EXIT_OK),
        Ok(false) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => fail(EXIT_FAILED, error),
    }
}

#[allow(clippy::print_stdout)] // what scripts wait for
fn announce(server: &Server, json: bool) {
    let address = server.address();
    if json {
        println!(
            "{}",
            serde_json::json!({ "url": format!("http://{address}"), "process_id": std::process::id() })
        );
    } else {
        println!("listening on http://{address}");
    }
}
