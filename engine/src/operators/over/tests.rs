//! Against a reference of a few lines: the frame of each row, looked for among all rows.

use super::*;
use crate::aggregate::{AggregateCall, AggregateFunction, Avg, Count, CountDistinct, Max, Min, Sum};
use crate::key::{KeyGroupRange, hash_columns};
use crate::operator::Output;
use crate::time::Tick;
use arrow::array::{BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int32Type};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A key, a time in milliseconds, a value, whether it counts in the filter, and a number that no other row has.
type Row = (&'static str, i64, Option<i32>, bool, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("x", DataType::Int32, true),
        Field::new("f", DataType::Float64, true),
        Field::new("good", DataType::Boolean, false),
        Field::new("id", DataType::Int64, false),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            rows.iter().map(|row| row.1 * 1000),
        )),
        Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.2))),
        Arc::new(Float64Array::from_iter(
            rows.iter().map(|row| row.2.map(|x| f64::from(x) * 0.5)),
        )),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.3)))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.4))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn spec(frame: OverFrame) -> OverAggregate {
    let int = &DataType::Int32;
    let call = |name: &str, function: Arc<dyn AggregateFunction>, arguments: Vec<usize>, filter| {
        let call = AggregateCall {
            function,
            arguments,
            filter,
            name: name.to_owned(),
        };
        (name.to_owned(), OverFunction::Aggregate(call))
    };
    let mut functions = vec![
        call("n", Arc::new(Count::new()), vec![], None),
        call("good", Arc::new(Count::new()), vec![], Some(4)),
        call("sum", Arc::new(Sum::try_new(int).unwrap()), vec![2], None),
        call("avg", Arc::new(Avg::try_new(int).unwrap()), vec![2], None),
        call("min", Arc::new(Min::try_new(int).unwrap()), vec![2], None),
        call("max", Arc::new(Max::try_new(int).unwrap()), vec![2], Some(4)),
        call("kinds", Arc::new(CountDistinct::try_new(int).unwrap()), vec![2], None),
        call(
            "half",
            Arc::new(Sum::try_new(&DataType::Float64).unwrap()),
            vec![3],
            None,
        ),
        ("first".to_owned(), OverFunction::FirstValue(5)),
        ("last".to_owned(), OverFunction::LastValue(5)),
    ];
    if matches!(frame, OverFrame::Rows(None)) {
        let lag = |offset, default| OverFunction::Lag {
            value: 2,
            offset,
            default,
        };
        functions.push(("number".to_owned(), OverFunction::RowNumber));
        functions.push(("lag".to_owned(), lag(1, None)));
        functions.push(("lag2".to_owned(), lag(3, Some(2))));
    }
    OverAggregate {
        keys: vec![0],
        time: 1,
        domain: TimeDomain::EventTime,
        frame,
        passed: vec![5],
        functions,
        ttl_ms: None,
    }
}

fn output_schema(spec: &OverAggregate) -> SchemaRef {
    let input = schema();
    let mut fields = vec![input.field(5).clone()];
    fields.extend(spec.functions.iter().map(|(name, function)| {
        let data_type = match function {
            OverFunction::Aggregate(call) => call.function.return_type(),
            OverFunction::RowNumber => DataType::Int64,
            OverFunction::Lag { value, .. } | OverFunction::FirstValue(value) | OverFunction::LastValue(value) => {
                input.field(*value).data_type().clone()
            }
        };
        Field::new(name, data_type, true)
    }));
    Arc::new(Schema::new(fields))
}

struct Workers(Vec<OverOperator>);

impl Workers {
    fn new(spec: &OverAggregate, workers: usize, sections: &[StateSection]) -> Self {
        let worker = |worker| {
            let context = OperatorContext {
                uid: "o".into(),
                worker,
                workers,
                key_groups: KeyGroupRange::of_worker(worker, workers, 256),
                metrics: Arc::default(),
            };
            let mut operator = OverOperator::new(spec, &schema(), output_schema(spec), context).unwrap();
            if !sections.is_empty() {
                operator.restore(sections).unwrap();
            }
            operator
        };
        Self((0..workers).map(worker).collect())
    }

    fn push(&mut self, rows: &[Row], watermark: i64) {
        let rows = batch(rows);
        let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
        hash_columns(&[Arc::clone(rows.column(0))], rows.num_rows(), &mut keys, &mut hashes).unwrap();
        let tick = OpenTick {
            tick: Tick(1),
            wall_time_ms: 0,
            watermarks: vec![Watermark(watermark)],
        };
        for operator in &mut self.0 {
            let key_groups = operator.plan.context.key_groups;
            let mine = BooleanArray::from_iter(hashes.iter().map(|&hash| Some(key_groups.contains_hash(hash))));
            let mut out = Output::with_budget(0);
            let mine = filter_record_batch(&rows, &mine).unwrap();
            let progress = operator.on_batch(0, &mine, &tick, &mut out).unwrap();
            assert_eq!((progress, out.take().len()), (Progress::Done, 0));
        }
    }

    /// Closes a tick with a tiny budget; returns the results as text, by the rows' numbers.
    fn close(&mut self, watermark: i64, wall_time_ms: i64) -> Vec<(i64, String)> {
        let close = TickClose {
            tick: Tick(1),
            wall_time_ms,
            watermarks: vec![Watermark(watermark)],
            is_last: false,
        };
        let mut found = Vec::new();
        for operator in &mut self.0 {
            loop {
                let mut out = Output::with_budget(3);
                let progress = operator.on_close(&close, &mut out).unwrap();
                for batch in out.take() {
                    let ids = batch.column(0).as_primitive::<Int64Type>();
                    found.extend((0..batch.num_rows()).map(|row| (ids.value(row), line(&batch, row))));
                }
                if progress == Progress::Done {
                    break;
                }
            }
        }
        found
    }

    fn capture(&mut self) -> Vec<StateSection> {
        self.0
            .iter_mut()
            .flat_map(|operator| operator.capture().unwrap())
            .collect()
    }
}

fn line(batch: &RecordBatch, row: usize) -> String {
    let columns = batch.columns()[1..].iter().map(|column| {
        if column.is_null(row) {
            return "-".to_owned();
        }
        match column.data_type() {
            DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
            DataType::Float64 => format!("{:.1}", column.as_primitive::<Float64Type>().value(row)),
            _ => column.as_primitive::<Int64Type>().value(row).to_string(),
        }
    });
    columns.collect::<Vec<_>>().join(" ")
}

/// The results of all rows, none of them late.
fn reference(frame: OverFrame, rows: &[Row]) -> Vec<(i64, String)> {
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|row| row.1);
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let number = |value: Option<i32>| text(value.map(|value| value.to_string()));
    let mut results = Vec::new();
    for (index, row) in sorted.iter().enumerate() {
        let before: Vec<&Row> = sorted[..=index].iter().filter(|other| other.0 == row.0).collect();
        let upto: Vec<&Row> = sorted
            .iter()
            .filter(|other| other.0 == row.0 && other.1 <= row.1)
            .collect();
        let frame_rows: Vec<&Row> = match frame {
            OverFrame::Rows(None) => before.clone(),
            OverFrame::Rows(Some(n)) => before[before.len().saturating_sub(n as usize + 1)..].to_vec(),
            OverFrame::Range(None) => upto,
            OverFrame::Range(Some(ms)) => upto.into_iter().filter(|other| other.1 >= row.1 - ms).collect(),
        };
        let values: Vec<i32> = frame_rows.iter().filter_map(|row| row.2).collect();
        let good: Vec<&&Row> = frame_rows.iter().filter(|row| row.3).collect();
        let sum = (!values.is_empty()).then(|| values.iter().sum::<i32>());
        let mut line = vec![
            frame_rows.len().to_string(),
            good.len().to_string(),
            number(sum),
            number(sum.map(|sum| sum / values.len() as i32)),
            number(values.iter().min().copied()),
            number(good.iter().filter_map(|row| row.2).max()),
            values.iter().collect::<BTreeSet<_>>().len().to_string(),
            text(sum.map(|sum| format!("{:.1}", f64::from(sum) * 0.5))),
            frame_rows[0].4.to_string(),
            frame_rows[frame_rows.len() - 1].4.to_string(),
        ];
        if frame == OverFrame::Rows(None) {
            line.push(before.len().to_string());
            let lag = |offset: usize| before.len().checked_sub(offset + 1).map(|place| before[place].2);
            line.push(number(lag(1).flatten()));
            line.push(number(lag(3).unwrap_or(row.2)));
        }
        results.push((row.4, line.join(" ")));
    }
    results.sort();
    results
}

fn frames() -> impl Strategy<Value = OverFrame> {
    prop_oneof![
        Just(OverFrame::Rows(None)),
        Just(OverFrame::Range(None)),
        (0u64..6).prop_map(|rows| OverFrame::Rows(Some(rows))),
        (0i64..12).prop_map(|ms| OverFrame::Range(Some(ms))),
    ]
}

fn ticks() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let keys = prop::sample::select(vec!["", "x", "y", "z"]);
    // Times are those of the tick, out of order by at most ten.
    let row = (keys, 0i64..10, prop::option::of(-3i32..4), any::<bool>());
    let tick = prop::collection::vec(row, 0..25);
    prop::collection::vec(tick, 1..10).prop_map(|ticks| {
        let mut id = 0;
        let ticks = ticks.into_iter().enumerate().map(|(tick, rows)| {
            let rows = rows.into_iter().map(|(key, time, x, good)| {
                id += 1;
                (key, tick as i64 * 4 + time, x, good, id)
            });
            rows.collect()
        });
        ticks.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Each row comes once, with the results of its frame, with a restore at another parallelism.
    #[test]
    fn rows_have_the_results_of_their_frames(frame in frames(), ticks in ticks(), cut in 0usize..10) {
        let spec = spec(frame);
        let mut workers = Workers::new(&spec, 1, &[]);
        let (mut all, mut found) = (Vec::new(), Vec::new());
        // A row of a tick is late when its time is not above this.
        let watermark = |tick: usize| tick as i64 * 4 + 1;
        for (tick, rows) in ticks.iter().enumerate() {
            if tick == cut {
                let sections = workers.capture();
                workers = Workers::new(&spec, 3, &sections);
            }
            for part in rows.chunks(7) {
                workers.push(part, watermark(tick));
            }
            all.extend(rows.iter().filter(|row| row.1 > watermark(tick)).copied());
            let close = workers.close(watermark(tick + 1), 0);
            for (id, _) in &close {
                let time = all.iter().find(|row| row.4 == *id).map(|row| row.1);
                prop_assert!(time.is_some_and(|time| time <= watermark(tick + 1)), "before the watermark");
            }
            found.extend(close);
        }
        found.extend(workers.close(i64::MAX, 0));
        found.sort();
        prop_assert_eq!(found, reference(frame, &all));
    }
}

#[test]
fn frames_of_a_time_keep_only_its_rows_and_keys() {
    let spec = spec(OverFrame::Range(Some(10)));
    let mut workers = Workers::new(&spec, 1, &[]);
    const KEYS: [&str; 4] = ["a", "b", "c", "d"];
    let mut sizes = Vec::new();
    for tick in 0..40i64 {
        let rows: Vec<Row> = (0..1000)
            .map(|i| (KEYS[i as usize % 4], tick * 100 + i / 10, Some(1), true, i))
            .collect();
        workers.push(&rows, tick * 100 - 1);
        assert_eq!(workers.close(tick * 100 + 99, 0).len(), 1000);
        sizes.push(workers.capture()[1].bytes.len());
    }
    assert!(sizes.iter().all(|size| *size < 2 * sizes[0]), "{sizes:?}");
    let _ = workers.close(10_000, 0);
    assert_eq!(
        workers.0[0].history.len(),
        0,
        "no row came for so long that none is in a frame"
    );
}

#[test]
fn late_rows_are_dropped_and_counted() {
    let spec = spec(OverFrame::Rows(None));
    let mut workers = Workers::new(&spec, 1, &[]);
    workers.push(&[("x", 5, None, true, 1), ("x", 6, None, true, 2)], 5);
    assert_eq!(workers.0[0].plan.context.metrics.rows_late.get(), 1);
    assert_eq!(workers.close(5, 0), []);
    assert_eq!(workers.close(6, 0).len(), 1);
}

#[test]
fn key_that_was_not_written_for_its_time_to_live_begins_anew() {
    let mut spec = spec(OverFrame::Rows(None));
    spec.ttl_ms = Some(100);
    let mut workers = Workers::new(&spec, 1, &[]);
    let count = |found: Vec<(i64, String)>| found[0].1.split(' ').next().map(str::to_owned);
    workers.push(&[("x", 1, Some(1), true, 1)], 0);
    assert_eq!(count(workers.close(1, 1000)).as_deref(), Some("1"));
    workers.push(&[("x", 2, Some(1), true, 2)], 1);
    assert_eq!(count(workers.close(2, 1050)).as_deref(), Some("2"));
    // A row that waits keeps its key; then nothing does.
    workers.push(&[("x", 9, Some(1), true, 3)], 2);
    assert_eq!(workers.close(3, 1200), []);
    assert_eq!(count(workers.close(9, 1210)).as_deref(), Some("3"));
    assert_eq!(workers.close(9, 1400), []);
    assert_eq!((workers.0[0].keys.len(), workers.0[0].history.len()), (0, 0));
    workers.push(&[("x", 20, Some(1), true, 4)], 9);
    assert_eq!(count(workers.close(20, 1400)).as_deref(), Some("1"));
}

#[test]
fn rows_of_processing_time_do_not_wait() {
    let mut spec = spec(OverFrame::Range(Some(10)));
    spec.domain = TimeDomain::ProcessingTime;
    let mut workers = Workers::new(&spec, 1, &[]);
    let mut counts = Vec::new();
    for (id, wall_time_ms) in [5, 5, 15, 16, 30].into_iter().enumerate() {
        workers.push(&[("x", wall_time_ms, Some(1), true, id as i64)], i64::MAX);
        let found = workers.close(i64::MIN, wall_time_ms);
        counts.push(found[0].1.split(' ').next().unwrap().to_owned());
    }
    assert_eq!(counts, ["1", "2", "3", "2", "1"]);
    assert_eq!(workers.0[0].history.len(), 1, "what is in no frame any more is dropped");
}

#[test]
fn frames_of_a_time_forget_their_keys_by_it_and_not_by_a_time_to_live() {
    let mut spec = spec(OverFrame::Range(Some(10)));
    spec.ttl_ms = Some(100);
    let mut workers = Workers::new(&spec, 1, &[]);
    let rows: Vec<Row> = (0..2 * KEYS_GONE_MIN as i64)
        .map(|id| {
            let key: &'static str = Box::leak(format!("k{id}").into_boxed_str());
            (key, 1, Some(1), true, id)
        })
        .collect();
    workers.push(&rows, 0);
    assert_eq!(workers.close(1, 0).len(), rows.len());
    // A row of a new key waits while the others go.
    workers.push(&[("late", 500, Some(1), true, -1)], 1);
    assert_eq!(workers.close(400, 1_000), []);
    assert_eq!(workers.0[0].keys.len(), 1);
    assert_eq!(workers.close(500, 2_000).len(), 1);
}

#[test]
fn keys_are_only_walked_when_many_may_have_gone() {
    let spec = spec(OverFrame::Range(Some(10_000)));
    let mut workers = Workers::new(&spec, 1, &[]);
    let count = 2 * KEYS_GONE_MIN as i64;
    let rows: Vec<Row> = (0..count)
        .map(|id| {
            let key: &'static str = Box::leak(format!("k{id}").into_boxed_str());
            (key, 1 + id, Some(1), true, id)
        })
        .collect();
    workers.push(&rows, 0);
    assert_eq!(workers.close(count, 0).len(), rows.len());
    assert_eq!(workers.0[0].walks, 0);
    // One key after the other goes.
    for id in 0..count {
        let _ = workers.close(10_000 + 1 + id, 0);
        assert!(workers.0[0].keys.len() as i64 <= (2 * (count - id)).max(KEYS_GONE_MIN as i64));
    }
    assert!(workers.0[0].walks <= 4, "{} walks", workers.0[0].walks);
}
