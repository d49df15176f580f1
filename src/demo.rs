//! The demonstration: a server, a flow of clicks, a SQL job, a kill, and a recount that agrees.
//!
//! ```text
//!   producer ── PutRecords ──▶ clicks (4 shards) ──▶ job (a process, killed once) ──┬─▶ clicks_per_page (stream)
//!                                  │                                               └─▶ Parquet files
//!                                  └── GetRecords ──▶ recount in memory ── compared with both
//! ```
//! Everything goes through the doors that users have: the Kinesis API, REST, and signals.
//!
//! File map: [`kinesis`] the client, [`producer`] makes clicks, [`recount`] counts them again, [`screen`] shows what
//! happens.

mod kinesis;
mod producer;
mod recount;
mod screen;

use crate::cli::client::Client;
use crate::logging::LogFormat;
use crate::process::StopSignals;
use crate::server::options::{LISTEN_DEFAULT, ServerOptions};
use crate::server::{Server, ServerError};
use anyhow::{Context as _, bail, ensure};
use kinesis::Kinesis;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use producer::Produced;
use reqwest::Method;
use screen::{Screen, Snapshot};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemill_engine::time::{SystemTime, TimeSource};
use tokio::sync::watch;

const JOB: &str = "clicks_per_page";
const INPUT: &str = "clicks";
const OUTPUT: &str = "clicks_per_page";
const INPUT_SHARDS: u32 = 4;
const OUTPUT_SHARDS: u32 = 1;
const PARALLELISM: usize = 2;
/// Short, for results become visible at checkpoints and somebody is watching.
const CHECKPOINT_INTERVAL_MS: u64 = 1_000;
/// How long the job may take to come up, to come back, and to catch up.
const PATIENCE: Duration = Duration::from_secs(120);
const REFRESH: Duration = Duration::from_millis(500);

/// What the demonstration is told.
#[derive(Clone, Debug)]
pub(crate) struct DemoOptions {
    /// How long clicks flow.
    pub(crate) duration: Duration,
    /// Clicks a second.
    pub(crate) rate: u64,
    /// Where everything is kept; `None` for a temporary directory.
    pub(crate) data_directory: Option<PathBuf>,
    /// Keep the server and the directory until Ctrl-C.
    pub(crate) keep: bool,
    /// Print the summary as JSON, and nothing else on standard output.
    pub(crate) json: bool,
    /// The form of log lines, for the job's process.
    pub(crate) log_format: LogFormat,
    /// The filter of log lines, for the job's process.
    pub(crate) log_level: Option<String>,
}

/// How the demonstration ended.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Clicks that the producer had acknowledged.
    clicks_in: u64,
    /// Events found in the stored input, the closing ones included.
    events_stored: u64,
    /// Events that were put at the end, one a shard, so that the last windows fire; they are no clicks.
    closing_events: u64,
    /// Rows that the recount expects.
    results_expected: u64,
    /// Rows in the output stream.
    results_in_stream: u64,
    /// Rows in the Parquet files.
    results_in_files: u64,
    /// Rows that the job dropped because they were late.
    rows_late: u64,
    /// The process that was killed.
    killed_process: Option<u32>,
    /// The time from the kill until the job ran again, in milliseconds.
    recovered_after_ms: Option<u64>,
    /// Checkpoints that the job took.
    checkpoints: u64,
    /// Whether both outputs are exactly what the recount expects.
    agrees: bool,
    /// How they differ, the first few.
    differences: Vec<String>,
    /// Where everything is, if it was kept.
    data_directory: Option<PathBuf>,
}

impl Summary {
    /// Says whether everything is as it should be.
    pub(crate) fn is_good(&self) -> bool {
        let nothing_lost = self.events_stored >= self.clicks_in + self.closing_events;
        self.agrees && self.rows_late == 0 && self.results_expected > 0 && nothing_lost
    }

    /// Says what the stored events are.
    fn stored(&self) -> String {
        let clicks = self.events_stored.saturating_sub(self.closing_events);
        let mut text = format!(
            "{} stored events: {clicks} clicks, and {} that closed the last windows",
            self.events_stored, self.closing_events
        );
        // Every click is acknowledged before the next ones are put, so these agree unless the store lost or doubled some.
        if clicks != self.clicks_in {
            text.push_str(&format!(", though {} clicks were acknowledged", self.clicks_in));
        }
        text
    }

    /// Writes the summary for people.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![
            format!("clicks in            {}", self.clicks_in),
            format!(
                "results out          {} in the stream, {} in Parquet files",
                self.results_in_stream, self.results_in_files
            ),
            format!("late rows            {}", self.rows_late),
            format!("checkpoints          {}", self.checkpoints),
            match (self.killed_process, self.recovered_after_ms) {
                (Some(pid), Some(ms)) => {
                    format!("kill and recovery    process {pid} was killed; the job ran again after {ms} ms")
                }
                (Some(pid), None) => {
                    format!("kill and recovery    process {pid} was killed, and the job did not come back")
                }
                _ => "kill and recovery    there was no kill".to_owned(),
            },
        ];
        lines.push(if self.agrees {
            format!(
                "recount              agrees exactly: {} results from {}",
                self.results_expected,
                self.stored()
            )
        } else {
            format!(
                "recount              DISAGREES: {} results expected",
                self.results_expected
            )
        });
        lines.extend(self.differences.iter().map(|difference| format!("  {difference}")));
        if let Some(directory) = &self.data_directory {
            lines.push(format!("data directory       {}", directory.display()));
        }
        lines.join("\n")
    }
}

/// Runs the demonstration. `None`: Ctrl-C ended it before there was a summary.
///
/// # Errors
/// When something that should work does not.
pub(crate) async fn run(options: DemoOptions) -> anyhow::Result<Option<Summary>> {
    let directory = DemoDirectory::make(&options)?;
    let mut signals = StopSignals::listen()?;
    let (server, note) = start_server(&options, directory.path()).await?;
    let mut screen = Screen::new(options.json);
    screen.note(&format!(
        "server   http://{}, data directory {}",
        server.address(),
        directory.path().display()
    ));
    if let Some(note) = note {
        screen.note(&note);
    }
    let url = format!("http://{}", server.address());
    let result = {
        let show = show(&options, &url, directory.path(), &mut screen);
        tokio::select! {
            result = show => result.map(Some),
            () = signals.next() => Ok(None),
        }
    };
    let result = match result {
        Ok(Some(mut summary)) => {
            if options.keep || options.data_directory.is_some() {
                summary.data_directory = Some(directory.path().to_owned());
            }
            Ok(Some(summary))
        }
        other => other,
    };
    if options.keep && matches!(result, Ok(Some(_))) {
        if let Ok(Some(summary)) = &result {
            screen.note(&summary.text());
        }
        screen.note(&format!(
            "the server stays at {url} until Ctrl-C; try: tidemill job list --server {url}"
        ));
        signals.next().await;
    }
    server.stop().await;
    if !options.keep {
        directory.remove_if_temporary();
    }
    result
}

async fn start_server(options: &DemoOptions, directory: &Path) -> anyhow::Result<(Server, Option<String>)> {
    let mut server = ServerOptions::new(directory.to_owned());
    server.log_format = options.log_format;
    server.log_level = Some(options.log_level.clone().unwrap_or_else(|| "error".into()));
    server.restart.delay_initial = Duration::from_millis(500);
    match Server::start(server.clone()).await {
        Err(ServerError::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse => {
            server.listen = SocketAddr::new(LISTEN_DEFAULT.ip(), 0);
            let note = format!("port {} is taken, so the server has another", LISTEN_DEFAULT.port());
            Ok((Server::start(server).await?, Some(note)))
        }
        other => Ok((other?, None)),
    }
}

async fn show(options: &DemoOptions, url: &str, directory: &Path, screen: &mut Screen) -> anyhow::Result<Summary> {
    let time: Arc<dyn TimeSource> = Arc::new(SystemTime::default());
    let (kinesis, rest) = (Kinesis::new(url)?, Client::new(url)?);
    kinesis.create_stream(INPUT, INPUT_SHARDS).await?;
    kinesis.create_stream(OUTPUT, OUTPUT_SHARDS).await?;
    let files = directory.join("clicks_per_page_files");
    submit(&rest, &files).await?;
    screen.note(&format!(
        "job      {JOB}, {PARALLELISM} workers, reads stream {INPUT} ({INPUT_SHARDS} shards)"
    ));

    let produced = Arc::new(Produced::default());
    let (stop_in, stop) = watch::channel(false);
    let flow = producer::produce(
        kinesis.clone(),
        INPUT.into(),
        options.rate,
        Arc::clone(&time),
        Arc::clone(&produced),
        stop,
    );
    let mut flow = tokio::spawn(flow);
    let mut job = Watched::new(rest.clone());
    let mut results = Results::open(&kinesis).await?;
    let mut kill_at = Some(options.duration / 3);
    let mut killed: Option<(u32, Duration)> = None;
    let mut recovered_after = None;
    let start = time.monotonic();
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = &mut flow => {
                ended.context("the producer panicked")??;
                bail!("the producer stopped by itself");
            }
            _ = refresh.tick() => {}
        }
        let elapsed = time.monotonic() - start;
        job.look().await?;
        results.follow(&kinesis).await?;
        if kill_at.is_some_and(|at| elapsed >= at)
            && let Some(pid) = job.running_process()
        {
            kill_at = None;
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)
                .with_context(|| format!("cannot kill process {pid}"))?;
            killed = Some((pid, time.monotonic()));
            screen.note(&format!("killed   process {pid}, which ran the job, with SIGKILL"));
        }
        if let (Some((pid, at)), None) = (killed, recovered_after)
            && let Some(new) = job.running_process().filter(|&new| new != pid)
        {
            let after = time.monotonic() - at;
            recovered_after = Some(after);
            let checkpoint = job.view["restored_from"].as_u64();
            let from = checkpoint.map_or_else(|| "the beginning".to_owned(), |id| format!("checkpoint {id}"));
            screen.note(&format!(
                "back     after {} ms: process {new} runs the job from {from}",
                after.as_millis()
            ));
        }
        screen.show(&Snapshot {
            elapsed,
            duration: options.duration,
            clicks: produced.clicks.load(Ordering::Relaxed),
            job: &job.view,
            results: results.rows,
            newest: &results.newest,
            now_ms: time.wall_ms(),
        });
        // A job that is on its way back is waited for, so that the summary can tell of it.
        let is_waiting = kill_at.is_some() || (killed.is_some() && recovered_after.is_none());
        if elapsed >= options.duration && (!is_waiting || elapsed >= options.duration + PATIENCE) {
            break;
        }
    }
    stop_in.send_replace(true);
    let ended = flow.await.context("the producer panicked")??;
    screen.note("ending   no more clicks; the last windows fire");
    let shards = kinesis.shards(INPUT).await?;
    let closing_ms = producer::close(&kinesis, INPUT, &shards, ended).await?;
    catch_up(&mut job, closing_ms - 2_000, time.as_ref()).await?;
    let stopped = rest
        .ask(
            Method::POST,
            &["jobs", JOB, "stop"],
            None,
            Some(&json!({ "mode": "checkpoint" })),
        )
        .await?;
    ensure!(
        stopped["state"] == "stopped",
        "the job did not stop after its final checkpoint, it is {}",
        stopped["state"]
    );
    job.note(stopped);
    ensure!(
        job.view["last_error"].is_null() || killed.is_some(),
        "the job failed on the way: {}",
        job.view["last_error"]["message"]
    );

    screen.note("recount  of the stored input, against the stream and the Parquet files");
    let expected = recount::expected(&kinesis, INPUT).await?;
    let in_stream = recount::stream_rows(&kinesis, OUTPUT).await?;
    let in_files = tokio::task::spawn_blocking(move || recount::file_rows(&files)).await??;
    let mut differences = recount::differences("stream", &expected.rows, &in_stream);
    differences.extend(recount::differences("Parquet files", &expected.rows, &in_files));
    let agrees = differences.is_empty();
    differences.truncate(10);
    Ok(Summary {
        clicks_in: produced.clicks.load(Ordering::Relaxed),
        events_stored: expected.events,
        closing_events: shards.len() as u64,
        results_expected: expected.rows.values().sum(),
        results_in_stream: in_stream.values().sum(),
        results_in_files: in_files.values().sum(),
        rows_late: job.rows_late(),
        killed_process: killed.map(|(pid, _)| pid),
        recovered_after_ms: recovered_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        checkpoints: job.checkpoint,
        agrees,
        differences,
        data_directory: None,
    })
}

async fn submit(rest: &Client, files: &Path) -> anyhow::Result<()> {
    // A quote in the path would end the option's text.
    let path = files.display().to_string().replace('\'', "''");
    let sql = include_str!("demo/job.sql").replace("{files}", &path);
    let body = json!({
        "name": JOB, "sql": sql, "parallelism": PARALLELISM, "checkpoint_interval_ms": CHECKPOINT_INTERVAL_MS,
    });
    rest.ask(Method::POST, &["jobs"], None, Some(&body)).await?;
    Ok(())
}

/// Waits until the job's output is complete up to a watermark.
async fn catch_up(job: &mut Watched, watermark_ms: i64, time: &dyn TimeSource) -> anyhow::Result<()> {
    let start = time.monotonic();
    while job.view["watermark_ms"]
        .as_i64()
        .is_none_or(|reached| reached < watermark_ms)
    {
        ensure!(
            time.monotonic() - start < PATIENCE,
            "the job did not catch up within {} s",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        job.look().await?;
    }
    Ok(())
}

/// The job, as REST shows it.
struct Watched {
    rest: Client,
    view: Value,
    /// Late rows by process: counters begin anew with each.
    late: BTreeMap<u64, u64>,
    /// The newest checkpoint ever seen.
    checkpoint: u64,
}

impl Watched {
    fn new(rest: Client) -> Self {
        Self {
            rest,
            view: Value::Null,
            late: BTreeMap::new(),
            checkpoint: 0,
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let view = self.rest.ask(Method::GET, &["jobs", JOB], None, None).await?;
        ensure!(view["state"] != "failed", "the job was given up: {}", view["failure"]);
        self.note(view);
        Ok(())
    }

    fn note(&mut self, view: Value) {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let operators = view["operators"].as_array();
        let late: u64 = operators
            .into_iter()
            .flatten()
            .map(|operator| number(&operator["rows_late"]))
            .sum();
        let most = self.late.entry(number(&view["generation"])).or_default();
        *most = late.max(*most);
        let checkpoints = view["checkpoints"].as_array();
        let newest = checkpoints
            .and_then(|all| all.last())
            .map_or(0, |checkpoint| number(&checkpoint["id"]));
        self.checkpoint = self.checkpoint.max(newest);
        self.view = view;
    }

    /// Returns the process of the job, if the job runs.
    fn running_process(&self) -> Option<u32> {
        if self.view["state"] != "running" {
            return None;
        }
        self.view["process_ids"][0]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
    }

    fn rows_late(&self) -> u64 {
        self.late.values().sum()
    }
}

/// The output stream, followed as it grows.
struct Results {
    iterators: BTreeMap<String, Option<String>>,
    rows: u64,
    /// The rows of the newest window.
    newest: BTreeSet<recount::Row>,
}

impl Results {
    async fn open(kinesis: &Kinesis) -> anyhow::Result<Self> {
        let mut iterators = BTreeMap::new();
        for shard in kinesis.shards(OUTPUT).await? {
            let iterator = kinesis.oldest(OUTPUT, &shard.id).await?;
            iterators.insert(shard.id, Some(iterator));
        }
        Ok(Self {
            iterators,
            rows: 0,
            newest: BTreeSet::new(),
        })
    }

    async fn follow(&mut self, kinesis: &Kinesis) -> anyhow::Result<()> {
        for iterator in self.iterators.values_mut() {
            let Some(current) = iterator else { continue };
            let (contents, next, _) = kinesis.next(current).await?;
            *iterator = next;
            for data in contents {
                let row = recount::result_row(&data)?;
                self.rows += 1;
                let newest = self.newest.first().map(|row| row.window_start_ms);
                if newest.is_none_or(|newest| row.window_start_ms > newest) {
                    self.newest.clear();
                }
                if newest.is_none_or(|newest| row.window_start_ms >= newest) {
                    self.newest.insert(row);
                }
            }
        }
        Ok(())
    }
}

/// The directory of the demonstration.
struct DemoDirectory {
    path: PathBuf,
    is_temporary: bool,
}

impl DemoDirectory {
    fn make(options: &DemoOptions) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        if let Some(path) = &options.data_directory {
            let is_empty = match std::fs::read_dir(path) {
                Ok(mut entries) => entries.next().is_none(),
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
            ensure!(
                is_empty,
                "the demonstration counts everything it finds, so {} must be an empty directory",
                path.display()
            );
            std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
            return Ok(Self {
                path: path.canonicalize()?,
                is_temporary: false,
            });
        }
        let random = getrandom::u32().map_err(|error| anyhow::anyhow!("no entropy: {error}"))?;
        let path = std::env::temp_dir().join(format!("tidemill-demo-{random:08x}"));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}; name a directory with --data-dir", path.display()))?;
        Ok(Self {
            path,
            is_temporary: true,
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    #[allow(clippy::disallowed_methods, reason = "it made this directory itself")]
    fn remove_if_temporary(self) {
        if self.is_temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the temporary directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_event_is_accounted_for() {
        let summary = |clicks_in| Summary {
            clicks_in,
            events_stored: 104,
            closing_events: 4,
            results_expected: 7,
            results_in_stream: 7,
            results_in_files: 7,
            rows_late: 0,
            killed_process: None,
            recovered_after_ms: None,
            checkpoints: 3,
            agrees: true,
            differences: Vec::new(),
            data_directory: None,
        };
        let text = summary(100).text();
        let told = "agrees exactly: 7 results from 104 stored events: 100 clicks, and 4 that closed the last windows";
        assert!(text.ends_with(told), "{text}");
        assert!(summary(100).is_good());
        let lost = summary(101);
        assert!(
            lost.text().ends_with(", though 101 clicks were acknowledged"),
            "{}",
            lost.text()
        );
        assert!(!lost.is_good());
    }
}
