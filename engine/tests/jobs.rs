//! Whole jobs on the engine, in memory: the same output whatever the ticks, workers, delays, kills and restores.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use futures::future::BoxFuture;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidemill_checkpoints::SnapshotStore;
use tidemill_engine::aggregate::{AggregateCall, Count, Sum};
use tidemill_engine::expr::{column, from_fn};
use tidemill_engine::graph::{
    AsyncNode, Calc, CustomOperator, Distribution, EventTime, JobGraph, SinkNode, SourceNode, TimeDomain,
    WindowAggregate, WindowAssigner,
};
use tidemill_engine::job::{CheckpointOptions, JobConfig, JobEnd, StopMode, TickOptions, start};
use tidemill_engine::operator::{
    AsyncOperator, AsyncOptions, AsyncOrder, OpenTick, Operator, Output, Progress, TickClose,
};
use tidemill_engine::sink::{
    CommitterContext, DeliveryGuarantee, PreCommit, PreCommitId, Sink, SinkCommitter, SinkContext, SinkWriter,
};
use tidemill_engine::source::{ReadOutcome, Source, Split, SplitContext, SplitEnumerator, SplitReader};
use tidemill_engine::testing::{MemorySink, MemorySource};
use tidemill_engine::time::ManualTime;

const DELAY_MS: i64 = 20;
const WINDOW_MS: i64 = 10;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("value", DataType::Int64, false),
    ]))
}

fn batch(rows: &[(i64, i64, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMillisecondArray::from_iter_values(
            rows.iter().map(|row| row.1),
        )),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

const TUMBLE: WindowAssigner = WindowAssigner::Tumble {
    time: 1,
    size_ms: WINDOW_MS,
    offset_ms: 0,
};

const HOP: WindowAssigner = WindowAssigner::Hop {
    time: 1,
    size_ms: 3 * WINDOW_MS,
    slide_ms: WINDOW_MS / 2,
    offset_ms: 0,
};

const SESSION: WindowAssigner = WindowAssigner::Session { time: 1, gap_ms: 9 };

/// A graph with tumbling windows.
fn graph(source: &MemorySource, windows: &MemorySink, rows: &MemorySink) -> JobGraph {
    graph_with(TUMBLE, source, windows, rows)
}

/// source -> filter value >= 0 -> count and sum per key and window -> sink; and every row to a second sink.
fn graph_with(
    window: WindowAssigner,
    source: &(impl Source + Clone + 'static),
    windows: &MemorySink,
    rows: &MemorySink,
) -> JobGraph {
    let mut graph = JobGraph::new();
    let event_time = EventTime {
        column: 1,
        delay_ms: DELAY_MS,
        idle_timeout: None,
        max_drift_ms: None,
    };
    let input = graph
        .source(SourceNode {
            table: "events".into(),
            physical_schema: schema(),
            source: Arc::new(source.clone()),
            computed: None,
            event_time: Some(event_time),
        })
        .unwrap();
    let positive = from_fn("value >= 0", DataType::Boolean, |batch, _| {
        let values = batch.column(2).as_primitive::<Int64Type>();
        Ok(Arc::new(arrow::array::BooleanArray::from_iter(
            values.iter().map(|value| value.map(|value| value >= 0)),
        )))
    });
    let outputs = schema()
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| (field.as_ref().clone(), column(i)))
        .collect();
    let kept = graph
        .calc(
            "filter",
            input,
            Calc {
                predicate: Some(positive),
                outputs,
            },
        )
        .unwrap();
    let call = |name: &str, function, arguments| AggregateCall {
        function,
        arguments,
        filter: None,
        name: name.into(),
    };
    let spec = WindowAggregate {
        keys: vec![0],
        window,
        aggregates: vec![
            call("n", Arc::new(Count::new()), vec![]),
            call("sum", Arc::new(Sum::try_new(&DataType::Int64).unwrap()), vec![2]),
        ],
        window_names: ("window_start".into(), "window_end".into()),
        time: TimeDomain::EventTime,
        updates: None,
    };
    let counted = graph.window_aggregate("windows", kept, spec).unwrap();
    graph
        .sink(
            "windows-sink",
            counted,
            SinkNode {
                name: "windows".into(),
                sink: Arc::new(windows.clone()),
            },
        )
        .unwrap();
    graph
        .sink(
            "rows-sink",
            input,
            SinkNode {
                name: "rows".into(),
                sink: Arc::new(rows.clone()),
            },
        )
        .unwrap();
    graph
}

/// (key, window end) -> (count, sum); a window that comes twice is kept as a sum that fits nothing.
fn windows_of(sink: &MemorySink) -> BTreeMap<(i64, i64), Vec<(i64, i64)>> {
    let mut found: BTreeMap<(i64, i64), Vec<(i64, i64)>> = BTreeMap::new();
    for batch in sink.batches() {
        let int = |i: usize| batch.column(i).as_primitive::<Int64Type>().values().to_vec();
        let ends = batch
            .column(2)
            .as_primitive::<arrow::datatypes::TimestampMillisecondType>()
            .values()
            .to_vec();
        let (keys, counts, sums) = (int(0), int(3), int(4));
        for row in 0..batch.num_rows() {
            found
                .entry((keys[row], ends[row]))
                .or_default()
                .push((counts[row], sums[row]));
        }
    }
    found
}

fn reference(rows: &[(i64, i64, i64)]) -> BTreeMap<(i64, i64), Vec<(i64, i64)>> {
    reference_with(&TUMBLE, rows)
}

fn reference_with(window: &WindowAssigner, rows: &[(i64, i64, i64)]) -> BTreeMap<(i64, i64), Vec<(i64, i64)>> {
    let mut kept: Vec<_> = rows.iter().filter(|row| row.2 >= 0).copied().collect();
    kept.sort_unstable();
    let mut windows: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
    for (index, &(key, ts, value)) in kept.iter().enumerate() {
        let ends = match *window {
            WindowAssigner::Tumble { size_ms, .. } => vec![ts.div_euclid(size_ms) * size_ms + size_ms],
            WindowAssigner::Hop { size_ms, slide_ms, .. } => {
                let first = ts.div_euclid(slide_ms) * slide_ms + slide_ms;
                (first..=ts + size_ms).step_by(slide_ms as usize).collect()
            }
            WindowAssigner::Session { gap_ms, .. } => {
                let next = |i: usize| kept.get(i + 1).is_some_and(|n| n.0 == key && n.1 - kept[i].1 <= gap_ms);
                let last = (index..kept.len()).find(|&i| !next(i)).unwrap_or(index);
                vec![kept[last].1 + gap_ms]
            }
            _ => unreachable!("not tested here"),
        };
        for end in ends {
            let entry = windows.entry((key, end)).or_default();
            entry.0 += 1;
            entry.1 += value;
        }
    }
    windows
        .into_iter()
        .map(|(window, counts)| (window, vec![counts]))
        .collect()
}

fn rows_of(sink: &MemorySink) -> Vec<(i64, i64, i64)> {
    let mut found = Vec::new();
    for batch in sink.batches() {
        let times = batch
            .column(1)
            .as_primitive::<arrow::datatypes::TimestampMillisecondType>();
        let (keys, values) = (
            batch.column(0).as_primitive::<Int64Type>(),
            batch.column(2).as_primitive::<Int64Type>(),
        );
        found.extend((0..batch.num_rows()).map(|row| (keys.value(row), times.value(row), values.value(row))));
    }
    found.sort_unstable();
    found
}

fn config(workers: usize, store: Option<&SnapshotStore>) -> JobConfig {
    let mut config = JobConfig::new("test");
    config.parallelism = workers;
    config.checkpoints = store.map(|store| {
        let mut options = CheckpointOptions::new(store.clone());
        options.interval = Some(Duration::from_millis(20));
        options
    });
    config
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Rows in order of time, shifted by less than the watermark's delay, dealt to splits: none is late.
fn input() -> impl Strategy<Value = Vec<Vec<(i64, i64, i64)>>> {
    prop::collection::vec((0i64..6, 0i64..DELAY_MS, -3i64..50, 0usize..3), 1..400).prop_map(|rows| {
        let mut splits = vec![Vec::new(); 3];
        for (index, (key, shift, value, split)) in rows.into_iter().enumerate() {
            splits[split].push((key, index as i64 * 2 - shift, value));
        }
        splits
    })
}

fn source(splits: &[Vec<(i64, i64, i64)>], rows_max: usize) -> MemorySource {
    MemorySource::bounded(splits.iter().map(|rows| vec![batch(rows)]).collect()).with_rows_max(rows_max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// K = 4 ticks in flight, three workers, slow sinks and tiny batches against one tick at a time on one worker, and
    /// both against a few lines over all rows.
    #[test]
    fn output_does_not_depend_on_ticks_workers_or_delays(
        splits in input(), rows_max in 1usize..20, rows_per_tick in 1usize..60, delay in 0u64..3,
    ) {
        let runtime = runtime();
        let all: Vec<_> = splits.iter().flatten().copied().collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        for (workers, in_flight, delay) in [(1, 1, 0), (3, 4, delay)] {
            let windows = MemorySink::new(DeliveryGuarantee::AtLeastOnce).with_delay(Duration::from_millis(delay));
            let rows = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
            let mut config = config(workers, None);
            config.ticks = TickOptions { in_flight_max: in_flight, rows_max: rows_per_tick, output_rows_max: 3, ..TickOptions::default() };
            let job = start(graph(&source(&splits, rows_max), &windows, &rows), config, runtime.handle()).unwrap();
            prop_assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Finished);
            prop_assert_eq!(rows_of(&rows), sorted.clone());
            prop_assert_eq!(windows_of(&windows), reference(&all));
            let late: u64 = job.status().operators.iter().map(|operator| operator.counts.rows_late).sum();
            prop_assert_eq!(late, 0);
        }
    }

    /// Dropped again and again at any moment and started with another parallelism: nothing missing, nothing twice.
    #[test]
    fn kills_and_restores_lose_and_repeat_nothing(
        splits in input(), kills in prop::collection::vec((0u64..60, 1usize..4), 1..6),
        window in prop::sample::select(vec![TUMBLE, HOP, SESSION]),
    ) {
        let runtime = runtime();
        let store = SnapshotStore::in_memory();
        let all: Vec<_> = splits.iter().flatten().copied().collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        let windows = MemorySink::new(DeliveryGuarantee::ExactlyOnce).with_delay(Duration::from_millis(1));
        let rows = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
        let table = source(&splits, 4);
        for (after_ms, workers) in kills {
            let mut config = config(workers, Some(&store));
            config.ticks.rows_max = 8;
            let job = start(graph_with(window.clone(), &table, &windows, &rows), config, runtime.handle()).unwrap();
            std::thread::sleep(Duration::from_millis(after_ms));
            runtime.block_on(job.stop(StopMode::Now)).unwrap();
            runtime.block_on(job.wait()).unwrap();
        }
        let job = start(graph_with(window.clone(), &table, &windows, &rows), config(2, Some(&store)), runtime.handle()).unwrap();
        prop_assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Finished);
        prop_assert_eq!(rows_of(&rows), sorted);
        prop_assert_eq!(windows_of(&windows), reference_with(&window, &all));
    }
}

/// Split 0 says how many rows were read from it; a read from any other split takes until these are so many.
#[derive(Clone)]
struct Uneven {
    rows: MemorySource,
    read: Arc<AtomicUsize>,
    slow_until: usize,
}

struct UnevenReader {
    of: Box<dyn SplitReader>,
    source: Uneven,
    is_fast: bool,
}

impl Source for Uneven {
    fn enumerator(&self) -> tidemill_engine::Result<Box<dyn SplitEnumerator>> {
        self.rows.enumerator()
    }

    fn open_split(&self, split: &Split, context: SplitContext) -> tidemill_engine::Result<Box<dyn SplitReader>> {
        Ok(Box::new(UnevenReader {
            is_fast: context.worker == 0,
            of: self.rows.open_split(split, context)?,
            source: self.clone(),
        }))
    }
}

impl SplitReader for UnevenReader {
    fn read(&mut self, rows_max: usize, bytes_max: usize) -> tidemill_engine::Result<ReadOutcome> {
        let Uneven { read, slow_until, .. } = &self.source;
        if !self.is_fast {
            let begun = Instant::now();
            while read.load(Ordering::Relaxed) < *slow_until {
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "the other worker waits for this one"
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            // If it did not stop there, it would be far beyond by now.
            std::thread::sleep(Duration::from_millis(20));
            let first_tick = self.of.position() == "0";
            assert!(
                !first_tick || read.load(Ordering::Relaxed) == *slow_until,
                "it takes in more than twice its budget"
            );
        }
        let outcome = self.of.read(rows_max, bytes_max)?;
        if let (true, ReadOutcome::Rows(rows)) = (self.is_fast, &outcome) {
            read.fetch_add(rows.num_rows(), Ordering::Relaxed);
        }
        Ok(outcome)
    }

    fn position(&self) -> String {
        self.of.position()
    }

    fn is_ready(&mut self) -> bool {
        self.of.is_ready()
    }
}

#[test]
fn worker_takes_in_up_to_twice_its_budget_while_another_is_slow() {
    let runtime = runtime();
    let all: Vec<(i64, i64, i64)> = (0..400).map(|row| (row % 7, row, 1)).collect();
    let splits = [all[..320].to_vec(), all[320..].to_vec()];
    let uneven = Uneven {
        rows: source(&splits, 5),
        read: Arc::default(),
        slow_until: 200,
    };
    let windows = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
    let rows = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
    let mut config = config(2, None);
    config.ticks.rows_max = 100;
    // No tick ends because of the time.
    config.ticks.interval_min = Duration::from_secs(3600);
    let job = start(graph_with(TUMBLE, &uneven, &windows, &rows), config, runtime.handle()).unwrap();
    assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Finished);
    assert_eq!(rows_of(&rows).len(), 400);
    assert_eq!(windows_of(&windows), reference(&all));
}

#[test]
fn watermark_fires_windows_while_the_job_runs_and_late_rows_are_counted() {
    let runtime = runtime();
    let source = MemorySource::unbounded(1);
    let windows = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
    let rows = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
    let job = start(graph(&source, &windows, &rows), config(2, None), runtime.handle()).unwrap();
    source.push(0, batch(&[(1, 5, 1), (2, 7, 1)]));
    source.push(0, batch(&[(1, 29, 0)]));
    until(
        || windows.rows() == 2,
        "the window that ends at 10 fires at a watermark of 9 = 29 - 20",
    );
    source.push(0, batch(&[(1, 9, 1)]));
    let late = || {
        job.status()
            .operators
            .iter()
            .map(|operator| operator.counts.rows_late)
            .sum::<u64>()
    };
    until(|| late() == 1, "a row of a fired window is late");
    source.end();
    assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Finished);
    assert_eq!(windows.rows(), 3);
}

#[test]
fn stop_with_savepoint_then_restore_continues_exactly() {
    let runtime = runtime();
    let store = SnapshotStore::in_memory();
    let source = MemorySource::unbounded(2);
    let windows = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
    let rows = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
    let job = start(
        graph(&source, &windows, &rows),
        config(1, Some(&store)),
        runtime.handle(),
    )
    .unwrap();
    source.push(0, batch(&[(1, 5, 1)]));
    source.push(1, batch(&[(1, 8, 2)]));
    until(|| rows.rows() == 2, "rows appear with their checkpoint");
    runtime.block_on(job.savepoint("mid")).unwrap();
    let taken = runtime.block_on(job.savepoint("mid")).unwrap_err();
    assert!(taken.to_string().contains("exists already"), "{taken}");
    let taken = runtime
        .block_on(job.stop(StopMode::Savepoint("mid".into())))
        .unwrap_err();
    assert!(taken.to_string().contains("exists already"), "{taken}");
    source.push(0, batch(&[(2, 7, 1)]));
    until(|| rows.rows() == 3, "a job whose stop was refused goes on");
    runtime.block_on(job.stop(StopMode::Savepoint("end".into()))).unwrap();
    assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Stopped);
    source.push(0, batch(&[(1, 6, 4)]));
    source.end();
    let job = start(
        graph(&source, &windows, &rows),
        config(3, Some(&store)),
        runtime.handle(),
    )
    .unwrap();
    assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Finished);
    assert_eq!(
        windows_of(&windows),
        BTreeMap::from([((1, 10), vec![(3, 7)]), ((2, 10), vec![(1, 1)])])
    );
    assert_eq!(rows.rows(), 4);
}

#[test]
fn hand_driven_clock_decides_when_checkpoints_are_due() {
    let runtime = runtime();
    let time = ManualTime::at(1_000);
    let store = SnapshotStore::in_memory();
    let source = MemorySource::unbounded(1);
    let windows = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
    let rows = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
    let mut config = config(1, Some(&store));
    config.time = Arc::new(time.clone());
    if let Some(options) = &mut config.checkpoints {
        options.interval = Some(Duration::from_secs(10));
    }
    // The row is there before the first tick, since this clock lets no second one be due.
    source.push(0, batch(&[(1, 5, 1)]));
    let job = start(graph(&source, &windows, &rows), config, runtime.handle()).unwrap();
    until(|| job.status().operators[0].counts.rows_out == 1, "the row is read");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        (rows.rows(), job.status().checkpoints.len()),
        (0, 0),
        "no time has passed, so no checkpoint was due"
    );
    time.advance(Duration::from_secs(10));
    // Sinks publish before the status tells of it.
    until(|| !job.status().checkpoints.is_empty(), "a checkpoint is due and taken");
    assert_eq!(rows.rows(), 1, "the checkpoint makes the row visible");
    assert_eq!(job.status().checkpoints[0].completed_ms, 11_000);
}

#[test]
fn failing_expression_names_its_operator_and_publishes_nothing() {
    let runtime = runtime();
    let store = SnapshotStore::in_memory();
    let mut graph = JobGraph::new();
    let source = MemorySource::bounded(vec![vec![batch(&[(1, 5, 1)])]]);
    let input = graph
        .source(SourceNode {
            table: "events".into(),
            physical_schema: schema(),
            source: Arc::new(source),
            computed: None,
            event_time: None,
        })
        .unwrap();
    let fails = from_fn("1 / 0", DataType::Int64, |_, _| {
        Err(tidemill_engine::Error::operator("division by zero"))
    });
    let outputs = vec![(Field::new("x", DataType::Int64, true), fails)];
    let broken = graph
        .calc(
            "broken",
            input,
            Calc {
                predicate: None,
                outputs,
            },
        )
        .unwrap();
    let sink = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
    graph
        .sink(
            "sink",
            broken,
            SinkNode {
                name: "out".into(),
                sink: Arc::new(sink.clone()),
            },
        )
        .unwrap();
    let job = start(graph, config(2, Some(&store)), runtime.handle()).unwrap();
    let error = runtime.block_on(job.wait()).unwrap_err();
    assert_eq!(error.to_string(), "operator project (broken): division by zero");
    assert_eq!(sink.rows(), 0);
}

#[test]
fn exactly_once_sink_without_checkpoints_is_refused() {
    let runtime = runtime();
    let source = MemorySource::bounded(vec![]);
    let sink = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
    let job = start(graph(&source, &sink, &sink), config(1, None), runtime.handle()).unwrap();
    let error = runtime.block_on(job.wait()).unwrap_err();
    assert!(error.to_string().contains("needs checkpoints"), "{error}");
}

/// Waits for something that the job does by itself; a minute is for ever.
fn until(mut condition: impl FnMut() -> bool, what: &str) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("this did not happen: {what}");
}

/// A sink that fails in one way.
#[derive(Clone, Copy)]
enum BrokenSink {
    DoesNotOpen,
    PanicsInPreCommit,
}

impl Sink for BrokenSink {
    fn guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::AtLeastOnce
    }

    fn writer(&self, _context: SinkContext) -> tidemill_engine::Result<Box<dyn SinkWriter>> {
        match self {
            BrokenSink::DoesNotOpen => Err(tidemill_engine::Error::operator("directory /x is not writable")),
            BrokenSink::PanicsInPreCommit => Ok(Box::new(*self)),
        }
    }

    fn committer(&self, _: CommitterContext) -> tidemill_engine::Result<Option<Arc<dyn SinkCommitter>>> {
        Ok(None)
    }
}

impl SinkWriter for BrokenSink {
    fn write(&mut self, _batch: &RecordBatch, _wall_time_ms: i64) -> tidemill_engine::Result<()> {
        Ok(())
    }

    fn tick_closed(&mut self, _close: &TickClose) -> tidemill_engine::Result<Progress> {
        Ok(Progress::Done)
    }

    fn pre_commit(&mut self, _id: PreCommitId) -> tidemill_engine::Result<PreCommit> {
        Ok(Box::pin(async { panic!("the sink lost its mind") }))
    }
}

fn straight(source: &MemorySource, sink: Arc<dyn Sink>) -> JobGraph {
    let mut graph = JobGraph::new();
    let input = graph
        .source(SourceNode {
            table: "events".into(),
            physical_schema: schema(),
            source: Arc::new(source.clone()),
            computed: None,
            event_time: None,
        })
        .unwrap();
    graph
        .sink(
            "out",
            input,
            SinkNode {
                name: "out".into(),
                sink,
            },
        )
        .unwrap();
    graph
}

#[test]
fn sink_that_does_not_open_says_why() {
    let runtime = runtime();
    let source = MemorySource::unbounded(1);
    let graph = straight(&source, Arc::new(BrokenSink::DoesNotOpen));
    let job = start(graph, config(2, None), runtime.handle()).unwrap();
    let error = runtime.block_on(job.wait()).unwrap_err();
    assert!(error.to_string().contains("directory /x is not writable"), "{error}");
}

#[test]
fn panic_in_a_sinks_io_ends_the_job_with_its_words() {
    let runtime = runtime();
    let store = SnapshotStore::in_memory();
    let source = MemorySource::unbounded(1);
    let graph = straight(&source, Arc::new(BrokenSink::PanicsInPreCommit));
    let job = start(graph, config(1, Some(&store)), runtime.handle()).unwrap();
    let error = runtime.block_on(job.wait()).unwrap_err();
    assert!(error.to_string().contains("the sink lost its mind"), "{error}");
}

#[test]
fn job_without_checkpoints_refuses_what_needs_them() {
    let runtime = runtime();
    let source = MemorySource::unbounded(1);
    let sink = Arc::new(MemorySink::new(DeliveryGuarantee::AtLeastOnce));
    let job = start(straight(&source, sink), config(1, None), runtime.handle()).unwrap();
    for refused in [
        runtime.block_on(job.savepoint("s")).map(|_| ()),
        runtime.block_on(job.checkpoint()).map(|_| ()),
        runtime.block_on(job.stop(StopMode::Checkpoint)),
    ] {
        assert!(refused.unwrap_err().to_string().contains("keeps no checkpoints"));
    }
    runtime.block_on(job.stop(StopMode::Now)).unwrap();
    assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Stopped);
}

#[test]
fn finished_job_started_again_finishes_again_and_repeats_nothing() {
    let runtime = runtime();
    let store = SnapshotStore::in_memory();
    let source = source(&[vec![(1, 5, 1), (2, 17, 3)], vec![(1, 6, 1)]], 1);
    let windows = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
    let rows = MemorySink::new(DeliveryGuarantee::ExactlyOnce);
    for workers in [2, 1, 3] {
        let job = start(
            graph(&source, &windows, &rows),
            config(workers, Some(&store)),
            runtime.handle(),
        )
        .unwrap();
        assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Finished);
        assert_eq!((windows.rows(), rows.rows()), (2, 3));
    }
}

#[test]
fn union_is_nullable_where_one_input_is_and_has_the_first_ones_names() {
    let runtime = runtime();
    let nullable = Arc::new(Schema::new(vec![Field::new("other", DataType::Int64, true)]));
    let strict = Arc::new(Schema::new(vec![Field::new("first", DataType::Int64, false)]));
    let values = |schema: &SchemaRef, values: Vec<Option<i64>>| {
        RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(Int64Array::from(values))]).unwrap()
    };
    let mut graph = JobGraph::new();
    let mut inputs = Vec::new();
    for (table, rows) in [
        ("a", values(&strict, vec![Some(1), Some(2)])),
        ("b", values(&nullable, vec![Some(1), None, None])),
    ] {
        let node = SourceNode {
            table: table.into(),
            physical_schema: rows.schema(),
            source: Arc::new(MemorySource::bounded(vec![vec![rows]])),
            computed: None,
            event_time: None,
        };
        inputs.push(graph.source(node).unwrap());
    }
    let both = graph.union("both", inputs).unwrap();
    let keyed = CustomOperator {
        name: "pass".into(),
        distributions: vec![Distribution::Hash(vec![0])],
        schema: Arc::clone(graph.schema(both)),
        factory: Arc::new(|_| Ok(Box::new(Pass))),
        watermark_delay_ms: 0,
    };
    let passed = graph.operator("pass", vec![both], keyed).unwrap();
    let sink = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
    let node = SinkNode {
        name: "out".into(),
        sink: Arc::new(sink.clone()),
    };
    graph.sink("out", passed, node).unwrap();
    let job = start(graph, config(3, None), runtime.handle()).unwrap();
    runtime.block_on(job.wait()).unwrap();
    assert_eq!(sink.rows(), 5);
    assert!(
        sink.batches()
            .iter()
            .all(|batch| batch.schema().field(0).name() == "first")
    );
}

/// Passes rows on.
struct Pass;

impl Operator for Pass {
    fn on_batch(
        &mut self,
        _input: usize,
        batch: &RecordBatch,
        _tick: &OpenTick,
        out: &mut Output,
    ) -> tidemill_engine::Result<Progress> {
        out.emit(batch.clone());
        Ok(Progress::Done)
    }

    fn on_close(&mut self, _close: &TickClose, _out: &mut Output) -> tidemill_engine::Result<Progress> {
        Ok(Progress::Done)
    }
}

/// The key whose lookup never comes back.
const UNANSWERED: i64 = 998;

/// Answers every batch after a time that depends on its first key, so that answers overtake one another.
struct SlowLookup;

impl AsyncOperator for SlowLookup {
    fn request(&self, batch: RecordBatch, _tick: OpenTick) -> BoxFuture<'static, tidemill_engine::Result<RecordBatch>> {
        Box::pin(async move {
            let first = batch.column(0).as_primitive::<Int64Type>().value(0);
            if first == UNANSWERED {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(u64::try_from(first % 7).unwrap())).await;
            assert!(first != 999, "nobody knows key 999");
            Ok(batch)
        })
    }
}

fn looking_up(source: &MemorySource, sink: &MemorySink, options: AsyncOptions) -> JobGraph {
    let mut graph = JobGraph::new();
    let node = SourceNode {
        table: "events".into(),
        physical_schema: schema(),
        source: Arc::new(source.clone()),
        computed: None,
        event_time: None,
    };
    let input = graph.source(node).unwrap();
    let node = AsyncNode {
        name: "lookup".into(),
        schema: schema(),
        operator: Arc::new(SlowLookup),
        options,
    };
    let found = graph.async_operator("lookup", input, node).unwrap();
    let node = SinkNode {
        name: "out".into(),
        sink: Arc::new(sink.clone()),
    };
    graph.sink("out", found, node).unwrap();
    graph
}

#[test]
fn asynchronous_answers_keep_their_order_and_none_is_lost() {
    let runtime = runtime();
    let rows: Vec<(i64, i64, i64)> = (0..300).map(|n| (n, n, n)).collect();
    for (capacity, order) in [
        (1, AsyncOrder::Ordered),
        (8, AsyncOrder::Ordered),
        (8, AsyncOrder::Unordered),
    ] {
        let sink = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
        let table = source(std::slice::from_ref(&rows), 3);
        let options = AsyncOptions {
            capacity,
            order,
            ..AsyncOptions::default()
        };
        let job = start(looking_up(&table, &sink, options), config(2, None), runtime.handle()).unwrap();
        assert_eq!(runtime.block_on(job.wait()).unwrap(), JobEnd::Finished);
        assert_eq!(rows_of(&sink), rows);
        if order == AsyncOrder::Ordered {
            let keys = sink.concat(&schema()).unwrap();
            let keys = keys.column(0).as_primitive::<Int64Type>().values().to_vec();
            assert!(keys.is_sorted(), "{keys:?}");
        }
    }
}

#[test]
fn request_that_panics_or_takes_too_long_fails_the_job() {
    let runtime = runtime();
    for (key, timeout, expected) in [
        (999, 60_000, "nobody knows key 999"),
        (UNANSWERED, 1, "was not answered within 1ms"),
    ] {
        let sink = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
        let options = AsyncOptions {
            timeout: Duration::from_millis(timeout),
            ..AsyncOptions::default()
        };
        let table = source(&[vec![(key, 1, 1)]], 1);
        let job = start(looking_up(&table, &sink, options), config(1, None), runtime.handle()).unwrap();
        let error = runtime.block_on(job.wait()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("lookup"), "{error}");
    }
}
