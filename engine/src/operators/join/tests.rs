//! The operator against two nested loops over all rows.

use super::JoinOperator;
use crate::expr::from_fn;
use crate::graph::{Join, JoinCondition, JoinInput, JoinKind, JoinSide, KeepRows, ShiftedTime};
use crate::key::{EncodedKeys, KeyGroupRange, hash_columns};
use crate::metrics::OperatorMetrics;
use crate::operator::{OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose};
use crate::time::{Tick, Watermark};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray,
};
use arrow::compute::kernels::cmp::lt_eq;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// A row: key, time, value, and a text by which it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    key: Option<i64>,
    time_ms: i64,
    value: i64,
    text: String,
}

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        // Nobody reads it.
        Field::new("unused", DataType::Int64, true),
        Field::new("key", DataType::Int64, true),
        Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("value", DataType::Int64, true),
        Field::new("text", DataType::Utf8View, true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7; rows.len()])),
        Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>()),
        Arc::new(TimestampMillisecondArray::from_iter_values(
            rows.iter().map(|row| row.time_ms),
        )),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.value))),
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| &row.text))),
    ];
    RecordBatch::try_new(input_schema(), columns).unwrap()
}

/// `r.time BETWEEN l.time - before AND l.time + after AND l.value <= r.value`, of equal keys.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    before_ms: i64,
    after_ms: i64,
}

fn condition(bounds: Option<Bounds>) -> JoinCondition {
    let column = |input, column, name: &str| (input, column, name.to_owned());
    JoinCondition {
        columns: vec![
            column(JoinInput::Left, 3, "l"),
            column(JoinInput::Right, 3, "r"),
            column(JoinInput::Left, 2, "lt"),
            column(JoinInput::Right, 2, "rt"),
        ],
        expr: from_fn("condition", DataType::Boolean, move |batch, _| {
            let values = lt_eq(batch.column(0), batch.column(1))?;
            let times = |column: usize| batch.column(column).as_primitive::<TimestampMillisecondType>().values();
            let in_time = std::iter::zip(times(2), times(3)).enumerate().map(|(row, (l, r))| {
                let in_bounds = bounds.is_none_or(|b| (l - b.before_ms..=l + b.after_ms).contains(r));
                in_bounds && values.value(row)
            });
            Ok(Arc::new(BooleanArray::from_iter(in_time.map(Some))) as ArrayRef)
        }),
    }
}

fn join(kind: JoinKind, bounds: Option<Bounds>, keep: &KeepRows) -> Join {
    let shifted = |offset_ms| ShiftedTime { column: 2, offset_ms };
    let side = |until_ms: Option<i64>, delay_ms: i64| JoinSide {
        keys: vec![1],
        time: bounds.map(|_| shifted(0)),
        keep: until_ms.map_or(keep.clone(), |until_ms| {
            // The second one is never the least.
            KeepRows::Until(vec![shifted(until_ms), shifted(until_ms + 3)])
        }),
        watermark_delay_ms: delay_ms.max(0),
    };
    let mut outputs = vec![
        (JoinInput::Left, 4, "l_text".to_owned()),
        (JoinInput::Left, 2, "l_time".to_owned()),
    ];
    if !kind.is_of_left_rows() {
        outputs.push((JoinInput::Right, 4, "r_text".to_owned()));
        outputs.push((JoinInput::Right, 2, "r_time".to_owned()));
    }
    Join {
        kind,
        sides: [
            side(bounds.map(|b| b.after_ms), bounds.map_or(0, |b| b.before_ms)),
            side(bounds.map(|b| b.before_ms), bounds.map_or(0, |b| b.after_ms)),
        ],
        condition: Some(condition(bounds)),
        outputs,
    }
}

struct Worker {
    operator: JoinOperator,
    context: OperatorContext,
    budget: usize,
}

impl Worker {
    fn new(join: &Join, worker: usize, workers: usize, budget: usize) -> Self {
        let context = OperatorContext {
            uid: "join".into(),
            worker,
            workers,
            key_groups: KeyGroupRange::of_worker(worker, workers, 256),
            metrics: Arc::new(OperatorMetrics::default()),
        };
        let mut graph = Vec::new();
        for (input, column, name) in &join.outputs {
            let field = input_schema().field(*column).clone().with_name(name);
            graph.push(field.with_nullable(true));
            let _ = input;
        }
        let schemas = [input_schema(), input_schema()];
        let operator = JoinOperator::new(join, &schemas, Arc::new(Schema::new(graph)), context.clone()).unwrap();
        Self {
            operator,
            context,
            budget,
        }
    }

    fn run(&mut self, mut call: impl FnMut(&mut JoinOperator, &mut Output) -> Progress) -> Vec<RecordBatch> {
        let mut out = Output::with_budget(self.budget);
        let mut batches = Vec::new();
        loop {
            let progress = call(&mut self.operator, &mut out);
            batches.extend(out.take());
            if progress == Progress::Done {
                return batches;
            }
            assert!(!batches.is_empty(), "more without anything");
        }
    }

    fn push(&mut self, input: usize, rows: &[Row], tick: &OpenTick) -> Vec<RecordBatch> {
        let whole = batch(rows);
        let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
        hash_columns(&[Arc::clone(whole.column(1))], rows.len(), &mut keys, &mut hashes).unwrap();
        let mine = hashes
            .iter()
            .map(|hash| Some(self.context.key_groups.contains_hash(*hash)));
        let mine = filter_record_batch(&whole, &BooleanArray::from_iter(mine)).unwrap();
        self.run(|operator, out| operator.on_batch(input, &mine, tick, out).unwrap())
    }

    fn close(&mut self, close: &TickClose) -> Vec<RecordBatch> {
        self.run(|operator, out| operator.on_close(close, out).unwrap())
    }
}

/// What is emitted, as text: the names of the two rows.
fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let Some(first) = batches.first() else {
        return Vec::new();
    };
    let all = concat_batches(&first.schema(), batches).unwrap();
    let text = |column: usize, row: usize| {
        let texts = all.column(column).as_string_view();
        if texts.is_valid(row) {
            texts.value(row).to_owned()
        } else {
            "-".to_owned()
        }
    };
    let one = |row| match all.num_columns() {
        2 => text(0, row),
        _ => format!("{} {}", text(0, row), text(2, row)),
    };
    (0..all.num_rows()).map(one).collect()
}

/// Rows of one tick: batches of either input, and then the watermarks.
#[derive(Clone, Debug)]
struct TickRows {
    batches: Vec<(usize, Vec<Row>)>,
    advance_ms: [i64; 2],
}

fn ticks() -> impl Strategy<Value = Vec<TickRows>> {
    let key = prop_oneof![1 => Just(None), 12 => (0i64..4).prop_map(Some)];
    let row = (key, -12i64..25, 0i64..4);
    let batch = (0usize..2, prop::collection::vec(row, 0..25));
    let tick = (prop::collection::vec(batch, 0..4), 0i64..12, 0i64..12);
    prop::collection::vec(tick, 1..9).prop_map(|ticks| {
        let mut number = 0;
        let ticks = ticks.into_iter().enumerate().map(|(tick, (batches, left, right))| {
            let batches = batches.into_iter().map(|(input, rows)| {
                let rows = rows.into_iter().map(|(key, time_ms, value)| {
                    number += 1;
                    Row {
                        key,
                        time_ms: time_ms + 5 * tick as i64,
                        value,
                        text: format!("row number {number}"),
                    }
                });
                (input, rows.collect())
            });
            TickRows {
                batches: batches.collect(),
                advance_ms: [left, right],
            }
        });
        ticks.collect()
    })
}

fn reference(kind: JoinKind, bounds: Option<Bounds>, left: &[Row], right: &[Row]) -> Vec<String> {
    let matches = |l: &Row, r: &Row| {
        l.key.is_some()
            && l.key == r.key
            && l.value <= r.value
            && bounds.is_none_or(|b| (l.time_ms - b.before_ms..=l.time_ms + b.after_ms).contains(&r.time_ms))
    };
    let mut all = Vec::new();
    for l in left {
        let of_l: Vec<&Row> = right.iter().filter(|r| matches(l, r)).collect();
        match kind {
            JoinKind::Semi if !of_l.is_empty() => all.push(l.text.clone()),
            JoinKind::Anti if of_l.is_empty() => all.push(l.text.clone()),
            JoinKind::Semi | JoinKind::Anti => {}
            JoinKind::Left | JoinKind::Full if of_l.is_empty() => all.push(format!("{} -", l.text)),
            _ => all.extend(of_l.iter().map(|r| format!("{} {}", l.text, r.text))),
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| matches(l, r)));
        all.extend(alone.map(|r| format!("- {}", r.text)));
    }
    all.sort();
    all
}

/// Everything that went in in time, and everything that came out.
#[derive(Default)]
struct Run {
    taken: [Vec<Row>; 2],
    emitted: Vec<String>,
}

fn run(join: &Join, bounds: Option<Bounds>, ticks: &[TickRows], cut: usize, workers: [usize; 2], budget: usize) -> Run {
    let made = |count: usize| {
        (0..count)
            .map(|worker| Worker::new(join, worker, count, budget))
            .collect::<Vec<_>>()
    };
    let mut running = made(workers[0]);
    let mut done = Run::default();
    let mut watermarks = vec![Watermark::NONE; 2];
    let mut late = 0;
    for (number, tick) in ticks.iter().enumerate() {
        if number == cut {
            late += rows_late(&running);
            let state: Vec<StateSection> = running.iter_mut().flat_map(|w| w.operator.capture().unwrap()).collect();
            running = made(workers[1]);
            for worker in &mut running {
                worker.operator.restore(&state).unwrap();
            }
        }
        let open = OpenTick {
            tick: Tick(number as u64),
            wall_time_ms: 1_000,
            watermarks: watermarks.clone(),
        };
        let is_late = |input: usize, row: &Row| bounds.is_some() && row.time_ms <= watermarks[input].0;
        let mut batches = Vec::new();
        for (input, rows) in &tick.batches {
            let in_time = rows.iter().filter(|row| !is_late(*input, row)).cloned();
            done.taken[*input].extend(in_time);
            for worker in &mut running {
                batches.extend(worker.push(*input, rows, &open));
            }
        }
        let is_last = number + 1 == ticks.len();
        let advanced = |input: usize| match watermarks[input] {
            _ if is_last => Watermark::END,
            // The first tick tells no watermark.
            Watermark::NONE if number == 0 => Watermark::NONE,
            Watermark::NONE => Watermark(-5 + tick.advance_ms[input]),
            Watermark(known) => Watermark(known + tick.advance_ms[input]),
        };
        let close = TickClose {
            tick: Tick(number as u64),
            wall_time_ms: 1_000,
            watermarks: vec![advanced(0), advanced(1)],
            is_last,
        };
        for worker in &mut running {
            batches.extend(worker.close(&close));
        }
        // What comes out is in time for what follows.
        if bounds.is_some() {
            let delayed = watermarks
                .iter()
                .zip(&join.sides)
                .map(|(w, side)| w.delayed_by(side.watermark_delay_ms));
            let watermark = delayed.min().unwrap();
            for batch in &batches {
                for column in (1..batch.num_columns()).step_by(2) {
                    let times = batch.column(column).as_primitive::<TimestampMillisecondType>();
                    assert!(times.iter().flatten().all(|time| time > watermark.0));
                }
            }
        }
        done.emitted.extend(shown(&batches));
        watermarks = close.watermarks;
    }
    if bounds.is_some() {
        let kept = running
            .iter()
            .flat_map(|worker| &worker.operator.sides)
            .map(|side| side.kept.store.len());
        assert_eq!(kept.sum::<usize>(), 0, "nothing is kept behind the end");
        late += rows_late(&running);
        let all: usize = ticks
            .iter()
            .flat_map(|tick| &tick.batches)
            .map(|(_, rows)| rows.len())
            .sum();
        assert_eq!(late as usize, all - done.taken[0].len() - done.taken[1].len());
    }
    done.emitted.sort();
    done
}

fn rows_late(workers: &[Worker]) -> u64 {
    workers
        .iter()
        .map(|worker| worker.context.metrics.rows_late.get())
        .sum()
}

fn kinds() -> impl Strategy<Value = JoinKind> {
    prop::sample::select(vec![
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Right,
        JoinKind::Full,
        JoinKind::Semi,
        JoinKind::Anti,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bounded_join_is_what_nested_loops_give(
        kind in kinds(),
        (before_ms, after_ms) in prop::sample::select(vec![(0, 0), (3, 5), (0, 10), (7, 0), (-2, 6), (8, -1)]),
        ticks in ticks(),
        cut in 0usize..9,
        old in 1usize..4,
        new in 1usize..4,
        budget in prop::sample::select(vec![1usize, 7, 100_000]),
    ) {
        let bounds = Some(Bounds { before_ms, after_ms });
        let join = join(kind, bounds, &KeepRows::Forever);
        let run = run(&join, bounds, &ticks, cut, [old, new], budget);
        prop_assert_eq!(&run.emitted, &reference(kind, bounds, &run.taken[0], &run.taken[1]));
    }

    #[test]
    fn unbounded_join_is_what_nested_loops_give(
        kind in prop::sample::select(vec![JoinKind::Inner, JoinKind::Semi]),
        ticks in ticks(),
        cut in 0usize..9,
        budget in prop::sample::select(vec![1usize, 7, 100_000]),
    ) {
        let join = join(kind, None, &KeepRows::Forever);
        let run = run(&join, None, &ticks, cut, [2, 3], budget);
        prop_assert_eq!(&run.emitted, &reference(kind, None, &run.taken[0], &run.taken[1]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Equal keys that are times: bounded, and nothing else is asked.
    #[test]
    fn join_on_equal_times_is_what_nested_loops_give(
        kind in kinds(),
        ticks in ticks(),
        cut in 0usize..9,
        budget in prop::sample::select(vec![1usize, 7, 100_000]),
    ) {
        let bounds = Bounds { before_ms: 0, after_ms: 0 };
        let mut join = join(kind, Some(bounds), &KeepRows::Forever);
        join.sides.iter_mut().for_each(|side| side.keys = vec![1, 2]);
        join.condition = None;
        let ticks: Vec<TickRows> = ticks.into_iter().map(|mut tick| {
            // The condition of the reference is then always true.
            tick.batches.iter_mut().flat_map(|(_, rows)| rows).for_each(|row| row.value = 0);
            tick
        }).collect();
        let run = run(&join, Some(bounds), &ticks, cut, [1, 1], budget);
        prop_assert_eq!(&run.emitted, &reference(kind, Some(bounds), &run.taken[0], &run.taken[1]));
    }

    /// One row of a key is kept although those of the key are due at different times.
    #[test]
    fn semi_join_on_a_key_keeps_the_row_that_is_due_last(ticks in ticks(), cut in 0usize..9, after_ms in 0i64..9) {
        for kind in [JoinKind::Semi, JoinKind::Anti] {
            let bounds = Bounds { before_ms: 0, after_ms };
            let with_bounds = join(kind, Some(bounds), &KeepRows::Forever);
            let mut join = with_bounds.clone();
            join.condition = None;
            let run_with = run(&join, Some(bounds), &ticks, cut, [1, 2], 7);
            // As many rows of the right side as before, none of them left out: with a condition that is always true.
            join.condition = Some(JoinCondition {
                columns: Vec::new(),
                expr: from_fn("true", DataType::Boolean, |batch, _| {
                    Ok(Arc::new(BooleanArray::from(vec![true; batch.num_rows()])) as ArrayRef)
                }),
            });
            let run_without = run(&join, Some(bounds), &ticks, cut, [1, 2], 7);
            prop_assert_eq!(run_with.emitted, run_without.emitted);
        }
    }
}

fn row(key: i64, number: usize) -> Row {
    Row {
        key: Some(key),
        time_ms: 0,
        value: 0,
        text: format!("{number}"),
    }
}

fn tick_at(number: u64, wall_time_ms: i64) -> (OpenTick, TickClose) {
    let watermarks = vec![Watermark::NONE; 2];
    let open = OpenTick {
        tick: Tick(number),
        wall_time_ms,
        watermarks: watermarks.clone(),
    };
    let close = TickClose {
        tick: Tick(number),
        wall_time_ms,
        watermarks,
        is_last: false,
    };
    (open, close)
}

#[test]
fn row_is_kept_for_its_time_to_live_and_not_longer() {
    let join = join(JoinKind::Inner, None, &KeepRows::For(Duration::from_secs(1)));
    let mut worker = Worker::new(&join, 0, 1, 1000);
    let (open, close) = tick_at(1, 5_000);
    assert!(worker.push(0, &[row(1, 1), row(2, 2)], &open).is_empty());
    worker.close(&close);
    let (open, close) = tick_at(2, 5_999);
    assert_eq!(shown(&worker.push(1, &[row(1, 3)], &open)), ["1 3"]);
    worker.close(&close);
    // No tick came when its time was over: it must not be found all the same.
    let (open, close) = tick_at(3, 6_000);
    assert!(worker.push(1, &[row(1, 4)], &open).is_empty());
    assert_eq!(shown(&worker.push(0, &[row(1, 5)], &open)), ["5 3", "5 4"]);
    worker.close(&close);
    let kept: Vec<usize> = worker.operator.sides.iter().map(|side| side.kept.store.len()).collect();
    assert_eq!(kept, [1, 2]);
}

#[test]
fn many_rows_of_one_key_come_out_bit_by_bit() {
    let join = join(JoinKind::Inner, None, &KeepRows::Forever);
    let mut worker = Worker::new(&join, 0, 1, 1000);
    let (open, _) = tick_at(1, 0);
    let left: Vec<Row> = (0..600).map(|number| row(1, number)).collect();
    worker.push(0, &left, &open);
    let mut out = Output::with_budget(1000);
    let right = batch(&left[..500]);
    let (mut rows, mut calls) = (0, 0);
    loop {
        let progress = worker.operator.on_batch(1, &right, &open, &mut out).unwrap();
        let some: usize = out.take().iter().map(RecordBatch::num_rows).sum();
        assert!(some <= 1000);
        rows += some;
        calls += 1;
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!(rows, 300_000);
    assert!(calls >= 300);
}

#[test]
fn side_that_is_seldom_probed_is_searched_and_then_indexed() {
    let join = join(JoinKind::Inner, None, &KeepRows::Forever);
    let mut worker = Worker::new(&join, 0, 1, 100_000);
    let (open, _) = tick_at(1, 0);
    let left: Vec<Row> = (0..5_000).map(|number| row(number, number as usize)).collect();
    worker.push(0, &left, &open);
    for probe in 0..40 {
        let found = worker.push(1, &[row(probe * 7, 0)], &open);
        assert_eq!(shown(&found), [format!("{} 0", probe * 7)]);
    }
    let state = worker.operator.capture().unwrap();
    let mut restored = Worker::new(&join, 0, 1, 100_000);
    restored.operator.restore(&state).unwrap();
    for worker in [&mut worker, &mut restored] {
        worker.push(0, &[row(7, 77)], &open);
        assert_eq!(shown(&worker.push(1, &[row(7, 1)], &open)), ["7 1", "77 1"]);
    }
    assert_eq!(shown(&restored.push(1, &left[..4_000], &open)).len(), 4_001);
}

/// -0.0 and 0.0 are one key, as for GROUP BY, and so are all NaN.
#[test]
fn floats_that_are_equal_join_whatever_their_bits() {
    use arrow::array::Float64Array;
    let schema = Arc::new(Schema::new(vec![
        Field::new("key", DataType::Float64, true),
        Field::new("text", DataType::Utf8View, true),
    ]));
    let rows = |keys: [f64; 3], names: [&str; 3]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(keys.to_vec())),
            Arc::new(StringViewArray::from_iter_values(names)),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
    };
    let nan = f64::from_bits(f64::NAN.to_bits() | 1);
    let left = rows([0.0, -0.0, f64::NAN], ["zero", "minus", "nan"]);
    let right = rows([-0.0, 0.0, nan], ["a", "b", "c"]);
    for (kind, expected) in [(JoinKind::Inner, 5), (JoinKind::Semi, 3)] {
        let side = JoinSide {
            keys: vec![0],
            time: None,
            keep: KeepRows::Forever,
            watermark_delay_ms: 0,
        };
        let join = Join {
            kind,
            sides: [side.clone(), side],
            condition: None,
            outputs: vec![(JoinInput::Left, 1, "text".to_owned())],
        };
        let context = Worker::new(&super::tests::join(kind, None, &KeepRows::Forever), 0, 1, 1).context;
        let output = Arc::new(Schema::new(vec![schema.field(1).clone()]));
        for order in [[1, 0], [0, 1]] {
            let schemas = [Arc::clone(&schema), Arc::clone(&schema)];
            let mut operator = JoinOperator::new(&join, &schemas, Arc::clone(&output), context.clone()).unwrap();
            let mut out = Output::with_budget(1000);
            for input in order {
                let batch = [&left, &right][input];
                let progress = operator.on_batch(input, batch, &tick_at(1, 0).0, &mut out).unwrap();
                assert_eq!(progress, Progress::Done);
            }
            let _ = operator.on_close(&tick_at(1, 0).1, &mut out).unwrap();
            let found: usize = out.take().iter().map(RecordBatch::num_rows).sum();
            assert_eq!(found, expected, "{kind:?} {order:?}");
        }
    }
}
