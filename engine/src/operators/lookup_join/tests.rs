//! The operator against a slow reference, over a table that answers late, out of order, or not at all.

use super::LookupJoinOperator;
use crate::error::{Error, Result};
use crate::expr::from_fn;
use crate::graph::JobGraph;
use crate::lookup::{
    FullCacheOptions, LookupCache, LookupFuture, LookupJoin, LookupJoinKind, LookupOptions, LookupSource,
    PartialCacheOptions,
};
use crate::operator::{
    AsyncContext, AsyncOperator, AsyncOptions, AsyncOrder, OpenTick, Operator, Output, Progress, TickClose,
};
use crate::operators::asynchronous::AsyncRunner;
use crate::time::{ManualTime, Tick, Watermark};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use futures::FutureExt as _;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// A row of the table: key (two columns), value.
type TableRow = (Option<i64>, Option<String>, i64);
/// A row of the stream: key (two columns), value.
type StreamRow = (Option<i64>, Option<String>, i64);

/// A table in memory that notes what it is asked.
#[derive(Default)]
struct Table {
    rows: Mutex<Vec<TableRow>>,
    asked: Mutex<Vec<usize>>,
    loads: AtomicUsize,
    /// So many of the next requests fail.
    failures: AtomicUsize,
    /// Answers are delayed by turns, so that later ones come first.
    slow: AtomicBool,
    turn: AtomicU64,
    /// Answers all rows, also those nobody asked for.
    chatty: AtomicBool,
}

fn table_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn stream_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn batch(schema: SchemaRef, rows: &[(Option<i64>, Option<String>, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))),
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1.clone()))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

struct Source(Arc<Table>);

impl Source {
    async fn answer(table: Arc<Table>, keys: Option<RecordBatch>) -> Result<RecordBatch> {
        if table.slow.load(Ordering::SeqCst) {
            let turn = table.turn.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(3 * (3 - turn % 4))).await;
        }
        let failing = |left: usize| left.checked_sub(1);
        if table
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, failing)
            .is_ok()
        {
            return Err(Error::operator("the table is out for lunch"));
        }
        let mut rows = table.rows.lock().unwrap().clone();
        if let Some(keys) = keys
            && !table.chatty.load(Ordering::SeqCst)
        {
            let (k, s) = (
                keys.column(0).as_primitive::<Int64Type>(),
                keys.column(1).as_string::<i32>(),
            );
            assert_eq!((k.null_count(), s.null_count()), (0, 0));
            let asked: Vec<_> = (0..keys.num_rows())
                .map(|row| (k.value(row), s.value(row).to_owned()))
                .collect();
            rows.retain(|(k, s, _)| asked.iter().any(|(a, b)| *k == Some(*a) && s.as_ref() == Some(b)));
            // In another order than asked.
            rows.reverse();
            rows.sort_by_key(|(k, _, _)| *k);
        }
        Ok(batch(table_schema(), &rows))
    }
}

impl LookupSource for Source {
    fn lookup(&self, keys: RecordBatch) -> LookupFuture<RecordBatch> {
        self.0.asked.lock().unwrap().push(keys.num_rows());
        Self::answer(Arc::clone(&self.0), Some(keys)).boxed()
    }

    fn load(&self) -> LookupFuture<Vec<RecordBatch>> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        let table = Arc::clone(&self.0);
        async move { Ok(vec![Self::answer(table, None).await?]) }.boxed()
    }
}

/// Odd sums only: `n + v`.
fn odd() -> crate::expr::Expr {
    from_fn("odd", DataType::Boolean, |batch, _| {
        let (n, v) = (
            batch.column(2).as_primitive::<Int64Type>(),
            batch.column(5).as_primitive::<Int64Type>(),
        );
        let odd = n.iter().zip(v).map(|(n, v)| Some((n? + v?) % 2 != 0));
        Ok(Arc::new(BooleanArray::from_iter(odd)) as ArrayRef)
    })
}

struct Joined {
    operator: Arc<LookupJoinOperator>,
    runner: AsyncRunner,
    woken: mpsc::Receiver<()>,
    time: ManualTime,
    out: Output,
    _runtime: tokio::runtime::Runtime,
}

impl Joined {
    fn new(table: &Arc<Table>, kind: LookupJoinKind, residual: bool, options: LookupOptions) -> Self {
        let output = |name: &str, data_type: DataType| Field::new(name, data_type, true);
        let outputs = vec![
            (output("n", DataType::Int64), 2),
            (output("a", DataType::Int64), 0),
            (output("v", DataType::Int64), 5),
        ];
        let schema = Arc::new(Schema::new(
            outputs.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>(),
        ));
        let join = LookupJoin {
            table: "dim".into(),
            source: Arc::new(Source(Arc::clone(table))),
            schema: table_schema(),
            keys: vec![(0, 0), (1, 1)],
            kind,
            residual: residual.then(odd),
            outputs,
            options: LookupOptions {
                retry_pause: Duration::from_millis(1),
                ..options.clone()
            },
        };
        let operator = Arc::new(LookupJoinOperator::new(join, &stream_schema(), Arc::clone(&schema)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (wake, woken) = mpsc::channel();
        let runner = AsyncRunner::new(
            Arc::clone(&operator) as Arc<dyn AsyncOperator>,
            AsyncOptions {
                capacity: options.requests_max,
                order: AsyncOrder::Ordered,
                timeout: Duration::from_secs(600),
            },
            schema,
            runtime.handle().clone(),
            Arc::new(move || {
                let _ = wake.send(());
            }),
        );
        let time = ManualTime::at(0);
        let joined = Self {
            operator,
            runner,
            woken,
            time,
            out: Output::with_budget(1 << 20),
            _runtime: runtime,
        };
        joined.start(1);
        joined
    }

    fn start(&self, generation: u64) {
        self.operator.start(&AsyncContext {
            runtime: self._runtime.handle().clone(),
            time: Arc::new(self.time.clone()),
            generation,
            metrics: Arc::default(),
        });
    }

    /// Runs one tick; gives the rows (n, a, v).
    fn tick(&mut self, wall_time_ms: i64, batches: &[Vec<StreamRow>]) -> Result<Vec<(i64, Option<i64>, Option<i64>)>> {
        let open = OpenTick {
            tick: Tick(1),
            wall_time_ms,
            watermarks: vec![Watermark::NONE],
        };
        for rows in batches {
            let batch = batch(stream_schema(), rows);
            while self.runner.on_batch(0, &batch, &open, &mut self.out)? == Progress::More {
                self.woken.recv().unwrap();
            }
        }
        let close = TickClose {
            tick: Tick(1),
            wall_time_ms,
            watermarks: vec![Watermark::NONE],
            is_last: false,
        };
        while self.runner.on_close(&close, &mut self.out)? == Progress::More {
            self.woken.recv().unwrap();
        }
        let mut rows = Vec::new();
        for batch in self.out.take() {
            let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().clone();
            let (n, a, v) = (column(0), column(1), column(2));
            for row in 0..batch.num_rows() {
                let value = |array: &Int64Array| array.is_valid(row).then(|| array.value(row));
                rows.push((n.value(row), value(&a), value(&v)));
            }
        }
        Ok(rows)
    }
}

/// Row by row.
fn reference(
    table: &[TableRow],
    kind: LookupJoinKind,
    residual: bool,
    batches: &[Vec<StreamRow>],
) -> Vec<(i64, Option<i64>, Vec<Option<i64>>)> {
    let mut rows = Vec::new();
    for (a, b, n) in batches.iter().flatten() {
        let equal = |(k, s, _): &&TableRow| a.is_some() && b.is_some() && k == a && s == b;
        let holds = |v: &i64| !residual || (n + v) % 2 != 0;
        let mut found: Vec<Option<i64>> = table
            .iter()
            .filter(equal)
            .map(|row| row.2)
            .filter(holds)
            .map(Some)
            .collect();
        if found.is_empty() && kind == LookupJoinKind::Left {
            found.push(None);
        }
        // The rows of a key may come in any order.
        found.sort_unstable();
        if !found.is_empty() {
            rows.push((*n, *a, found));
        }
    }
    rows
}

/// Puts the matches of a row together; every row of the stream has a number of its own.
fn grouped(rows: Vec<(i64, Option<i64>, Option<i64>)>) -> Vec<(i64, Option<i64>, Vec<Option<i64>>)> {
    let mut grouped: Vec<(i64, Option<i64>, Vec<Option<i64>>)> = Vec::new();
    for (n, a, v) in rows {
        match grouped.last_mut() {
            Some(last) if last.0 == n => last.2.push(v),
            _ => grouped.push((n, a, vec![v])),
        }
    }
    grouped.iter_mut().for_each(|row| row.2.sort_unstable());
    grouped
}

fn partial(rows_max: usize) -> LookupOptions {
    LookupOptions {
        cache: LookupCache::Partial(PartialCacheOptions {
            rows_max,
            ..PartialCacheOptions::default()
        }),
        ..LookupOptions::default()
    }
}

fn full(reload_ms: Option<u64>) -> LookupOptions {
    LookupOptions {
        cache: LookupCache::Full(FullCacheOptions {
            reload_interval: reload_ms.map(Duration::from_millis),
            ..FullCacheOptions::default()
        }),
        ..LookupOptions::default()
    }
}

fn key() -> impl Strategy<Value = (Option<i64>, Option<String>)> {
    let text = prop_oneof![Just(None), Just(Some("x".to_owned())), Just(Some(String::new()))];
    (prop_oneof![1 => Just(None), 9 => (0..12i64).prop_map(Some)], text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_cache_joins_as_the_reference_does_in_the_order_of_the_stream(
        table in prop::collection::vec((key(), 0..100i64), 0..30),
        stream in prop::collection::vec(prop::collection::vec(key(), 0..20), 0..8),
        left: bool,
        residual: bool,
        slow: bool,
        chatty: bool,
        cache in 0..4usize,
        requests_max in 1..4usize,
        failures in 0..3usize,
    ) {
        let rows: Vec<TableRow> = table.into_iter().map(|((k, s), v)| (k, s, v)).collect();
        let kind = if left { LookupJoinKind::Left } else { LookupJoinKind::Inner };
        let mut n = 0;
        let mut numbered = |keys: Vec<(Option<i64>, Option<String>)>| -> Vec<StreamRow> {
            keys.into_iter().map(|(a, b)| { n += 1; (a, b, n) }).collect()
        };
        let batches: Vec<Vec<StreamRow>> = stream.into_iter().map(&mut numbered).collect();
        let held = Arc::new(Table::default());
        *held.rows.lock().unwrap() = rows.clone();
        held.slow.store(slow, Ordering::SeqCst);
        held.chatty.store(chatty, Ordering::SeqCst);
        held.failures.store(failures, Ordering::SeqCst);
        let options = match cache {
            0 => LookupOptions::default(),
            1 => partial(4),
            2 => partial(1_000),
            _ => full(None),
        };
        let mut joined = Joined::new(&held, kind, residual, LookupOptions { requests_max, ..options });
        let expected = reference(&rows, kind, residual, &batches);
        // A second time over, with what the caches have by now.
        for tick in 0..2 {
            let found = joined.tick(tick, &batches).unwrap();
            prop_assert_eq!(&grouped(found), &expected);
        }
    }
}

fn row(k: i64) -> StreamRow {
    (Some(k), Some("x".into()), k)
}

fn dim(rows: &[(i64, i64)]) -> Arc<Table> {
    let table = Arc::new(Table::default());
    *table.rows.lock().unwrap() = rows.iter().map(|(k, v)| (Some(*k), Some("x".into()), *v)).collect();
    table
}

#[test]
fn a_batch_asks_once_for_each_key_and_a_cache_only_for_what_it_does_not_know() {
    let table = dim(&[(1, 10), (2, 20)]);
    let mut joined = Joined::new(&table, LookupJoinKind::Inner, false, LookupOptions::default());
    let rows = vec![row(1), row(1), row(2), row(3), (None, Some("x".into()), 9)];
    for _ in 0..2 {
        assert_eq!(joined.tick(0, std::slice::from_ref(&rows)).unwrap().len(), 3);
    }
    assert_eq!(*table.asked.lock().unwrap(), [3, 3]);

    let table = dim(&[(1, 10), (2, 20)]);
    let mut joined = Joined::new(&table, LookupJoinKind::Inner, false, partial(100));
    joined.tick(0, &[vec![row(1), row(3)]]).unwrap();
    let found = joined.tick(0, &[rows]).unwrap();
    assert_eq!(
        found.iter().map(|row| row.2).collect::<Vec<_>>(),
        [Some(10), Some(10), Some(20)]
    );
    // Key 3 has no rows, which is remembered.
    assert_eq!(*table.asked.lock().unwrap(), [2, 1]);
}

#[test]
fn missing_keys_are_asked_for_again_when_they_are_not_remembered() {
    let table = dim(&[]);
    let options = LookupOptions {
        cache: LookupCache::Partial(PartialCacheOptions {
            remembers_missing: false,
            ..PartialCacheOptions::default()
        }),
        ..LookupOptions::default()
    };
    let mut joined = Joined::new(&table, LookupJoinKind::Left, false, options);
    assert_eq!(joined.tick(0, &[vec![row(1)]]).unwrap(), [(1, Some(1), None)]);
    table.rows.lock().unwrap().push((Some(1), Some("x".into()), 7));
    assert_eq!(joined.tick(0, &[vec![row(1)]]).unwrap(), [(1, Some(1), Some(7))]);
}

#[test]
fn keys_expire_by_the_ticks_wall_time() {
    let expiring = |write: Option<u64>, access: Option<u64>| LookupOptions {
        cache: LookupCache::Partial(PartialCacheOptions {
            expire_after_write: write.map(Duration::from_millis),
            expire_after_access: access.map(Duration::from_millis),
            ..PartialCacheOptions::default()
        }),
        ..LookupOptions::default()
    };
    // Asked at these times; which of them reached the table?
    let ticks = [0i64, 60, 99, 120, 160, 300];
    for (options, expected) in [
        (expiring(Some(100), None), vec![0, 120, 300]),
        (expiring(None, Some(100)), vec![0, 300]),
        (expiring(Some(100), Some(50)), vec![0, 60, 160, 300]),
    ] {
        let table = dim(&[(1, 10)]);
        let mut joined = Joined::new(&table, LookupJoinKind::Inner, false, options);
        let mut reached = Vec::new();
        for at in ticks {
            let before = table.asked.lock().unwrap().len();
            assert_eq!(joined.tick(at, &[vec![row(1)]]).unwrap().len(), 1);
            if table.asked.lock().unwrap().len() > before {
                reached.push(at);
            }
        }
        assert_eq!(reached, expected);
    }
}

#[test]
fn a_request_that_keeps_failing_fails_the_job_after_its_retries() {
    let table = dim(&[(1, 10)]);
    table.failures.store(4, Ordering::SeqCst);
    let mut joined = Joined::new(&table, LookupJoinKind::Inner, false, LookupOptions::default());
    let error = joined.tick(0, &[vec![row(1)]]).unwrap_err();
    assert_eq!(table.asked.lock().unwrap().len(), 4);
    assert!(error.to_string().contains("dim: the table is out for lunch"), "{error}");
}

#[test]
fn a_table_that_cannot_be_loaded_fails_the_job_and_the_next_run_loads_it_again() {
    let table = dim(&[(1, 10)]);
    table.failures.store(4, Ordering::SeqCst);
    let mut joined = Joined::new(&table, LookupJoinKind::Inner, false, full(None));
    assert!(joined.tick(0, &[vec![row(1)]]).is_err());
    let mut again = Joined::new(&table, LookupJoinKind::Inner, false, full(None));
    assert_eq!(again.tick(0, &[vec![row(1)]]).unwrap().len(), 1);
    // The same operator in a later run of the job, and other workers of that run.
    joined.start(2);
    joined.start(2);
    let found = joined.operator.request(
        batch(stream_schema(), &[row(1)]),
        OpenTick {
            tick: Tick(1),
            wall_time_ms: 0,
            watermarks: Vec::new(),
        },
    );
    assert_eq!(joined._runtime.block_on(found).unwrap().num_rows(), 1);
    assert_eq!(table.loads.load(Ordering::SeqCst), 4 + 1 + 1);
}

#[test]
fn a_full_cache_is_read_again_at_its_interval_and_keeps_its_rows_when_that_fails() {
    let table = dim(&[(1, 10)]);
    let mut joined = Joined::new(&table, LookupJoinKind::Inner, false, full(Some(1_000)));
    assert_eq!(joined.tick(0, &[vec![row(1)]]).unwrap(), [(1, Some(1), Some(10))]);
    *table.rows.lock().unwrap() = vec![(Some(1), Some("x".into()), 11)];
    // Not yet.
    joined.time.advance(Duration::from_millis(999));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(table.loads.load(Ordering::SeqCst), 1);
    // A load that fails, with all its retries.
    table.failures.store(4, Ordering::SeqCst);
    joined.time.advance(Duration::from_millis(1));
    while table.failures.load(Ordering::SeqCst) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(joined.tick(0, &[vec![row(1)]]).unwrap(), [(1, Some(1), Some(10))]);
    // And one that does not. The clock is moved until the loader, which may still be at the last one, sees it.
    loop {
        joined.time.advance(Duration::from_millis(1_000));
        std::thread::sleep(Duration::from_millis(5));
        if joined.tick(0, &[vec![row(1)]]).unwrap() == [(1, Some(1), Some(11))] {
            break;
        }
    }
}

#[test]
fn a_table_of_too_many_rows_is_told_with_the_limit() {
    let table = dim(&[(1, 10), (2, 20), (3, 30)]);
    let options = LookupOptions {
        cache: LookupCache::Full(FullCacheOptions {
            reload_interval: None,
            rows_max: 2,
        }),
        ..LookupOptions::default()
    };
    let mut joined = Joined::new(&table, LookupJoinKind::Inner, false, options);
    let error = joined.tick(0, &[vec![row(1)]]).unwrap_err();
    assert!(error.to_string().contains("lookup.full-cache.max-rows"), "{error}");
}

#[test]
fn a_partial_cache_stays_within_its_limit_and_lets_go_of_rows_nobody_has() {
    use super::cache::KeyCache;
    use super::index::TableIndex;
    use super::matching::Matching;
    let table = dim(&[]);
    let join = LookupJoin {
        table: "dim".into(),
        source: Arc::new(Source(table)),
        schema: table_schema(),
        keys: vec![(0, 0), (1, 1)],
        kind: LookupJoinKind::Inner,
        residual: None,
        outputs: Vec::new(),
        options: LookupOptions::default(),
    };
    let matching = Matching::new(join, &stream_schema(), Arc::new(Schema::empty()));
    let mut cache = KeyCache::new(PartialCacheOptions {
        rows_max: 100,
        ..PartialCacheOptions::default()
    });
    for round in 0..2_000i64 {
        // Ten keys a round, each with up to three rows; the first key is in every round.
        let keys: Vec<i64> = std::iter::once(0).chain((1..10).map(|k| round * 10 + k)).collect();
        let stream = batch(stream_schema(), &keys.iter().map(|k| row(*k)).collect::<Vec<_>>());
        let distinct = matching.distinct(&stream).unwrap();
        let known = cache.known(&distinct, round);
        let rows: Vec<TableRow> = keys
            .iter()
            .flat_map(|k| (0..k % 4).map(|v| (Some(*k), Some("x".to_owned()), v)))
            .chain([(Some(0), Some("x".to_owned()), -1)])
            .collect();
        assert_eq!(
            known.missing.contains(&0),
            round == 0,
            "the key that is always wanted stays"
        );
        let asked = distinct
            .batch(
                &known.missing,
                &Arc::new(Schema::new(table_schema().fields()[..2].to_vec())),
            )
            .unwrap();
        let index = TableIndex::new(&table_schema(), &[batch(table_schema(), &rows)], &[0, 1]).unwrap();
        let fetched = index.rows_by_key(asked.columns()).unwrap();
        cache.learn(&distinct, &known.missing, &fetched, round).unwrap();
        let (weight, held, live) = cache.sizes();
        assert!(
            weight <= 100 && live <= weight && held <= 2 * live + 8_192,
            "{weight} {held} {live}"
        );
        let known = cache.known(&distinct, round);
        if let Some(rows) = cache.gather(&known).unwrap() {
            let k = rows.column(0).as_primitive::<Int64Type>();
            assert!(k.values().iter().all(|k| keys.contains(k)));
        }
    }
}

#[test]
fn keys_of_other_types_than_the_tables_are_refused() {
    let table = dim(&[]);
    let join = LookupJoin {
        table: "dim".into(),
        source: Arc::new(Source(table)),
        schema: table_schema(),
        keys: vec![(1, 0)],
        kind: LookupJoinKind::Inner,
        residual: None,
        outputs: Vec::new(),
        options: LookupOptions::default(),
    };
    let mut graph = JobGraph::new();
    let source = crate::graph::SourceNode {
        table: "t".into(),
        physical_schema: stream_schema(),
        source: Arc::new(crate::testing::MemorySource::bounded(Vec::new())),
        computed: None,
        event_time: None,
    };
    let stream = graph.source(source).unwrap();
    let error = graph.lookup_join("l", stream, join).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("column k is Int64 and is compared with Utf8"),
        "{error}"
    );
}
