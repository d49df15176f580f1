//! `tidemill bench nexmark`: a query of the auction benchmark as a real job, and what it costs.
//!
//! The connector `nexmark` makes the events within the job, so that every figure counts the generator, too. The
//! process runs one query and ends: its CPU time and its memory are the query's.
//!
//! | file | |
//! |---|---|
//! | `nexmark/queries.rs` | the queries, which stand in `benches/nexmark/`, and which of them can be planned |
//! | `nexmark/job.rs` | runs one |
//! | `nexmark/latency.rs` | how long results take, when events come at a rate |
//! | `nexmark/generator.rs` | reads the events and drops them |

mod generator;
mod job;
mod latency;
mod queries;

use super::child::own_cpu;
use super::scratch::Scratch;
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use queries::{Listed, Query, list};

/// What the benchmark is told.
#[derive(Clone, Debug)]
pub(crate) struct NexmarkOptions {
    /// The query; `None` for the generator alone.
    pub(crate) query: Option<&'static Query>,
    /// Events to make.
    pub(crate) events: u64,
    /// Worker threads.
    pub(crate) parallelism: usize,
    /// Events per second of event time.
    pub(crate) event_rate: u64,
    /// Events per second of the wall clock, at most; event time then runs as fast, and the latency of results is measured.
    /// `None`: as many as can be.
    pub(crate) events_per_second: Option<u64>,
    /// What the events are made from.
    pub(crate) seed: u64,
    /// The time between checkpoints; `None` for none at all.
    pub(crate) checkpoints: Option<Duration>,
    /// Where checkpoints and files are written, in a directory that is removed at the end; `None` for the system's
    /// temporary directory.
    pub(crate) directory: Option<PathBuf>,
}

/// The figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct NexmarkReport {
    /// The query, or `generator`.
    pub(crate) query: String,
    pub(crate) parallelism: usize,
    /// Events per second of event time.
    pub(crate) event_rate: u64,
    pub(crate) seed: u64,
    /// Events that were made.
    pub(crate) events: u64,
    /// From the start of the job to its end.
    pub(crate) seconds: f64,
    pub(crate) events_per_second: f64,
    /// User and system time of the process, from its start.
    pub(crate) cpu_seconds: f64,
    pub(crate) events_per_cpu_second: f64,
    /// The most memory that was resident.
    pub(crate) peak_memory_bytes: u64,
    /// Rows that reached the sink.
    pub(crate) rows_out: u64,
    /// Rows that were too late for their window.
    pub(crate) rows_late: u64,
    pub(crate) ticks: u64,
    /// The least time between two ticks that are not full.
    pub(crate) tick_interval_ms: f64,
    pub(crate) checkpoint_interval_ms: Option<u64>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// How long results took, when events came at a rate.
    pub(crate) latency: Option<latency::ResultLatency>,
}

/// A checkpoint of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Checkpoint {
    pub(crate) id: u64,
    pub(crate) state_bytes: u64,
    /// From the decision until it existed.
    pub(crate) duration_ms: u64,
    /// What the stream stood still for it.
    pub(crate) pause_us: u64,
}

/// What a run gives besides what the process tells of itself.
struct Ran {
    events: u64,
    seconds: f64,
    rows_out: u64,
    rows_late: u64,
    ticks: u64,
    checkpoints: Vec<Checkpoint>,
    latency: Option<latency::ResultLatency>,
}

/// Runs the query, or the generator alone. Dropping the future ends it; the directory is removed.
///
/// # Errors
/// When the query cannot be planned, or its job fails.
pub(crate) async fn run(options: &NexmarkOptions) -> anyhow::Result<NexmarkReport> {
    let scratch = Scratch::make(options.directory.as_deref())?;
    let ran = match options.query {
        Some(query) => job::run(query, options, &scratch).await?,
        None => generator::run(options).await?,
    };
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let cpu_seconds = own_cpu()?.as_secs_f64();
    let per = |seconds: f64| ran.events as f64 / seconds.max(f64::MIN_POSITIVE);
    Ok(NexmarkReport {
        query: options.query.map_or("generator", |query| query.name).to_owned(),
        parallelism: options.parallelism,
        event_rate: options.event_rate,
        seed: options.seed,
        events: ran.events,
        seconds: ran.seconds,
        events_per_second: per(ran.seconds),
        cpu_seconds,
        events_per_cpu_second: per(cpu_seconds),
        // Linux counts in units of 1,024 bytes.
        peak_memory_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) * 1_024,
        rows_out: ran.rows_out,
        rows_late: ran.rows_late,
        ticks: ran.ticks,
        tick_interval_ms: tidemill_engine::job::TickOptions::default().interval_min.as_secs_f64() * 1e3,
        checkpoint_interval_ms: options
            .checkpoints
            .filter(|_| options.query.is_some())
            .map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
        checkpoints: ran.checkpoints,
        latency: ran.latency,
    })
}

impl NexmarkReport {
    /// The figures for people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{}: {} events ({} a second of event time) with {} workers in {:.2} s\n\
             {:.0} events/s, {:.2} CPU-seconds, {:.0} events per CPU-second\n\
             {} rows out, {} late, {} ticks (at least {} ms apart unless full), peak memory {:.0} MB\n",
            self.query,
            self.events,
            self.event_rate,
            self.parallelism,
            self.seconds,
            self.events_per_second,
            self.cpu_seconds,
            self.events_per_cpu_second,
            self.rows_out,
            self.rows_late,
            self.ticks,
            self.tick_interval_ms,
            self.peak_memory_bytes as f64 / 1e6,
        );
        match self.checkpoint_interval_ms {
            None => text.push_str("no checkpoints"),
            Some(interval) => {
                let _ = write!(text, "{} checkpoints, one every {interval} ms", self.checkpoints.len());
            }
        }
        for checkpoint in &self.checkpoints {
            let _ = write!(
                text,
                "\n  {}: {:.3} MB in {} ms, the stream stood still for {:.1} ms",
                checkpoint.id,
                checkpoint.state_bytes as f64 / 1e6,
                checkpoint.duration_ms,
                checkpoint.pause_us as f64 / 1e3,
            );
        }
        if let Some(latency) = &self.latency {
            let of = &latency.percentiles;
            let _ = write!(
                text,
                "\n{} results after the watermark passed their window's end: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, at most \
                 {:.1} ms",
                latency.results, of.p50_ms, of.p99_ms, of.p999_ms, of.max_ms,
            );
        }
        text
    }
}
