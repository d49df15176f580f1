//! Jobs that run while the test pushes rows and moves the clock by hand.

use super::support::{lines, rows};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidemill_checkpoints::SnapshotStore;
use tidemill_connectors::{ConnectorError, TableDefinition};
use tidemill_engine::job::{CheckpointOptions, JobConfig, JobEnd, JobHandle, StopMode, start};
use tidemill_engine::sink::{DeliveryGuarantee, Sink};
use tidemill_engine::source::Source;
use tidemill_engine::status::{JobPhase, JobStatus};
use tidemill_engine::testing::{MemorySink, MemorySource};
use tidemill_engine::time::ManualTime;
use tidemill_sql::{Connectors, Plan, PlanOptions, plan_with};

/// When the clock starts: 2026-01-01 00:00:00.
pub(crate) const START_MS: i64 = 1_767_225_600_000;

/// The columns of the table `clicks`: two splits, rows pushed by the test.
pub(crate) const CLICKS: &str = "CREATE TABLE clicks (
  k STRING, n BIGINT, ts TIMESTAMP(3), p AS PROCTIME(), WATERMARK FOR ts AS ts
) WITH ('connector' = 'memory');\n";

/// What outlives a job: the rows, the sinks, the checkpoints and the clock.
pub(crate) struct World {
    source: MemorySource,
    sinks: Mutex<BTreeMap<String, (MemorySink, SchemaRef)>>,
    store: SnapshotStore,
    pub(crate) time: ManualTime,
    runtime: tokio::runtime::Runtime,
    sql: String,
    guarantee: DeliveryGuarantee,
}

/// The source, with only the columns that a job reads.
struct Projected<'a>(&'a World);

impl Connectors for Projected<'_> {
    fn check_source(&self, _: &TableDefinition) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn check_sink(&self, _: &TableDefinition) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn create_source(&self, table: &TableDefinition, projection: &[usize]) -> Result<Arc<dyn Source>, ConnectorError> {
        // Every query of these tests reads all columns, so that the source needs no projection.
        assert_eq!(projection.len(), table.schema.fields().len(), "read k, n and ts");
        Ok(Arc::new(self.0.source.clone()))
    }

    fn create_sink(&self, table: &TableDefinition) -> Result<Arc<dyn Sink>, ConnectorError> {
        let mut sinks = self.0.sinks.lock().unwrap();
        let made = || (MemorySink::new(self.0.guarantee), Arc::clone(&table.schema));
        Ok(Arc::new(sinks.entry(table.name.clone()).or_insert_with(made).0.clone()))
    }
}

impl World {
    /// Makes a world for a job that reads `clicks`.
    pub(crate) fn new(guarantee: DeliveryGuarantee, sql: &str) -> Self {
        Self {
            source: MemorySource::unbounded(2),
            sinks: Mutex::default(),
            store: SnapshotStore::in_memory(),
            time: ManualTime::at(START_MS),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            sql: format!("{CLICKS}{sql}"),
            guarantee,
        }
    }

    /// The statements behind the table `clicks`.
    pub(crate) fn text(&self) -> &str {
        &self.sql[CLICKS.len()..]
    }

    /// Starts the job, from its newest checkpoint if there is one.
    pub(crate) fn start(&self, parallelism: usize) -> Job<'_> {
        let plan = match plan_with(&self.sql, &Projected(self), &PlanOptions::default()) {
            Ok(Plan::Job(job)) => job,
            Ok(Plan::Explain(_)) => panic!("planned an explanation"),
            Err(error) => panic!("{error}"),
        };
        let mut config = JobConfig::new("live");
        config.parallelism = parallelism;
        config.time = Arc::new(self.time.clone());
        let mut checkpoints = CheckpointOptions::new(self.store.clone());
        checkpoints.interval = None;
        config.checkpoints = Some(checkpoints);
        let handle = start(plan.graph, config, self.runtime.handle()).unwrap();
        Job { world: self, handle }
    }

    /// The rows of a sink, sorted.
    pub(crate) fn written(&self, table: &str) -> Vec<String> {
        let mut found = self.written_in_order(table);
        found.sort();
        found
    }

    /// The rows of a sink in the order in which they were written.
    pub(crate) fn written_in_order(&self, table: &str) -> Vec<String> {
        let sinks = self.sinks.lock().unwrap();
        let (sink, schema) = &sinks[table];
        sink.concat(schema).map_or_else(|_| Vec::new(), |batch| lines(&batch))
    }
}

/// A running job.
pub(crate) struct Job<'a> {
    world: &'a World,
    handle: JobHandle,
}

/// Makes clicks of lines `k,n,time`, the time as in `00:00:07`.
fn clicks(csv: &str) -> RecordBatch {
    let schema = [
        ("k", DataType::Utf8),
        ("n", DataType::Int64),
        ("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ];
    let lines = csv.split_whitespace().map(|line| {
        let (row, time) = line.rsplit_once(',').unwrap();
        format!("{row},2026-01-01T{time}")
    });
    rows(&schema, &lines.collect::<Vec<_>>().join("\n"))
}

impl Job<'_> {
    /// Pushes rows to a split and waits until what they do is done and kept in a checkpoint; 2 ms pass.
    pub(crate) fn push(&self, split: usize, csv: &str) {
        self.push_only(split, csv);
        self.checkpoint();
    }

    /// Pushes rows to a split and waits until they are read; 2 ms pass.
    pub(crate) fn push_only(&self, split: usize, csv: &str) {
        let read = || self.read();
        let batch = clicks(csv);
        let (before, more) = (read(), batch.num_rows() as u64);
        // The least time between two ticks: the rows are read without more of it, unless a tick opened just now.
        self.pass(2);
        self.world.source.push(split, batch);
        let looks = std::cell::Cell::new(0);
        self.until("the rows are read", || {
            looks.set(looks.get() + 1);
            if looks.get() % 500 == 0 {
                self.pass(2);
            }
            read() == before + more
        });
    }

    fn read(&self) -> u64 {
        self.status().operators[0].counts.rows_out
    }

    /// Takes a checkpoint, which waits for everything before it.
    pub(crate) fn checkpoint(&self) {
        self.world.runtime.block_on(self.handle.checkpoint()).unwrap();
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, ms: u64) {
        self.world.time.advance(Duration::from_millis(ms));
    }

    /// Waits for something that happens by itself.
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until a sink has so many rows.
    pub(crate) fn until_written(&self, table: &str, count: usize) {
        let what = format!("{table} has {count} rows");
        self.until(&what, || self.world.written_in_order(table).len() >= count);
    }

    /// Waits until a sink that shows what checkpoints contain has so many rows.
    pub(crate) fn until_written_after_checkpoints(&self, table: &str, count: usize) {
        let what = format!("{table} has {count} rows");
        self.until(&what, || {
            self.checkpoint();
            self.world.written_in_order(table).len() >= count
        });
    }

    pub(crate) fn status(&self) -> JobStatus {
        self.handle.status()
    }

    /// Ends the job at once, as a crash would.
    pub(crate) fn kill(self) {
        self.world.runtime.block_on(self.handle.stop(StopMode::Now)).unwrap();
        self.world.runtime.block_on(self.handle.wait()).unwrap();
    }

    /// Ends the table, and with it the job; some milliseconds pass.
    pub(crate) fn finish(self) {
        self.world.source.end();
        self.until("the job has ended", || {
            self.pass(2);
            matches!(self.status().phase, JobPhase::Ended)
        });
        assert_eq!(
            self.world.runtime.block_on(self.handle.wait()).unwrap(),
            JobEnd::Finished
        );
    }
}
