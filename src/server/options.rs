//! What a server is told.

use super::ServerError;
use super::listen::tls::TlsFiles;
use crate::jobs::decide::RestartPolicy;
use crate::logging::LogFormat;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tidemill_shards::StoreOptions;
use tidemill_shards::limits::LIFECYCLE_DELAY_MS_MAX;

/// Where clients of AWS emulators already look.
pub(crate) const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4566);
/// Connections at a time, unless told otherwise.
pub(crate) const CONNECTIONS_MAX_DEFAULT: usize = 1_024;
/// How long jobs have for their final checkpoint when the server stops, unless told otherwise.
pub(crate) const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// A server's options.
#[derive(Clone, Debug)]
pub(crate) struct ServerOptions {
    /// Where everything is kept.
    pub(crate) data_directory: PathBuf,
    /// The address to listen on.
    pub(crate) listen: SocketAddr,
    /// Speak TLS with this certificate; `None`: speak plainly.
    pub(crate) tls: Option<TlsFiles>,
    /// Listen on addresses that others can reach, without authentication.
    pub(crate) insecure_listen_anywhere: bool,
    /// Where checkpoints are kept; `None` for the data directory.
    pub(crate) checkpoint_url: Option<String>,
    /// Checkpoints kept per job, at least 1.
    pub(crate) checkpoints_retained: usize,
    /// The directory of Rust jobs' binaries; `None`: none may be run.
    pub(crate) job_binaries: Option<PathBuf>,
    /// The shard store's options.
    pub(crate) store: StoreOptions,
    /// Where sealed segments of the store move; `None`: they stay.
    pub(crate) store_tier_url: Option<String>,
    /// When failed jobs are started again.
    pub(crate) restart: RestartPolicy,
    /// How long jobs have for their final checkpoint when the server stops.
    pub(crate) shutdown_grace: Duration,
    /// Connections at a time, at least 1.
    pub(crate) connections_max: usize,
    /// The form of log lines, for the jobs' processes.
    pub(crate) log_format: LogFormat,
    /// The filter of log lines, for the jobs' processes.
    pub(crate) log_level: Option<String>,
}

impl ServerOptions {
    /// Makes the default options.
    pub(crate) fn new(data_directory: PathBuf) -> Self {
        Self {
            data_directory,
            listen: LISTEN_DEFAULT,
            tls: None,
            insecure_listen_anywhere: false,
            checkpoint_url: None,
            checkpoints_retained: 3,
            job_binaries: None,
            store: StoreOptions::default(),
            store_tier_url: None,
            restart: RestartPolicy::default(),
            shutdown_grace: SHUTDOWN_GRACE_DEFAULT,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            log_format: LogFormat::default(),
            log_level: None,
        }
    }

    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    /// Says which option cannot be.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        let refuse = |text: String| Err(ServerError::Option(text));
        if !self.listen.ip().is_loopback() && !self.insecure_listen_anywhere {
            return refuse(format!(
                "--listen {} can be reached from other machines, and there is no authentication yet: whoever reaches it reads \
                 and writes everything and runs jobs; listen on 127.0.0.1, or pass --insecure-listen-anywhere",
                self.listen
            ));
        }
        if let Some(url) = &self.checkpoint_url
            && url.trim_start().to_ascii_lowercase().starts_with("memory:")
        {
            return refuse(format!(
                "--checkpoint-url {url} is the memory of one process, and each job of a server has a process of its own; \
                 write file:///DIR or a cloud's URL such as s3://BUCKET/PREFIX, or leave the option out to keep checkpoints in the data directory"
            ));
        }
        if self.store.lifecycle_delay_ms > LIFECYCLE_DELAY_MS_MAX {
            return refuse("--lifecycle-delay is longer than an hour; it is meant for tests, and seconds do".into());
        }
        if self.connections_max == 0 {
            return refuse("--connections-max 0 would answer nobody; use at least 1".into());
        }
        if self.checkpoints_retained == 0 {
            return refuse("--checkpoints-retained 0 would leave nothing to restart from; use at least 1".into());
        }
        if self.restart.delay_max < self.restart.delay_initial {
            return refuse("--restart-delay-max is below --restart-delay-initial; raise it".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ServerOptions)) -> Result<(), String> {
        let mut options = ServerOptions::new(PathBuf::from("d"));
        change(&mut options);
        options.check().map_err(|error| error.to_string())
    }

    #[test]
    fn others_are_let_in_only_when_told_so() {
        check(|_| {}).unwrap();
        check(|o| o.listen = "[::1]:0".parse().unwrap()).unwrap();
        let error = check(|o| o.listen = "0.0.0.0:4566".parse().unwrap()).unwrap_err();
        assert!(error.contains("--insecure-listen-anywhere"), "{error}");
        check(|o| {
            o.listen = "0.0.0.0:4566".parse().unwrap();
            o.insecure_listen_anywhere = true;
        })
        .unwrap();
    }

    #[test]
    fn a_store_that_jobs_cannot_share_is_refused_with_what_to_use() {
        for url in ["memory://x", "MEMORY://x"] {
            let error = check(|o| o.checkpoint_url = Some(url.into())).unwrap_err();
            assert!(error.contains("file:///DIR or a cloud's URL"), "{error}");
        }
        check(|o| o.checkpoint_url = Some("s3://memory/x".into())).unwrap();
    }

    #[test]
    fn limits_of_zero_are_refused() {
        assert!(check(|o| o.connections_max = 0).is_err());
        assert!(check(|o| o.checkpoints_retained = 0).is_err());
        assert!(check(|o| o.restart.delay_max = Duration::ZERO).is_err());
    }
}
