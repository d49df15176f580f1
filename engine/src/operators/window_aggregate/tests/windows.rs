//! Windows that overlap and sessions, against a few lines that look at all rows again and again: ticks with disorder and
//! any watermarks, two checkpoints, each restored at another parallelism.

use super::*;
use crate::aggregate::Min;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The rows of a tick and the watermark at its close.
pub(super) type TickRows = (Vec<Row>, i64);

/// What is emitted for a page and a window, by start and end.
type Emitted = BTreeMap<(Option<String>, i64, i64), (Result4, Option<i32>)>;

pub(super) fn spec_of(window: WindowAssigner, with_set: bool) -> WindowAggregate {
    let mut spec = WindowAggregate {
        window,
        ..spec(with_set)
    };
    spec.aggregates.push(AggregateCall {
        function: Arc::new(Min::try_new(&DataType::Int32).unwrap()),
        arguments: vec![2],
        filter: None,
        name: "least".into(),
    });
    spec
}

fn context(worker: usize, workers: usize, metrics: &Arc<crate::metrics::OperatorMetrics>) -> OperatorContext {
    OperatorContext {
        uid: "w".into(),
        worker,
        workers,
        key_groups: KeyGroupRange::of_worker(worker, workers, 256),
        metrics: Arc::clone(metrics),
    }
}

/// The operators of all workers; rows reach them as through the exchange, from two senders.
pub(super) struct Workers {
    partial: Vec<Box<dyn Operator>>,
    last: Vec<Box<dyn Operator>>,
}

impl Workers {
    pub(super) fn new(spec: &WindowAggregate, workers: usize, metrics: &Arc<crate::metrics::OperatorMetrics>) -> Self {
        let two_stages = workers > 1 && has_partial_stage(spec);
        let make = |stage, worker| {
            let context = context(worker, workers, metrics);
            window_aggregate(stage, spec, &input_schema(), output_schema(spec), context).unwrap()
        };
        let last = if two_stages { Stage::Final } else { Stage::Whole };
        Self {
            partial: (0..2)
                .filter(|_| two_stages)
                .map(|sender| make(Stage::Partial, sender))
                .collect(),
            last: (0..workers).map(|worker| make(last, worker)).collect(),
        }
    }

    /// Captures the state and restores it at another parallelism.
    pub(super) fn restored(
        &mut self,
        spec: &WindowAggregate,
        parallelism: usize,
        metrics: &Arc<crate::metrics::OperatorMetrics>,
    ) -> Self {
        let captured = self.last.iter_mut().flat_map(|worker| worker.capture().unwrap());
        let sections: Vec<StateSection> = captured.collect();
        let mut workers = Workers::new(spec, parallelism, metrics);
        for (worker, last) in workers.last.iter_mut().enumerate() {
            let key_groups = KeyGroupRange::of_worker(worker, parallelism, 256);
            let mine = |s: &&StateSection| s.key_groups.is_some_and(|range| range.intersects(&key_groups));
            let mine: Vec<StateSection> = sections.iter().filter(mine).cloned().collect();
            last.restore(&mine).unwrap();
        }
        workers
    }

    /// Returns when the operators want a tick.
    pub(super) fn next_timer_ms(&self) -> Option<i64> {
        self.last.iter().filter_map(|last| last.next_timer_ms()).min()
    }

    pub(super) fn tick(&mut self, tick: u64, rows: &[Row], times: (Watermark, Watermark, i64)) -> Vec<RecordBatch> {
        let (before, watermark, wall_ms) = times;
        let mut out = Output::with_budget(usize::MAX);
        let mut arriving = Vec::new();
        for (sender, part) in rows.chunks(rows.len().div_ceil(2).max(1)).enumerate() {
            match self.partial.get_mut(sender) {
                Some(partial) => {
                    let _ = partial
                        .on_batch(0, &batch(part), &open_tick(tick, before), &mut out)
                        .unwrap();
                }
                None => arriving.push(batch(part)),
            }
        }
        for partial in &mut self.partial {
            arriving.extend(close_any(partial.as_mut(), tick, watermark, wall_ms));
        }
        let mut fired = Vec::new();
        let workers = self.last.len();
        for (worker, last) in self.last.iter_mut().enumerate() {
            let key_groups = KeyGroupRange::of_worker(worker, workers, 256);
            for batch in &arriving {
                let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
                hash_columns(&[Arc::clone(batch.column(0))], batch.num_rows(), &mut keys, &mut hashes).unwrap();
                let mine = BooleanArray::from_iter(hashes.iter().map(|&hash| Some(key_groups.contains_hash(hash))));
                let mine = arrow::compute::filter_record_batch(batch, &mine).unwrap();
                if mine.num_rows() > 0 {
                    let _ = last.on_batch(0, &mine, &open_tick(tick, before), &mut out).unwrap();
                }
            }
            fired.extend(close_any(last.as_mut(), tick, watermark, wall_ms));
        }
        fired
    }
}

fn close_any(operator: &mut dyn Operator, tick: u64, watermark: Watermark, wall_ms: i64) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    loop {
        let mut out = Output::with_budget(2);
        let close = TickClose {
            wall_time_ms: wall_ms,
            ..close_tick(tick, watermark)
        };
        let progress = operator.on_close(&close, &mut out).unwrap();
        batches.extend(out.take());
        if progress == Progress::Done {
            return batches;
        }
    }
}

fn emitted(batches: &[RecordBatch], with_set: bool) -> Emitted {
    let mut found = BTreeMap::new();
    for batch in batches {
        let mut columns: Vec<usize> = (0..batch.num_columns() - 1).collect();
        columns.truncate(if with_set { 8 } else { 7 });
        let starts = millis_of(batch, 1);
        let least = batch
            .column(batch.num_columns() - 1)
            .as_primitive::<Int32Type>()
            .clone();
        for (row, &start) in starts.iter().enumerate() {
            let one = batch.project(&columns).unwrap().slice(row, 1);
            for ((page, end), result) in results(&[one]) {
                let least = least.is_valid(row).then(|| least.value(row));
                let key = (page, start, end);
                assert!(
                    found.insert(key.clone(), (result, least)).is_none(),
                    "{key:?} came twice"
                );
            }
        }
    }
    found
}

pub(super) fn summary(values: &[Option<i32>], with_set: bool) -> (Result4, Option<i32>) {
    let some: Vec<i32> = values.iter().flatten().copied().collect();
    let sum = (!some.is_empty()).then(|| some.iter().sum::<i32>());
    let kinds = with_set.then(|| some.iter().collect::<BTreeSet<_>>().len() as i64);
    let mean = sum.map(|sum| sum / some.len() as i32);
    let result = (values.len() as i64, sum, some.iter().max().copied(), mean, kinds);
    (result, some.iter().min().copied())
}

/// Runs the operators; gives what they emit and how many rows were late.
fn run(spec: &WindowAggregate, ticks: &[TickRows], cuts: [usize; 2], with_set: bool) -> (Emitted, u64) {
    let metrics = Arc::default();
    let mut workers = Workers::new(spec, 1, &metrics);
    let mut fired = Vec::new();
    let mut before = Watermark::NONE;
    for (index, (rows, watermark)) in ticks.iter().enumerate() {
        for (cut, parallelism) in cuts.iter().zip([3, 2]) {
            if *cut == index {
                workers = workers.restored(spec, parallelism, &metrics);
            }
        }
        let watermark = Watermark(*watermark).max(before);
        fired.extend(workers.tick(index as u64 + 1, rows, (before, watermark, 0)));
        before = watermark;
    }
    fired.extend(workers.tick(ticks.len() as u64 + 1, &[], (before, Watermark::END, 0)));
    (emitted(&fired, with_set), metrics.rows_late.get())
}

/// The reference for windows that are known from a row's time.
fn expected(windows_of: impl Fn(i64) -> Vec<(i64, i64)>, ticks: &[TickRows], with_set: bool) -> (Emitted, u64) {
    let mut late = 0;
    let mut values: BTreeMap<(Option<String>, i64, i64), Vec<Option<i32>>> = BTreeMap::new();
    let mut watermark = Watermark::NONE;
    for (rows, next) in ticks {
        for (page, time, cents) in rows {
            let mut open = windows_of(*time);
            open.retain(|(_, end)| !watermark.has_passed_window(*end));
            late += u64::from(open.is_empty());
            for (start, end) in open {
                values
                    .entry((page.map(str::to_owned), start, end))
                    .or_default()
                    .push(*cents);
            }
        }
        watermark = watermark.max(Watermark(*next));
    }
    let emitted = values
        .into_iter()
        .map(|(key, values)| (key, summary(&values, with_set)));
    (emitted.collect(), late)
}

/// The reference for sessions: rows by page, all of a tick together.
fn expected_sessions(gap: i64, ticks: &[TickRows], with_set: bool) -> (Emitted, u64) {
    let (mut emitted, mut late) = (BTreeMap::new(), 0);
    let mut open: BTreeMap<Option<String>, Vec<(i64, Option<i32>)>> = BTreeMap::new();
    let mut before = Watermark::NONE;
    let last = (Vec::new(), i64::MAX);
    for (rows, next) in ticks.iter().chain([&last]) {
        for (page, time, cents) in rows {
            open.entry(page.map(str::to_owned)).or_default().push((*time, *cents));
        }
        let watermark = before.max(Watermark(*next));
        for (page, rows) in &mut open {
            rows.sort();
            let (mut kept, mut session) = (Vec::new(), Vec::<(i64, Option<i32>)>::new());
            for (index, row) in rows.iter().enumerate() {
                session.push(*row);
                if rows.get(index + 1).is_some_and(|next| next.0 - row.0 <= gap) {
                    continue;
                }
                let (start, end) = (session[0].0, row.0 + gap);
                if before.has_passed_window(end) {
                    late += session.len() as u64;
                } else if watermark.has_passed_window(end) {
                    let values: Vec<_> = session.iter().map(|row| row.1).collect();
                    emitted.insert((page.clone(), start, end), summary(&values, with_set));
                } else {
                    kept.append(&mut session);
                }
                session.clear();
            }
            *rows = kept;
        }
        before = watermark;
    }
    (emitted, late)
}

pub(super) fn any_ticks() -> impl Strategy<Value = Vec<TickRows>> {
    let pages = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c"), Some("")]);
    let row = (pages, -15i64..15, prop::option::of(-5i32..5));
    let tick = (prop::collection::vec(row, 0..14), 0i64..25, -12i64..6);
    prop::collection::vec(tick, 1..14).prop_map(|ticks| {
        let mut now = -40;
        let tick = |(rows, step, watermark): (Vec<Row>, i64, i64)| {
            now += step;
            let rows = rows.into_iter().map(|(page, time, cents)| (page, time + now, cents));
            (rows.collect(), now + watermark)
        };
        ticks.into_iter().map(tick).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn hops_are_those_of_the_reference(
        ticks in any_ticks(), cuts in [0usize..14, 0usize..14],
        slide in 1i64..9, more in 0i64..25, offset in -5i64..5, with_set: bool,
    ) {
        let size = slide + more;
        let spec = spec_of(WindowAssigner::Hop { time: 1, size_ms: size, slide_ms: slide, offset_ms: offset }, with_set);
        let windows = |time: i64| (time - size + 1..=time)
            .filter(|start| (start - offset).rem_euclid(slide) == 0)
            .map(|start| (start, start + size))
            .collect();
        prop_assert_eq!(run(&spec, &ticks, cuts, with_set), expected(windows, &ticks, with_set));
    }

    #[test]
    fn cumulating_windows_are_those_of_the_reference(
        ticks in any_ticks(), cuts in [0usize..14, 0usize..14],
        step in 1i64..9, steps in 1i64..6, offset in -5i64..5, with_set: bool,
    ) {
        let size = step * steps;
        let window = WindowAssigner::Cumulate { time: 1, size_ms: size, step_ms: step, offset_ms: offset };
        let spec = spec_of(window, with_set);
        // A window of rows goes on being emitted as it grows, so later windows hold it, too.
        let windows = |time: i64| {
            let start = time - (time - offset).rem_euclid(size);
            (1..=steps).map(|n| (start, start + n * step)).filter(|(_, end)| time < *end).collect()
        };
        prop_assert_eq!(run(&spec, &ticks, cuts, with_set), expected(windows, &ticks, with_set));
    }

    #[test]
    fn sessions_are_those_of_the_reference(
        ticks in any_ticks(), cuts in [0usize..14, 0usize..14], gap in 1i64..12, with_set: bool,
    ) {
        let spec = spec_of(WindowAssigner::Session { time: 1, gap_ms: gap }, with_set);
        prop_assert_eq!(run(&spec, &ticks, cuts, with_set), expected_sessions(gap, &ticks, with_set));
    }
}

#[test]
fn partial_stage_of_sessions_lets_rows_through_where_keys_hardly_repeat() {
    let spec = spec_of(WindowAssigner::Session { time: 1, gap_ms: 5 }, false);
    let metrics = Arc::default();
    let make = |stage| {
        window_aggregate(
            stage,
            &spec,
            &input_schema(),
            output_schema(&spec),
            context(0, 1, &metrics),
        )
        .unwrap()
    };
    let (mut partial, mut last) = (make(Stage::Partial), make(Stage::Final));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            (0..BATCH_ROWS).map(|row| format!("page-{row}")),
        )),
        Arc::new(TimestampMillisecondArray::from(vec![1; BATCH_ROWS])),
        Arc::new(Int32Array::from(vec![7; BATCH_ROWS])),
    ];
    let rows = RecordBatch::try_new(input_schema(), columns).unwrap();
    let mut out = Output::with_budget(usize::MAX);
    for tick in 1..=3 {
        let open = open_tick(tick, Watermark::NONE);
        let _ = partial.on_batch(0, &rows, &open, &mut out).unwrap();
        let at_once = out.take();
        assert_eq!(
            at_once.is_empty(),
            tick == 1,
            "after a look at the first tick the rows go through"
        );
        for batch in at_once
            .into_iter()
            .chain(close_any(partial.as_mut(), tick, Watermark::NONE, 0))
        {
            let _ = last.on_batch(0, &batch, &open, &mut out).unwrap();
        }
    }
    let found = emitted(&close_any(last.as_mut(), 4, Watermark::END, 0), false);
    assert_eq!(found.len(), BATCH_ROWS);
    let same = ((3, Some(21), Some(7), Some(7), None), Some(7));
    assert!(
        found
            .iter()
            .all(|((_, start, end), result)| (*start, *end) == (1, 6) && *result == same)
    );
}

/// Keys that come and go: what has gone is left behind, in the merged panes and in the sessions.
#[test]
fn state_does_not_grow_with_keys_that_have_gone() {
    let updates = Updates {
        early_ms: Some(0),
        late_ms: 0,
        allowed_lateness_ms: 20,
    };
    let hop = WindowAssigner::Hop {
        time: 1,
        size_ms: 40,
        slide_ms: 10,
        offset_ms: 0,
    };
    let session = WindowAssigner::Session { time: 1, gap_ms: 15 };
    for (window, updates) in [
        (hop.clone(), None),
        (session.clone(), None),
        (hop, Some(updates)),
        (session, Some(updates)),
    ] {
        let spec = WindowAggregate {
            updates,
            ..spec_of(window.clone(), true)
        };
        let metrics = Arc::default();
        let mut operator = window_aggregate(
            Stage::Whole,
            &spec,
            &input_schema(),
            output_schema(&spec),
            context(0, 1, &metrics),
        )
        .unwrap();
        let mut sizes = Vec::new();
        let (mut rows, mut fired) = (0, 0);
        for tick in 0..60i64 {
            let pages: Vec<String> = (0..2000).map(|page| format!("{tick}-{page}")).collect();
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(pages)),
                Arc::new(TimestampMillisecondArray::from(vec![tick * 10; 2000])),
                Arc::new(Int32Array::from_iter_values(0..2000)),
            ];
            let batch = RecordBatch::try_new(input_schema(), columns).unwrap();
            let before = Watermark(tick * 10 - 10);
            let mut out = Output::with_budget(usize::MAX);
            let _ = operator
                .on_batch(0, &batch, &open_tick(tick as u64 + 1, before), &mut out)
                .unwrap();
            let _ = operator
                .on_close(&close_tick(tick as u64 + 1, Watermark(tick * 10)), &mut out)
                .unwrap();
            fired += out.take().iter().map(RecordBatch::num_rows).sum::<usize>();
            rows += 2000;
            let _ = operator.capture().unwrap();
            sizes.push(metrics.state_bytes.get());
        }
        assert!(fired > rows / 2, "{window:?}: {fired} of {rows} rows");
        let (early, late) = (sizes[10..20].iter().max(), sizes[50..].iter().max());
        assert!(late <= early.map(|size| size * 3 / 2).as_ref(), "{window:?}: {sizes:?}");
    }
}

#[test]
fn panes_of_a_window_follow_one_another_in_the_order_of_time() {
    use crate::aggregate::{ArrayAgg, FirstValue, LastValue};
    let functions: [Arc<dyn AggregateFunction>; 3] = [
        Arc::new(FirstValue::try_new(&DataType::Int32).unwrap()),
        Arc::new(LastValue::try_new(&DataType::Int32).unwrap()),
        Arc::new(ArrayAgg::try_new(&DataType::Int32).unwrap()),
    ];
    let calls = functions
        .into_iter()
        .enumerate()
        .map(|(index, function)| AggregateCall {
            function,
            arguments: vec![2],
            filter: None,
            name: format!("f{index}"),
        });
    let spec = WindowAggregate {
        window: WindowAssigner::Hop {
            time: 1,
            size_ms: 30,
            slide_ms: 10,
            offset_ms: 0,
        },
        aggregates: calls.collect(),
        ..spec(false)
    };
    assert!(!has_partial_stage(&spec), "rows of several workers have no order");
    // Rows of a pane come out of order; key b is not in every pane, and one of its panes has no value.
    let rows: Vec<Row> = (0..60)
        .map(|row| {
            let (key, time) = (
                ["a", "b"][usize::from(row % 7 == 3)],
                i64::from(row / 5) * 10 + i64::from(9 - row % 5),
            );
            (Some(key), time, (row % 11 != 0).then_some(row))
        })
        .collect();
    let mut operator = operator(Stage::Whole, &spec, 0, 1);
    let (mut found, mut before) = (Vec::new(), Watermark::NONE);
    for (tick, rows) in rows.chunks(4).enumerate() {
        let tick = tick as u64;
        let batch = batch(rows);
        let watermark = Watermark(rows[0].1 / 10 * 10 - 10);
        let mut out = Output::with_budget(100);
        let _ = operator
            .on_batch(0, &batch, &open_tick(tick, before), &mut out)
            .unwrap();
        found.extend(close(&mut operator, tick, watermark));
        before = watermark;
        if tick % 4 == 3 {
            let sections = operator.capture().unwrap();
            operator = self::operator_of(&spec);
            operator.restore(&sections).unwrap();
        }
    }
    found.extend(close(&mut operator, 99, Watermark::END));
    let mut windows = 0;
    for batch in found {
        let (starts, ends) = (millis_of(&batch, 1), millis_of(&batch, 2));
        let keys = batch.column(0).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let is_in = |known: &&Row| known.0 == Some(keys.value(row)) && (starts[row]..ends[row]).contains(&known.1);
            let of_window: Vec<Option<i32>> = rows.iter().filter(is_in).map(|row| row.2).collect();
            let mut values = of_window.iter().flatten();
            let value = |column: usize| {
                let column = batch.column(column).as_primitive::<Int32Type>();
                column.is_valid(row).then(|| column.value(row))
            };
            let first = values.next().copied();
            assert_eq!(value(3), first);
            assert_eq!(value(4), values.next_back().copied().or(first));
            let list = batch.column(5).as_list::<i32>().value(row);
            assert_eq!(list.as_primitive::<Int32Type>(), &Int32Array::from(of_window));
            windows += 1;
        }
    }
    assert!(windows > 20, "{windows} windows");
}

fn operator_of(spec: &WindowAggregate) -> WindowAggregateOperator {
    operator(Stage::Whole, spec, 0, 1)
}
