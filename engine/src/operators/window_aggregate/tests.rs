//! Tests of the aggregation over tumbling windows; `windows` has those of the others, `updating` those of
//! windows that are told more than once and of the wall clock.

mod session_rows;
mod updating;
mod windows;

use super::*;
use crate::aggregate::{AggregateFunction, Avg, Count, CountDistinct, Max, Sum};
use crate::key::KeyGroupRange;
use crate::time::Tick;
use arrow::array::{Int32Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{Int32Type, Int64Type, TimeUnit};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("page", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("cents", DataType::Int32, true),
    ]))
}

fn spec(with_set: bool) -> WindowAggregate {
    let call = |name: &str, function: Arc<dyn AggregateFunction>, arguments: Vec<usize>| AggregateCall {
        function,
        arguments,
        filter: None,
        name: name.to_owned(),
    };
    let mut aggregates = vec![
        call("n", Arc::new(Count::new()), vec![]),
        call("cents", Arc::new(Sum::try_new(&DataType::Int32).unwrap()), vec![2]),
        call("most", Arc::new(Max::try_new(&DataType::Int32).unwrap()), vec![2]),
        call("mean", Arc::new(Avg::try_new(&DataType::Int32).unwrap()), vec![2]),
    ];
    if with_set {
        aggregates.push(call(
            "kinds",
            Arc::new(CountDistinct::try_new(&DataType::Int32).unwrap()),
            vec![2],
        ));
    }
    WindowAggregate {
        keys: vec![0],
        window: WindowAssigner::Tumble {
            time: 1,
            size_ms: 10,
            offset_ms: 0,
        },
        aggregates,
        window_names: ("window_start".into(), "window_end".into()),
        time: TimeDomain::EventTime,
        updates: None,
    }
}

fn output_schema(spec: &WindowAggregate) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let mut fields = vec![
        Field::new("page", DataType::Utf8, true),
        Field::new("window_start", time.clone(), false),
        Field::new("window_end", time, false),
    ];
    fields.extend(
        spec.aggregates
            .iter()
            .map(|call| Field::new(&call.name, call.function.return_type(), true)),
    );
    fields.extend(spec.updates.map(|_| crate::graph::weight_field()));
    Arc::new(Schema::new(fields))
}

fn operator(stage: Stage, spec: &WindowAggregate, worker: usize, workers: usize) -> WindowAggregateOperator {
    let context = OperatorContext {
        uid: "w".into(),
        worker,
        workers,
        key_groups: KeyGroupRange::of_worker(worker, workers, 256),
        metrics: Arc::default(),
    };
    WindowAggregateOperator::new(stage, spec, &input_schema(), output_schema(spec), context).unwrap()
}

type Row = (Option<&'static str>, i64, Option<i32>);

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(rows.iter().map(|row| row.0).collect::<Vec<_>>())),
        Arc::new(TimestampMillisecondArray::from(
            rows.iter().map(|row| row.1).collect::<Vec<_>>(),
        )),
        Arc::new(Int32Array::from(rows.iter().map(|row| row.2).collect::<Vec<_>>())),
    ];
    RecordBatch::try_new(input_schema(), columns).unwrap()
}

fn open_tick(tick: u64, watermark: Watermark) -> OpenTick {
    OpenTick {
        tick: Tick(tick),
        wall_time_ms: 0,
        watermarks: vec![watermark],
    }
}

fn close_tick(tick: u64, watermark: Watermark) -> TickClose {
    TickClose {
        tick: Tick(tick),
        wall_time_ms: 0,
        watermarks: vec![watermark],
        is_last: false,
    }
}

/// Closes a tick with a tiny output budget, so that firing is interrupted again and again.
fn close(operator: &mut WindowAggregateOperator, tick: u64, watermark: Watermark) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    loop {
        let mut out = Output::with_budget(2);
        let progress = operator.on_close(&close_tick(tick, watermark), &mut out).unwrap();
        batches.extend(out.take());
        if progress == Progress::Done {
            return batches;
        }
    }
}

type Result4 = (i64, Option<i32>, Option<i32>, Option<i32>, Option<i64>);

fn results(batches: &[RecordBatch]) -> HashMap<(Option<String>, i64), Result4> {
    let mut found = HashMap::new();
    for batch in batches {
        let pages = batch.column(0).as_string::<i32>();
        let ends = millis_of(batch, 2);
        let int = |column: usize, row: usize| {
            let column = batch.column(column).as_primitive::<Int32Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        for (row, &end) in ends.iter().enumerate() {
            let key = (pages.is_valid(row).then(|| pages.value(row).to_owned()), end);
            let kinds = (batch.num_columns() > 7).then(|| batch.column(7).as_primitive::<Int64Type>().value(row));
            let n = batch.column(3).as_primitive::<Int64Type>().value(row);
            let result = (n, int(4, row), int(5, row), int(6, row), kinds);
            assert!(found.insert(key.clone(), result).is_none(), "{key:?} came twice");
        }
    }
    found
}

fn millis_of(batch: &RecordBatch, column: usize) -> Vec<i64> {
    rows::millis(batch.column(column)).unwrap().to_vec()
}

/// The slow reference: a few lines over all rows, none of them late.
fn reference(rows: &[Row], with_set: bool) -> HashMap<(Option<String>, i64), Result4> {
    let mut groups: HashMap<(Option<String>, i64), Vec<Option<i32>>> = HashMap::new();
    for (page, time, cents) in rows {
        groups
            .entry((page.map(str::to_owned), time.div_euclid(10) * 10 + 10))
            .or_default()
            .push(*cents);
    }
    groups
        .into_iter()
        .map(|(key, values)| {
            let some: Vec<i32> = values.iter().flatten().copied().collect();
            let sum = (!some.is_empty()).then(|| some.iter().sum::<i32>());
            let kinds = with_set.then(|| some.iter().collect::<BTreeSet<_>>().len() as i64);
            let mean = sum.map(|sum| sum / some.len() as i32);
            (key, (values.len() as i64, sum, some.iter().max().copied(), mean, kinds))
        })
        .collect()
}

#[test]
fn late_rows_are_dropped_and_counted() {
    let spec = spec(false);
    let mut whole = operator(Stage::Whole, &spec, 0, 1);
    let mut out = Output::with_budget(100);
    let rows = batch(&[(Some("a"), 5, Some(1)), (Some("a"), 15, Some(2)), (Some("b"), 3, None)]);
    let _ = whole.on_batch(0, &rows, &open_tick(1, Watermark(9)), &mut out).unwrap();
    assert_eq!(whole.context.metrics.rows_late.get(), 2);
    let fired = close(&mut whole, 1, Watermark(18));
    assert!(fired.is_empty(), "the window ends at 20 and fires at 19");
    assert_eq!(results(&close(&mut whole, 2, Watermark(19))).len(), 1);
}

#[test]
fn missing_event_time_says_what_to_do() {
    let nullable = TimestampMillisecondArray::from(vec![None, Some(3)]);
    let error = rows::millis(&(Arc::new(nullable) as ArrayRef)).unwrap_err();
    assert!(error.to_string().contains("NOT NULL"), "{error}");
}

#[test]
fn partial_stage_lets_rows_through_where_keys_hardly_repeat() {
    let spec = spec(false);
    let mut out = Output::with_budget(usize::MAX);
    let distinct: Vec<String> = (0..BATCH_ROWS).map(|row| format!("page-{row}")).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(distinct)),
        Arc::new(TimestampMillisecondArray::from(vec![1; BATCH_ROWS])),
        Arc::new(Int32Array::from(vec![7; BATCH_ROWS])),
    ];
    let rows = RecordBatch::try_new(input_schema(), columns).unwrap();
    let mut partial = operator(Stage::Partial, &spec, 0, 1);
    let mut last = operator(Stage::Final, &spec, 0, 1);
    for tick in 1..=3 {
        let _ = partial
            .on_batch(0, &rows, &open_tick(tick, Watermark::NONE), &mut out)
            .unwrap();
        let at_once = out.take();
        assert_eq!(
            at_once.is_empty(),
            tick == 1,
            "after a look at the first tick the rows go through"
        );
        for batch in at_once.into_iter().chain(close(&mut partial, tick, Watermark::NONE)) {
            let _ = last
                .on_batch(0, &batch, &open_tick(tick, Watermark::NONE), &mut out)
                .unwrap();
        }
    }
    let found = results(&close(&mut last, 4, Watermark::END));
    assert_eq!(found.len(), BATCH_ROWS);
    assert!(
        found
            .values()
            .all(|result| *result == (3, Some(21), Some(7), Some(7), None))
    );
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let pages = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c"), Some("")]);
    let row = (pages, -30i64..60, prop::option::of(-5i32..5));
    prop::collection::vec(row, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// One worker, a checkpoint in the middle, then three workers: the same results as the reference.
    #[test]
    fn results_do_not_depend_on_stages_workers_or_restores(rows in any_rows(), cut in 0usize..120, with_set: bool) {
        let spec = spec(with_set);
        let cut = cut.min(rows.len());
        let mut out = Output::with_budget(usize::MAX);
        let mut whole = operator(Stage::Whole, &spec, 0, 1);
        if cut > 0 {
            let _ = whole.on_batch(0, &batch(&rows[..cut]), &open_tick(1, Watermark::NONE), &mut out).unwrap();
        }
        prop_assert!(close(&mut whole, 1, Watermark::NONE).is_empty());
        let sections = whole.capture().unwrap();

        let mut fired = Vec::new();
        for worker in 0..3 {
            let mut last = operator(Stage::Final, &spec, worker, 3);
            last.restore(&sections).unwrap();
            // What the exchange would bring to this worker, from the partial aggregations of two senders.
            for part in rows[cut..].chunks(rows.len().div_ceil(2).max(1)) {
                let mut partial = operator(Stage::Partial, &spec, 0, 1);
                let _ = partial.on_batch(0, &batch(part), &open_tick(2, Watermark::NONE), &mut out).unwrap();
                for batch in close(&mut partial, 2, Watermark::NONE) {
                    let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
                    hash_columns(&[Arc::clone(batch.column(0))], batch.num_rows(), &mut keys, &mut hashes).unwrap();
                    let mine = BooleanArray::from_iter(hashes.iter().map(|&h| Some(last.context.key_groups.contains_hash(h))));
                    let mine = arrow::compute::filter_record_batch(&batch, &mine).unwrap();
                    if mine.num_rows() > 0 {
                        let _ = last.on_batch(0, &mine, &open_tick(2, Watermark::NONE), &mut out).unwrap();
                    }
                }
            }
            fired.extend(close(&mut last, 3, Watermark::END));
        }
        prop_assert_eq!(results(&fired), reference(&rows, with_set));
    }
}
