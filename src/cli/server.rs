//! `tidemill server`.

use super::LogArguments;
use super::store::StoreArguments;
use crate::jobs::decide::RestartPolicy;
use crate::process::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, fail, say};
use crate::rust_job::parse_duration;
use crate::server::Server;
use crate::server::TlsFiles;
use crate::server::options::{CONNECTIONS_MAX_DEFAULT, LISTEN_DEFAULT, ServerOptions};
use clap::Args;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tidemill_shards::{Capacity, StoreOptions};

/// The command's arguments.
#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// Where streams, checkpoints and jobs are kept.
    #[arg(long, value_name = "DIR", default_value = "tidemill-data")]
    data_dir: PathBuf,
    /// The address to listen on, like 127.0.0.1:4566 or localhost:4566; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value_t = LISTEN_DEFAULT, value_parser = parse_listen)]
    listen: SocketAddr,
    /// Speak TLS, with the certificate in this PEM file and those that lead from it to an authority.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Allow addresses that other machines can reach, although there is no authentication yet.
    #[arg(long)]
    insecure_listen_anywhere: bool,
    /// Whether streams have the service's limits per shard and second: unlimited or enforced. The tag tidemill:capacity of
    /// a stream goes before it.
    #[arg(long, value_name = "CAPACITY", default_value_t = Capacity::default())]
    capacity: Capacity,
    /// How long clients are told that a stream or consumer is CREATING, UPDATING or DELETING [default: not at all].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    lifecycle_delay: Option<Duration>,
    /// Where checkpoints are kept: file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX [default:
    /// the data directory].
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

/// Reads an address; a host name is looked up, and where it has several addresses one of IPv4 counts, where clients that
/// know only a port look first.
fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let wrong =
        |reason: String| format!("{reason}; write HOST:PORT, like 127.0.0.1:4566, localhost:4566 or [::1]:4566");
    if text.parse::<IpAddr>().is_ok() || !text.contains(':') {
        return Err(wrong("the port is missing".into()));
    }
    let found: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|error| wrong(format!("there is no such address: {error}")))?
        .collect();
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    preferred
        .copied()
        .ok_or_else(|| wrong("the host has no address".into()))
}

impl ServerArguments {
    fn into_options(self, log: &LogArguments) -> ServerOptions {
        ServerOptions {
            data_directory: self.data_dir,
            listen: self.listen,
            tls: self
                .tls_certificate
                .zip(self.tls_key)
                .map(|(certificate, key)| TlsFiles { certificate, key }),
            insecure_listen_anywhere: self.insecure_listen_anywhere,
            checkpoint_url: self.checkpoint_url,
            checkpoints_retained: self.checkpoints_retained,
            store: StoreOptions {
                capacity: self.capacity,
                lifecycle_delay_ms: u64::try_from(self.lifecycle_delay.unwrap_or_default().as_millis())
                    .unwrap_or(u64::MAX),
                ..self.store.options()
            },
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
    let scheme = if arguments.tls_certificate.is_some() {
        "https"
    } else {
        "http"
    };
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
        announce(&server, scheme, json);
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

/// Tells scripts that wait for it where the server is; one that does not listen is no reason not to serve.
fn announce(server: &Server, scheme: &str, json: bool) {
    let address = server.address();
    let said = if json {
        let announced = serde_json::json!({ "url": format!("{scheme}://{address}"), "process_id": std::process::id() });
        say(announced)
    } else {
        say(format_args!("listening on {scheme}://{address}"))
    };
    if let Err(message) = said {
        tracing::warn!(message, "the address could not be announced");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_its_host() {
        assert_eq!(parse_listen("127.0.0.1:4599"), Ok("127.0.0.1:4599".parse().unwrap()));
        assert_eq!(parse_listen("[::1]:0"), Ok("[::1]:0".parse().unwrap()));
        let local = parse_listen("localhost:4599").unwrap();
        assert!(local.ip().is_loopback() && local.port() == 4599, "{local}");
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for wrong in [
            "nowhere",
            "4566",
            "127.0.0.1",
            "::1",
            "127.0.0.1:x",
            "127.0.0.1:70000",
            "",
        ] {
            let error = parse_listen(wrong).unwrap_err();
            assert!(error.contains("like 127.0.0.1:4566"), "{wrong}: {error}");
        }
    }
}
