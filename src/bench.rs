//! `tidemill bench`: what the program reaches on this machine. It only measures. `nexmark` runs queries as jobs (see
//! there), `shards` the shard store on this disk:
//!
//! ```text
//!   append ── records of 1 KiB, each acknowledged behind an fdatasync ──┐ in turns, so that both see the same disk
//!   plain ─── a sequential writer with the same writes and syncs ──────┘
//!   read ──── what was written, from the page cache
//!   tail ──── from acknowledgement to a consumer that waits
//!   http ──── PutRecords to a server in a process of its own: closed and open loop, JSON and CBOR
//!   many ──── a store of very many shards: start-up and memory
//! ```
//!
//! | file | |
//! |---|---|
//! | `append.rs`, `plain.rs`, `counting.rs` | the log, the writer beside it, and how large the log's writes are |
//! | `read.rs`, `tail.rs`, `many.rs` | the other parts in this process |
//! | `http.rs`, `cbor.rs` | the load over HTTP and its encoding |
//! | `child.rs` | a server as a child process; CPU and memory of processes |
//! | `latency.rs` | percentiles |
//! | `scratch.rs` | the directory that everything lies in |
//! | `report.rs` | the figures for people |

mod append;
mod cbor;
mod child;
mod counting;
mod http;
mod latency;
mod many;
pub(crate) mod nexmark;
mod plain;
mod read;
mod report;
mod scratch;
mod tail;

use clap::ValueEnum;
use scratch::Scratch;
use serde::Serialize;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a record's data.
const RECORD_BYTES: usize = 1_024;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// Durable appends, and a plain sequential writer beside them.
    Append,
    /// Reading from the page cache.
    Read,
    /// From acknowledgement to a waiting consumer.
    Tail,
    /// PutRecords over HTTP.
    Http,
    /// Start-up and memory with very many shards.
    Many,
}

/// How requests are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// JSON 1.1.
    Json,
    /// CBOR 1.1.
    Cbor,
}

/// What the benchmark is told.
#[derive(Clone, Debug)]
pub(crate) struct BenchOptions {
    /// What is measured.
    pub(crate) parts: Vec<Part>,
    /// Where files are written, in a directory that is removed at the end; `None` for the system's temporary directory.
    pub(crate) directory: Option<PathBuf>,
    /// How long each measurement takes.
    pub(crate) duration: Duration,
    /// How often appends are measured, in turns with the plain writer.
    pub(crate) rounds: usize,
    /// Appends that wait for their acknowledgement.
    pub(crate) in_flight: Vec<usize>,
    /// Records of one put.
    pub(crate) request_records: Vec<usize>,
    /// Shards of the stream that is written to.
    pub(crate) shards: u32,
    /// Records a second of the open loops over HTTP.
    pub(crate) rates: Vec<u32>,
    /// Requests in flight in the closed loop over HTTP.
    pub(crate) connections: usize,
    /// Encodings over HTTP.
    pub(crate) protocols: Vec<Protocol>,
    /// A server to measure over HTTP, with its process if that is on this machine; `None` starts one.
    pub(crate) server: Option<(String, Option<u32>)>,
    /// Shards of the large store.
    pub(crate) many: u32,
}

/// The figures. A part that was not asked for is absent.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Processors that the benchmark may use.
    processors: usize,
    /// Where the files were.
    directory: String,
    /// Appends, by records in flight.
    append: Vec<append::Appended>,
    read: Option<read::WasRead>,
    tail: Option<tail::Tailed>,
    /// Over HTTP, by encoding and kind of load.
    http: Vec<http::Loaded>,
    many: Option<many::Many>,
}

/// Measures, one part after the other. Dropping the future ends it; the directory is removed.
///
/// # Errors
/// When something does not work that should; figures of parts before it are lost.
pub(crate) async fn run(options: &BenchOptions) -> anyhow::Result<Report> {
    let scratch = Scratch::make(options.directory.as_deref())?;
    let mut report = Report {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        directory: scratch.path().display().to_string(),
        ..Report::default()
    };
    for part in &options.parts {
        match part {
            Part::Append => {
                for &in_flight in &options.in_flight {
                    for &request_records in &options.request_records {
                        let load = append::Load {
                            in_flight,
                            request_records,
                        };
                        report.append.push(append::measure(options, &scratch, load).await?);
                    }
                }
            }
            Part::Read => report.read = Some(read::measure(options, &scratch).await?),
            Part::Tail => report.tail = Some(tail::measure(options, &scratch).await?),
            Part::Http => report.http = http::measure(options, &scratch).await?,
            Part::Many => report.many = Some(many::measure(options, &scratch).await?),
        }
    }
    Ok(report)
}

/// Tells how far it is, on standard error.
fn progress(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
