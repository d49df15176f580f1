//! Structured logs on standard error.

use std::str::FromStr;
use tracing_subscriber::EnvFilter;

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no log format; use text or json")),
        }
    }
}

impl LogFormat {
    /// Returns the name that [`LogFormat::from_str`] reads.
    #[cfg(feature = "server")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Begins to write logs. `level` is a filter as in `RUST_LOG`, which counts when no level is given; otherwise `default`.
///
/// # Errors
/// When the filter cannot be understood.
pub(crate) fn start(format: LogFormat, level: Option<&str>, default: &str) -> Result<(), String> {
    let text = match level {
        Some(level) => level.to_owned(),
        None => std::env::var("RUST_LOG")
            .ok()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| default.to_owned()),
    };
    let filter =
        EnvFilter::try_new(&text).map_err(|error| format!("cannot understand the log level {text:?}: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Told of with eprintln, which panics when standard error is what cannot be written.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // A logger that is there already, of a program that embeds this one, is kept.
    let _ = match format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            builder
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false)
                .try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
