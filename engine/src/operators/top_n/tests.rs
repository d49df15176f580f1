//! Against a reference of a few lines: all rows so far, sorted.

use super::*;
use crate::graph::{TopNOrder, TopNTies, weight_field};
use crate::key::{EncodedKeys, KeyGroupRange, hash_columns};
use crate::operator::{OpenTick, Output, Progress, StateSection, TickClose};
use crate::time::{Tick, Watermark};
use arrow::array::{AsArray, BooleanArray, Int32Array, StringArray, TimestampMillisecondArray};
use arrow::compute::{SortOptions, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A key, a column to order by, another one, the end of the window, and a number that no other row has.
type Row = (&'static str, Option<i32>, &'static str, i64, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("window_end", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("id", DataType::Int64, false),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Int32Array::from(rows.iter().map(|row| row.1).collect::<Vec<_>>())),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(TimestampMillisecondArray::from_iter_values(
            rows.iter().map(|row| row.3),
        )),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.4))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    /// 0: none, 1: `a`, 2: `a`, `b`.
    order: usize,
    descending: bool,
    nulls_first: bool,
    ties: TopNTies,
    first: u64,
    last: u64,
    windows: bool,
    number: bool,
}

fn spec(shape: Shape) -> TopN {
    let options = SortOptions::new(shape.descending, shape.nulls_first);
    let order = [1, 2].map(|column| TopNOrder { column, options });
    let mut outputs = vec![TopNColumn::Input(0), TopNColumn::Input(4)];
    if shape.number {
        outputs.push(TopNColumn::Number("n".into()));
    }
    TopN {
        keys: if shape.windows { vec![0, 3] } else { vec![0] },
        order: order[..shape.order].to_vec(),
        ties: shape.ties,
        first: shape.first,
        last: shape.last,
        window_end: shape.windows.then_some(3),
        outputs,
        ttl_ms: None,
    }
}

fn output_schema(spec: &TopN) -> SchemaRef {
    let mut fields = vec![schema().field(0).clone(), schema().field(4).clone()];
    if spec.outputs.len() > 2 {
        fields.push(Field::new("n", DataType::Int64, false));
    }
    if spec.changes() {
        fields.push(weight_field());
    }
    Arc::new(Schema::new(fields))
}

/// The operators of all workers, with what the exchange does.
struct Workers(Vec<(KeyGroupRange, Box<dyn Operator>)>);

impl Workers {
    fn new(spec: &TopN, workers: usize, sections: &[StateSection]) -> Self {
        let worker = |worker| {
            let context = OperatorContext {
                uid: "t".into(),
                worker,
                workers,
                key_groups: KeyGroupRange::of_worker(worker, workers, 256),
                metrics: Arc::default(),
            };
            let key_groups = context.key_groups;
            let mut operator = top_n(spec, &schema(), output_schema(spec), context).unwrap();
            let mine: Vec<StateSection> = sections
                .iter()
                .filter(|section| section.key_groups.unwrap().intersects(&key_groups))
                .cloned()
                .collect();
            if !mine.is_empty() {
                operator.restore(&mine).unwrap();
            }
            (key_groups, operator)
        };
        Self((0..workers).map(worker).collect())
    }

    fn push(&mut self, spec: &TopN, rows: &[Row], watermark: i64, wall_time_ms: i64) {
        let rows = batch(rows);
        let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
        let columns: Vec<ArrayRef> = spec.keys.iter().map(|&key| Arc::clone(rows.column(key))).collect();
        hash_columns(&columns, rows.num_rows(), &mut keys, &mut hashes).unwrap();
        let tick = OpenTick {
            tick: Tick(1),
            wall_time_ms,
            watermarks: vec![Watermark(watermark)],
        };
        for (key_groups, operator) in &mut self.0 {
            let mine = BooleanArray::from_iter(hashes.iter().map(|&hash| Some(key_groups.contains_hash(hash))));
            let mut out = Output::with_budget(0);
            let progress = operator
                .on_batch(0, &filter_record_batch(&rows, &mine).unwrap(), &tick, &mut out)
                .unwrap();
            assert_eq!((progress, out.take().len()), (Progress::Done, 0));
        }
    }

    /// Closes a tick with a tiny budget; returns key, id, number and weight.
    fn close(&mut self, spec: &TopN, watermark: i64, wall_time_ms: i64) -> Vec<(String, i64, i64, i64)> {
        let close = TickClose {
            tick: Tick(1),
            wall_time_ms,
            watermarks: vec![Watermark(watermark)],
            is_last: false,
        };
        let mut found = Vec::new();
        for (_, operator) in &mut self.0 {
            loop {
                let mut out = Output::with_budget(3);
                let progress = operator.on_close(&close, &mut out).unwrap();
                for batch in out.take() {
                    let int = |column: usize| batch.column(column).as_primitive::<Int64Type>();
                    for row in 0..batch.num_rows() {
                        let number = if spec.outputs.len() > 2 { int(2).value(row) } else { 0 };
                        let weight = if spec.changes() {
                            int(batch.num_columns() - 1).value(row)
                        } else {
                            1
                        };
                        let key = batch.column(0).as_string::<i32>().value(row).to_owned();
                        found.push((key, int(1).value(row), number, weight));
                    }
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
            .flat_map(|(_, operator)| operator.capture().unwrap())
            .collect()
    }
}

/// The rows that are shown, of all rows in the order in which they came: key, window, id and number.
fn reference(shape: Shape, rows: &[Row]) -> Vec<(String, i64, i64, i64)> {
    let mut keys: BTreeMap<(&str, i64), Vec<Row>> = BTreeMap::new();
    for row in rows {
        let list = keys.entry((row.0, if shape.windows { row.3 } else { 0 })).or_default();
        match shape.ties {
            TopNTies::First => list.push(*row),
            TopNTies::Last => list.insert(0, *row),
        }
    }
    let value = |row: &Row| {
        let null = i64::from(shape.nulls_first) * -2 + 1;
        let sign = if shape.descending { -1 } else { 1 };
        let a = row.1.map_or((null, 0), |a| (0, sign * i64::from(a)));
        let b = sign * i64::from(row.2.bytes().next().unwrap_or(0));
        match shape.order {
            0 => ((0, 0), 0),
            1 => (a, 0),
            _ => (a, b),
        }
    };
    let mut shown = Vec::new();
    for ((key, window), mut list) in keys {
        list.sort_by_key(value);
        for (index, row) in list.iter().enumerate() {
            let number = index as u64 + 1;
            if (shape.first..=shape.last).contains(&number) {
                shown.push((
                    key.to_owned(),
                    window,
                    row.4,
                    if shape.number { number as i64 } else { 0 },
                ));
            }
        }
    }
    shown.sort();
    shown
}

fn shapes() -> impl Strategy<Value = Shape> {
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (0usize..3, flags, 1u64..4, 0u64..5).prop_map(|(order, flags, first, more)| {
        let (descending, nulls_first, last, windows, number) = flags;
        Shape {
            order,
            descending,
            nulls_first,
            ties: if last { TopNTies::Last } else { TopNTies::First },
            first,
            last: first + more,
            windows,
            number,
        }
    })
}

fn ticks() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let letter = || prop::sample::select(vec!["", "x", "y", "z"]);
    let row = (letter(), prop::option::of(-3i32..4), letter(), 0i64..4);
    let tick = prop::collection::vec(row, 0..25);
    prop::collection::vec(tick, 1..10).prop_map(|ticks| {
        let mut id = 0;
        let mut row = |(key, a, b, window): (_, _, _, i64)| {
            id += 1;
            (key, a, b, window * 10 + 10, id)
        };
        ticks
            .into_iter()
            .map(|rows| rows.into_iter().map(&mut row).collect())
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What the changes add up to after each tick is what the reference says, with a restore at another parallelism.
    #[test]
    fn changes_add_up_to_the_first_rows(shape in shapes(), ticks in ticks(), cut in 0usize..10) {
        let shape = Shape { windows: false, ..shape };
        let spec = spec(shape);
        let mut workers = Workers::new(&spec, 1, &[]);
        let (mut all, mut shown) = (Vec::new(), BTreeMap::new());
        for (tick, rows) in ticks.iter().enumerate() {
            if tick == cut {
                let sections = workers.capture();
                workers = Workers::new(&spec, 3, &sections);
            }
            for part in rows.chunks(7) {
                workers.push(&spec, part, i64::MIN, 0);
            }
            all.extend(rows.iter().copied());
            let mut seen = BTreeMap::new();
            for (key, id, number, weight) in workers.close(&spec, i64::MIN, 0) {
                let times = shown.entry((key.clone(), 0, id, number)).or_insert(0);
                *times += weight;
                prop_assert!((0..=1).contains(times), "taken back before it came, or twice");
                prop_assert!(seen.insert((key, id, number), weight).is_none(), "two changes of one row in a tick");
            }
            shown.retain(|_, times| *times != 0);
            prop_assert_eq!(shown.keys().cloned().collect::<Vec<_>>(), reference(shape, &all));
        }
    }

    /// Each window's rows come once, when it is complete, without the rows that are late.
    #[test]
    fn windows_give_their_first_rows_once(shape in shapes(), ticks in ticks(), cut in 0usize..10) {
        let shape = Shape { windows: true, ..shape };
        let spec = spec(shape);
        let mut workers = Workers::new(&spec, 2, &[]);
        let (mut all, mut found) = (Vec::new(), Vec::new());
        let watermark = |tick: usize| tick as i64 * 6;
        for (tick, rows) in ticks.iter().enumerate() {
            if tick == cut {
                let sections = workers.capture();
                workers = Workers::new(&spec, 3, &sections);
            }
            for part in rows.chunks(7) {
                workers.push(&spec, part, watermark(tick), 0);
            }
            all.extend(rows.iter().filter(|row| row.3 - 1 > watermark(tick)).copied());
            found.extend(workers.close(&spec, watermark(tick + 1), 0));
        }
        found.extend(workers.close(&spec, i64::MAX, 0));
        let window = |id: i64| all.iter().find(|row| row.4 == id).map(|row| row.3).unwrap_or_default();
        let mut found: Vec<_> = found.into_iter().map(|(key, id, number, _)| (key, window(id), id, number)).collect();
        found.sort();
        prop_assert_eq!(found, reference(shape, &all));
    }
}

fn latest() -> Shape {
    Shape {
        order: 1,
        descending: true,
        nulls_first: false,
        ties: TopNTies::First,
        first: 1,
        last: 1,
        windows: false,
        number: false,
    }
}

#[test]
fn only_the_best_rows_are_kept() {
    let spec = spec(latest());
    let mut workers = Workers::new(&spec, 1, &[]);
    let mut size = 0;
    for round in 0..60 {
        let rows: Vec<Row> = (0..2000)
            .map(|id| {
                (
                    ["", "x", "y", "z"][id as usize % 4],
                    Some(round * 2000 + id),
                    "b",
                    10,
                    i64::from(id),
                )
            })
            .collect();
        workers.push(&spec, &rows, i64::MIN, 0);
        assert!(workers.close(&spec, i64::MIN, 0).len() <= 8, "four keys change");
        if round == 20 {
            size = workers.capture()[0].bytes.len();
        }
    }
    assert_eq!(
        workers.capture()[0].bytes.len(),
        size,
        "a row per key, however many came"
    );
}

#[test]
fn key_that_was_not_written_for_its_time_to_live_is_forgotten() {
    let mut spec = spec(latest());
    spec.ttl_ms = Some(100);
    let mut workers = Workers::new(&spec, 1, &[]);
    let x = |a: i32, id: i64| [("x", Some(a), "b", 10, id)];
    workers.push(&spec, &x(5, 1), i64::MIN, 1000);
    assert_eq!(workers.close(&spec, i64::MIN, 1000), [("x".into(), 1, 0, 1)]);
    // A row that changes nothing writes nothing.
    workers.push(&spec, &x(4, 2), i64::MIN, 1099);
    assert_eq!(workers.close(&spec, i64::MIN, 1099), []);
    workers.push(&spec, &x(3, 3), i64::MIN, 1100);
    let forgotten = workers.close(&spec, i64::MIN, 1100);
    assert_eq!(
        forgotten,
        [("x".into(), 3, 0, 1)],
        "no change takes the forgotten row back"
    );
    workers.push(&spec, &x(6, 4), i64::MIN, 1150);
    let replaced = workers.close(&spec, i64::MIN, 1150);
    assert_eq!(replaced, [("x".into(), 3, 0, -1), ("x".into(), 4, 0, 1)]);
    let full = workers.capture()[0].bytes.len();
    assert_eq!(workers.close(&spec, i64::MIN, 1300), []);
    assert!(
        workers.capture()[0].bytes.len() < full,
        "the sweep drops keys that no row asks for"
    );
}

#[test]
fn state_of_another_query_is_refused() {
    let narrow = spec(latest());
    let mut workers = Workers::new(&narrow, 1, &[]);
    workers.push(&narrow, &[("x", Some(1), "b", 10, 1)], i64::MIN, 0);
    let _ = workers.close(&narrow, i64::MIN, 0);
    let sections = workers.capture();
    let mut wide = narrow.clone();
    wide.outputs.push(TopNColumn::Input(2));
    let context = OperatorContext {
        uid: "t".into(),
        worker: 0,
        workers: 1,
        key_groups: KeyGroupRange::of_worker(0, 1, 256),
        metrics: Arc::default(),
    };
    let output = Arc::new(Schema::new(vec![schema().field(0).clone()]));
    let mut operator = top_n(&wide, &schema(), output, context).unwrap();
    let error = operator.restore(&sections).unwrap_err().to_string();
    assert!(
        error.contains("no column b") && error.contains("query has changed"),
        "{error}"
    );
}
