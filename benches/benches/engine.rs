//! The engine: tick loop, exchange, tumbling and hopping aggregation. Each iteration runs a whole job over its rows.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use tidemill_engine::graph::{CustomOperator, Distribution, JobGraph, SinkNode, SourceNode};
use tidemill_engine::job::{JobConfig, start};
use tidemill_engine::operator::{OpenTick, Operator, Output, Progress, TickClose};
use tidemill_engine::sink::DeliveryGuarantee;
use tidemill_engine::testing::{MemorySink, MemorySource};

const ROWS: u64 = 2_000_000;

fn run(graph: JobGraph, workers: usize, runtime: &tokio::runtime::Runtime) {
    let mut config = JobConfig::new("bench");
    config.parallelism = workers;
    let job = start(graph, config, runtime.handle()).expect("a valid graph");
    runtime.block_on(job.wait()).expect("the job ends");
}

/// Passes rows on; with `Hash` its input goes through the exchange.
struct Pass;

impl Operator for Pass {
    fn on_batch(
        &mut self,
        _input: usize,
        batch: &arrow::array::RecordBatch,
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

fn passing(batches: &[Vec<arrow::array::RecordBatch>], distribution: Distribution) -> JobGraph {
    let schema = batches[0][0].schema();
    let mut graph = JobGraph::new();
    let source = SourceNode {
        table: "rows".into(),
        physical_schema: Arc::clone(&schema),
        source: Arc::new(MemorySource::bounded(batches.to_vec())),
        computed: None,
        event_time: None,
    };
    let input = graph.source(source).expect("a new table");
    let pass = CustomOperator {
        name: "pass".into(),
        distributions: vec![distribution],
        schema,
        factory: Arc::new(|_| Ok(Box::new(Pass))),
        watermark_delay_ms: 0,
    };
    let passed = graph.operator("pass", vec![input], pass).expect("a new uid");
    let sink = Arc::new(MemorySink::new(DeliveryGuarantee::AtLeastOnce));
    graph
        .sink(
            "out",
            passed,
            SinkNode {
                name: "out".into(),
                sink,
            },
        )
        .expect("a new uid");
    graph
}

fn rows() -> Vec<Vec<arrow::array::RecordBatch>> {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    let batch = |first: i64| {
        let column =
            |factor: i64| Arc::new(Int64Array::from_iter_values((first..first + 8192).map(|i| i * factor))) as ArrayRef;
        RecordBatch::try_from_iter([("key", column(7)), ("a", column(1)), ("b", column(3)), ("c", column(5))])
            .expect("columns of one length")
    };
    let batches: Vec<RecordBatch> = (0..ROWS as i64 / 8192).map(|index| batch(index * 8192)).collect();
    batches
        .chunks(batches.len().div_ceil(4))
        .map(<[RecordBatch]>::to_vec)
        .collect()
}

fn engine(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads can be started");
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(ROWS)).sample_size(10);
    for workers in [1, 2] {
        group.bench_function(format!("tick_loop/tumbling_count/{workers}_workers"), |bencher| {
            let graph = || tidemill_benches::tumbling_count(ROWS, 1_000).expect("valid options");
            bencher.iter_batched(graph, |graph| run(graph, workers, &runtime), BatchSize::PerIteration);
        });
        group.bench_function(
            format!("tumbling_aggregation/100000_keys/{workers}_workers"),
            |bencher| {
                let graph = || tidemill_benches::tumbling_count(ROWS, 100_000).expect("valid options");
                bencher.iter_batched(graph, |graph| run(graph, workers, &runtime), BatchSize::PerIteration);
            },
        );
    }
    for slides in [1, 5, 60] {
        // A row is in this many windows; what it costs should not depend on that.
        group.bench_function(format!("hopping_aggregation/{slides}_windows_per_row"), |bencher| {
            let graph = || tidemill_benches::hopping_count(ROWS, 1_000, slides).expect("valid options");
            bencher.iter_batched(graph, |graph| run(graph, 1, &runtime), BatchSize::PerIteration);
        });
    }
    let rows = rows();
    for (name, distribution) in [("local", Distribution::Local), ("by_key", Distribution::Hash(vec![0]))] {
        group.bench_function(format!("exchange/{name}/2_workers"), |bencher| {
            let graph = || passing(&rows, distribution.clone());
            bencher.iter_batched(graph, |graph| run(graph, 2, &runtime), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
