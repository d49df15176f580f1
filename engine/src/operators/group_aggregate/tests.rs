//! The aggregation against a slow reference: rows that come and go over several ticks, with restores at another
//! parallelism in between. What the operator emits is applied to a table, which must be what the rows come to.

use super::*;
use crate::aggregate::{AggregateFunction, Avg, Count, CountDistinct, Max, Min, Sum};
use crate::graph::{JobGraph, NodeKind, SourceNode, weight_field};
use crate::key::{KeyGroupRange, hash_columns, worker_of};
use crate::testing::MemorySource;
use crate::time::{Tick, Watermark};
use arrow::array::{BooleanArray, StringArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Row = (Option<String>, Option<i64>, Option<String>, Option<bool>);

fn input_schema(changes: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("f", DataType::Boolean, true),
    ];
    fields.extend(changes.then(weight_field));
    Arc::new(Schema::new(fields))
}

/// Which aggregates are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// All; over what changes in one stage.
    All,
    /// Those that have a stage before the exchange, without sets.
    Merging,
    /// Those and sets, in two stages.
    Sets,
    /// None: `SELECT DISTINCT`.
    Nothing,
}

fn spec(asked: Asked, changes: bool, ttl_ms: Option<i64>) -> GroupAggregate {
    let call = |name: &str, function: Arc<dyn AggregateFunction>, argument: Option<usize>, filter| AggregateCall {
        function,
        arguments: argument.into_iter().collect(),
        filter,
        name: name.to_owned(),
    };
    let (int, text) = (&DataType::Int64, &DataType::Utf8);
    let distinct = |of: &DataType| Arc::new(CountDistinct::try_new(of).unwrap()) as Arc<dyn AggregateFunction>;
    let least: Arc<dyn AggregateFunction> = Arc::new(Min::try_new(int).unwrap());
    let greatest: Arc<dyn AggregateFunction> = Arc::new(Max::try_new(text).unwrap());
    let mut aggregates = vec![
        call("n", Arc::new(Count::new()), None, None),
        call("n_f", Arc::new(Count::new()), Some(1), Some(3)),
        call("sum", Arc::new(Sum::try_new(int).unwrap()), Some(1), None),
        call("avg", Arc::new(Avg::try_new(int).unwrap()), Some(1), None),
    ];
    if asked == Asked::All || (asked == Asked::Merging && !changes) {
        aggregates.push(call("min", least, Some(1), None));
        aggregates.push(call("max", greatest, Some(2), None));
    }
    if matches!(asked, Asked::All | Asked::Sets) {
        aggregates.push(call("kinds", distinct(int), Some(1), None));
        aggregates.push(call("kinds_f", distinct(int), Some(1), Some(3)));
        aggregates.push(call("texts", distinct(text), Some(2), None));
        aggregates.push(call("texts_f", distinct(text), Some(2), Some(3)));
    }
    if asked == Asked::Nothing {
        aggregates.clear();
    }
    GroupAggregate {
        keys: vec![0],
        aggregates,
        ttl_ms,
    }
}

/// The result of the reference for one group, as text; all calls.
fn expected(rows: &[Row], spec: &GroupAggregate) -> String {
    let numbers: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
    let passed = || rows.iter().filter(|row| row.3 == Some(true)).filter_map(|row| row.1);
    let texts = || rows.iter().filter_map(|row| row.2.clone());
    let sum: i64 = numbers.iter().sum();
    let or_null = |value: Option<String>| value.unwrap_or_else(|| "NULL".into());
    let results = spec.aggregates.iter().map(|call| match call.name.as_str() {
        "n" => rows.len().to_string(),
        "n_f" => passed().count().to_string(),
        "sum" => or_null((!numbers.is_empty()).then(|| sum.to_string())),
        "avg" => or_null((!numbers.is_empty()).then(|| (sum / numbers.len() as i64).to_string())),
        "min" => or_null(numbers.iter().min().map(ToString::to_string)),
        "max" => or_null(texts().max()),
        "kinds" => numbers.iter().collect::<BTreeSet<_>>().len().to_string(),
        "kinds_f" => passed().collect::<BTreeSet<_>>().len().to_string(),
        "texts" => texts().collect::<BTreeSet<_>>().len().to_string(),
        "texts_f" => {
            let passed = rows.iter().filter(|row| row.3 == Some(true));
            let texts = passed.filter_map(|row| row.2.as_ref());
            texts.collect::<BTreeSet<_>>().len().to_string()
        }
        other => unreachable!("{other}"),
    });
    results.collect::<Vec<_>>().join("|")
}

fn batch(rows: &[(Row, i64)], changes: bool) -> RecordBatch {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0.0.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.0.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.0.2.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.0.3).collect::<BooleanArray>()),
    ];
    if changes {
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))));
    }
    RecordBatch::try_new(input_schema(changes), columns).unwrap()
}

/// The output's schema, as the graph gives it.
fn output_schema(spec: &GroupAggregate, changes: bool) -> SchemaRef {
    let mut graph = JobGraph::new();
    let source = SourceNode {
        table: "t".into(),
        physical_schema: input_schema(changes),
        source: Arc::new(MemorySource::bounded(Vec::new())),
        computed: None,
        event_time: None,
    };
    let input = graph.source(source).unwrap();
    let stream = graph.group_aggregate("g", input, spec.clone()).unwrap();
    assert!(matches!(graph.nodes()[1].kind, NodeKind::GroupAggregate(_)));
    Arc::clone(graph.schema(stream))
}

/// The workers of one job, without the dataflow between them.
struct Workers {
    spec: GroupAggregate,
    changes: bool,
    partial: Vec<Box<dyn Operator>>,
    whole: Vec<GroupAggregateOperator>,
    tick: u64,
    /// Rows per call of `on_close`.
    budget: usize,
}

impl Workers {
    fn new(spec: &GroupAggregate, changes: bool, count: usize, sections: &[StateSection]) -> Self {
        let (input, output) = (input_schema(changes), output_schema(spec, changes));
        let context = |worker| OperatorContext {
            uid: "g".into(),
            worker,
            workers: count,
            key_groups: KeyGroupRange::of_worker(worker, count, 256),
            metrics: Arc::default(),
        };
        let is_split = count > 1 && has_partial_stage(spec, &input);
        let stage = if is_split { Stage::Final } else { Stage::Whole };
        let whole = (0..count).map(|worker| {
            let made = GroupAggregateOperator::new(stage, spec, &input, Arc::clone(&output), context(worker));
            let mut operator = made.unwrap();
            let mine = operator.context.key_groups;
            let found = sections
                .iter()
                .filter(|section| section.key_groups.unwrap().intersects(&mine));
            operator.restore(&found.cloned().collect::<Vec<_>>()).unwrap();
            operator
        });
        let partial = (0..if is_split { count } else { 0 })
            .map(|worker| group_aggregate(Stage::Partial, spec, &input, Arc::clone(&output), context(worker)).unwrap());
        Self {
            spec: spec.clone(),
            changes,
            partial: partial.collect(),
            whole: whole.collect(),
            tick: 0,
            budget: 3,
        }
    }

    fn capture(&mut self) -> Vec<StateSection> {
        let captured = self.whole.iter_mut().flat_map(|operator| operator.capture().unwrap());
        captured.collect()
    }

    fn close(operator: &mut dyn Operator, tick: u64, wall_time_ms: i64, budget: usize) -> Vec<RecordBatch> {
        let close = TickClose {
            tick: Tick(tick),
            wall_time_ms,
            watermarks: vec![Watermark::NONE],
            is_last: false,
        };
        let mut batches = Vec::new();
        loop {
            let mut out = Output::with_budget(budget);
            let progress = operator.on_close(&close, &mut out).unwrap();
            batches.extend(out.take());
            if progress == Progress::Done {
                return batches;
            }
        }
    }

    /// Sends batches to the owners of their keys.
    fn exchange(&mut self, batches: &[RecordBatch], open: &OpenTick) {
        let count = self.whole.len();
        for batch in batches {
            let hashes = if self.partial.is_empty() {
                let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
                hash_columns(&batch.columns()[..1], batch.num_rows(), &mut keys, &mut hashes).unwrap();
                hashes
            } else {
                let last = batch.columns().last().unwrap();
                last.as_primitive::<UInt64Type>().values().to_vec()
            };
            for (worker, operator) in self.whole.iter_mut().enumerate() {
                let rows = hashes.iter().zip(0u32..);
                let mine = rows.filter(|(hash, _)| worker_of(**hash, 256, count) == worker);
                let mine = UInt32Array::from_iter_values(mine.map(|(_, row)| row));
                if !mine.is_empty() {
                    let part = arrow::compute::take_record_batch(batch, &mine).unwrap();
                    let mut out = Output::with_budget(100);
                    let _ = operator.on_batch(0, &part, open, &mut out).unwrap();
                }
            }
        }
    }

    /// Runs a tick; returns what it emits as (key, result, weight).
    fn tick(&mut self, batches: &[Vec<(Row, i64)>], wall_time_ms: i64) -> Vec<(String, String, i64)> {
        self.tick += 1;
        let open = OpenTick {
            tick: Tick(self.tick),
            wall_time_ms,
            watermarks: vec![Watermark::NONE],
        };
        let mut rows: Vec<RecordBatch> = batches.iter().map(|rows| batch(rows, self.changes)).collect();
        if !self.partial.is_empty() {
            let mut states = Vec::new();
            for (index, batch) in rows.iter().enumerate() {
                let worker = index % self.partial.len();
                let mut out = Output::with_budget(100);
                let _ = self.partial[worker].on_batch(0, batch, &open, &mut out).unwrap();
                states.extend(out.take());
            }
            for operator in &mut self.partial {
                states.extend(Self::close(operator.as_mut(), self.tick, wall_time_ms, self.budget));
            }
            rows = states;
        }
        self.exchange(&rows, &open);
        let mut emitted = Vec::new();
        for operator in &mut self.whole {
            for batch in Self::close(operator, self.tick, wall_time_ms, self.budget) {
                let options = FormatOptions::new().with_null("NULL");
                let text = |column: usize, row: usize| {
                    let formatter = ArrayFormatter::try_new(batch.column(column).as_ref(), &options).unwrap();
                    formatter.value(row).to_string()
                };
                let results = 1..1 + self.spec.aggregates.len();
                for row in 0..batch.num_rows() {
                    let result = results.clone().map(|column| text(column, row));
                    let weight = weight_of(batch.schema_ref());
                    let weight = weight.map_or(1, |column| batch.column(column).as_primitive::<Int64Type>().value(row));
                    emitted.push((text(0, row), result.collect::<Vec<_>>().join("|"), weight));
                }
            }
        }
        emitted
    }
}

/// Applies a tick's changes to the result, which every sink could be.
fn apply(result: &mut BTreeMap<String, String>, changes: Vec<(String, String, i64)>) {
    let mut seen = BTreeMap::new();
    for (key, row, weight) in changes {
        let before = seen.insert(key.clone(), weight);
        match weight {
            -1 => {
                assert_eq!(before, None, "{key} is taken out after it was added");
                assert_eq!(result.remove(&key), Some(row), "{key}");
            }
            1 => assert_eq!(result.insert(key.clone(), row), None, "{key} is there twice"),
            other => panic!("{key} has the weight {other}"),
        }
    }
}

fn by_key(rows: &[Row]) -> BTreeMap<String, Vec<Row>> {
    let mut groups: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let key = row.0.clone().unwrap_or_else(|| "NULL".into());
        groups.entry(key).or_default().push(row.clone());
    }
    groups
}

fn reference(rows: &[Row], spec: &GroupAggregate) -> BTreeMap<String, String> {
    let groups = by_key(rows).into_iter();
    groups.map(|(key, rows)| (key, expected(&rows, spec))).collect()
}

fn any_row() -> impl Strategy<Value = Row> {
    let key = prop::option::weighted(0.9, (0..6u8).prop_map(|key| format!("k{key}")));
    let text = prop::option::weighted(0.8, "[ab]{0,2}");
    (
        key,
        prop::option::weighted(0.8, -5..5i64),
        text,
        prop::option::weighted(0.8, any::<bool>()),
    )
}

/// A tick: rows that come, places of rows that go, and the parallelism to restore at behind it.
fn any_tick() -> impl Strategy<Value = (Vec<Row>, Vec<prop::sample::Index>, Option<usize>)> {
    let restore = prop::option::weighted(0.3, 1..4usize);
    (
        prop::collection::vec(any_row(), 0..12),
        prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        restore,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn changes_come_to_what_the_rows_come_to(
        asked in prop::sample::select(vec![Asked::All, Asked::Merging, Asked::Sets, Asked::Nothing]),
        changes in any::<bool>(),
        ticks in prop::collection::vec(any_tick(), 1..12),
        first in 1..4usize,
    ) {
        let spec = spec(asked, changes, None);
        let mut workers = Workers::new(&spec, changes, first, &[]);
        let (mut rows, mut result): (Vec<Row>, BTreeMap<_, _>) = Default::default();
        for (number, (come, go, restore)) in ticks.into_iter().enumerate() {
            let mut of_tick: Vec<(Row, i64)> = come.iter().map(|row| (row.clone(), 1)).collect();
            rows.extend(come);
            for place in go.iter().filter(|_| changes) {
                if !rows.is_empty() {
                    of_tick.push((rows.swap_remove(place.index(rows.len())), -1));
                }
            }
            // Between workers there is no order: a row may be taken back before it comes.
            if number % 2 == 1 {
                of_tick.reverse();
            }
            let batches: Vec<Vec<(Row, i64)>> = of_tick.chunks(4).map(<[_]>::to_vec).collect();
            apply(&mut result, workers.tick(&batches, 0));
            prop_assert_eq!(&result, &reference(&rows, &spec));
            if let Some(count) = restore {
                workers = Workers::new(&spec, changes, count, &workers.capture());
            }
        }
    }
}

fn row(key: &str, a: i64) -> (Row, i64) {
    ((Some(key.to_owned()), Some(a), Some(format!("t{a}")), Some(true)), 1)
}

fn taken((row, weight): (Row, i64)) -> (Row, i64) {
    (row, -weight)
}

#[test]
fn tick_that_changes_nothing_says_nothing() {
    let spec = spec(Asked::Merging, true, None);
    let mut workers = Workers::new(&spec, true, 1, &[]);
    assert_eq!(workers.tick(&[vec![row("x", 1)]], 0).len(), 1);
    assert_eq!(
        workers.tick(
            &[
                vec![row("x", 5), row("y", 5)],
                vec![taken(row("x", 5)), taken(row("y", 5))]
            ],
            0
        ),
        []
    );
    assert_eq!(workers.tick(&[], 0), []);
}

#[test]
fn numbers_left_behind_are_taken_up_again() {
    let spec = spec(Asked::All, true, None);
    let mut workers = Workers::new(&spec, true, 1, &[]);
    let mut result = BTreeMap::new();
    let keys = |tick: i64| (0..700).map(move |key| row(&format!("{tick}-{key}"), key % 7));
    for tick in 0..8 {
        let rows: Vec<_> = keys(tick)
            .chain(keys(tick - 1).filter(|_| tick > 0).map(taken))
            .collect();
        apply(&mut result, workers.tick(&[rows], 0));
        let rows: Vec<Row> = keys(tick).map(|(row, _)| row).collect();
        assert_eq!(result, reference(&rows, &spec));
        assert!(
            workers.whole[0].groups.len() < 5 * 700,
            "{}",
            workers.whole[0].groups.len()
        );
    }
}

#[test]
fn group_to_which_nothing_comes_is_forgotten_and_begins_anew() {
    let spec = spec(Asked::All, false, Some(6_400));
    let mut workers = Workers::new(&spec, false, 1, &[]);
    assert_eq!(workers.tick(&[vec![row("old", 1), row("new", 1)]], 10_000).len(), 2);
    assert_eq!(workers.tick(&[vec![row("new", 2)]], 14_000).len(), 2);
    // The times survive a checkpoint.
    let mut workers = Workers::new(&spec, false, 2, &workers.capture());
    let found = workers.tick(&[vec![row("old", 3), row("new", 3)]], 17_000);
    let mut result: Vec<_> = found
        .iter()
        .map(|(key, row, weight)| (key.as_str(), row.as_str(), *weight))
        .collect();
    result.sort_unstable();
    let expected = [
        ("new", "2|2|3|1|1|t2|2|2|2|2", -1),
        ("new", "3|3|6|2|1|t3|3|3|3|3", 1),
        ("old", "1|1|3|3|3|t3|1|1|1|1", 1),
    ];
    assert_eq!(result, expected);
}

#[test]
fn state_of_another_query_is_refused() {
    let merging = spec(Asked::Merging, false, None);
    let mut workers = Workers::new(&merging, false, 1, &[]);
    workers.tick(&[vec![row("x", 1)]], 0);
    let sections = workers.capture();
    let all = spec(Asked::All, false, None);
    let output = output_schema(&all, false);
    let context = workers.whole[0].context.clone();
    let mut operator = GroupAggregateOperator::new(Stage::Whole, &all, &input_schema(false), output, context).unwrap();
    let error = operator.restore(&sections).unwrap_err();
    assert!(error.to_string().contains("has no set.kinds"), "{error}");
}

fn only(name: &str, changes: bool, ttl_ms: Option<i64>) -> GroupAggregate {
    let mut spec = spec(Asked::All, changes, ttl_ms);
    spec.aggregates.retain(|call| call.name == name);
    spec
}

#[test]
fn values_of_groups_that_live_are_not_copied_for_each_group_that_is_forgotten() {
    let spec = only("max", true, Some(6_400));
    let mut workers = Workers::new(&spec, true, 1, &[]);
    let rows = |key, count| (0..count).map(|a| row(key, a)).collect::<Vec<_>>();
    workers.tick(&[rows("small", 2_000)], 10_000);
    workers.tick(&[rows("large", 10_000)], 14_000);
    workers.tick(&[], 17_000);
    let operator = &workers.whole[0];
    assert_eq!((operator.groups.live_count(), operator.garbage), (1, 2_001));
    // With as many again it is worth it.
    workers.tick(&[rows("other", 9_000)], 18_000);
    workers.tick(&[rows("large", 1)], 20_000);
    workers.tick(&[], 25_000);
    let operator = &workers.whole[0];
    assert_eq!((operator.groups.len(), operator.garbage), (1, 0));
    assert_eq!(operator.slots.members_count(), 10_000);
}

#[test]
fn values_of_a_group_are_written_in_pieces() {
    let spec = only("max", true, None);
    let mut workers = Workers::new(&spec, true, 1, &[]);
    let rows: Vec<_> = (0..150_000).map(|a| row("x", a)).collect();
    workers.tick(&[rows], 0);
    let sections = workers.capture();
    let section = sections.iter().find(|section| section.name == "multiset.max").unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(section.bytes.as_ref(), None).unwrap();
    let pieces: Vec<usize> = reader.map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!(pieces.iter().sum::<usize>(), 150_000);
    assert!(pieces.iter().all(|rows| *rows <= 1 << 16), "{pieces:?}");
    let mut workers = Workers::new(&spec, true, 2, &sections);
    let found = workers.tick(&[vec![taken(row("x", 99_999))]], 0);
    let weights: Vec<_> = found.iter().map(|(_, max, weight)| (max.as_str(), *weight)).collect();
    assert_eq!(weights, [("t99999", -1), ("t99998", 1)]);
}

#[test]
fn values_and_keys_that_hardly_repeat_go_as_they_come() {
    for (changes, one_key) in [(false, true), (true, true), (false, false), (true, false)] {
        let spec = spec(Asked::Sets, changes, None);
        let mut workers = Workers::new(&spec, changes, 2, &[]);
        workers.budget = 5_000;
        let (mut rows, mut result): (Vec<Row>, BTreeMap<_, _>) = Default::default();
        for tick in 0..5 {
            // After the first tick of new values comes one of the same, which must not count again.
            let first = 20_000 * i64::from(tick / 2);
            let come = (first..first + 20_000).map(|a| {
                let key = if one_key { "x".to_owned() } else { format!("k{a}") };
                let passes = [Some(true), Some(false), None][(a % 3) as usize];
                let text = (a % 5 != 0).then(|| format!("t{}", a / 2));
                (Some(key), (a % 7 != 0).then_some(a), text, passes)
            });
            let mut of_tick: Vec<(Row, i64)> = come.map(|row| (row, 1)).collect();
            rows.extend(of_tick.iter().map(|(row, _)| row.clone()));
            if changes && tick > 0 {
                of_tick.extend(rows.drain(..5_000).map(|row| (row, -1)));
            }
            let (left, right) = of_tick.split_at(of_tick.len() / 2);
            apply(&mut result, workers.tick(&[left.to_vec(), right.to_vec()], 0));
            assert_eq!(
                result,
                reference(&rows, &spec),
                "tick {tick}, changes {changes}, one key {one_key}"
            );
        }
    }
}

#[test]
fn value_that_repeats_goes_over_the_exchange_once_per_tick() {
    let spec = spec(Asked::Sets, false, None);
    let schema = input_schema(false);
    let mut partial = PartialGroupsOperator::new(&spec, &schema).unwrap();
    let rows: Vec<_> = (0..1_000).map(|number| row("x", number % 10)).collect();
    let open = OpenTick {
        tick: Tick(1),
        wall_time_ms: 0,
        watermarks: vec![Watermark::NONE],
    };
    for tick in 1..3 {
        let mut out = Output::with_budget(100);
        let _ = partial.on_batch(0, &batch(&rows, false), &open, &mut out).unwrap();
        let batches = Workers::close(&mut partial, tick, 0, 3);
        let [states] = &batches[..] else {
            panic!("{} batches", batches.len());
        };
        let members = states.column_by_name("members.kinds").unwrap();
        assert_eq!((states.num_rows(), members.as_list::<i32>().value(0).len()), (1, 10));
    }
}

#[test]
fn sets_are_stored_in_parts_and_restored_from_them() {
    for changes in [false, true] {
        let mut spec = only("kinds", changes, None);
        spec.aggregates.extend(only("kinds_f", changes, None).aggregates);
        let mut workers = Workers::new(&spec, changes, 1, &[]);
        let rows: Vec<_> = (0..300_000)
            .map(|a| row(["x", "y"][usize::from(a % 3 == 0)], a))
            .collect();
        workers.tick(&[rows], 0);
        let sections = workers.capture();
        let parts = sections.iter().filter(|section| section.name == "set.kinds");
        assert_eq!(parts.count(), 2);
        let mut workers = Workers::new(&spec, changes, 2, &sections);
        let mut found = workers.tick(&[vec![row("x", 1), row("x", -1), row("y", -2)]], 0);
        found.sort();
        let expected = [
            ("x", "200000|200000", -1),
            ("x", "200001|200001", 1),
            ("y", "100000|100000", -1),
            ("y", "100001|100001", 1),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|(key, row, weight)| (key.as_str(), row.as_str(), *weight))
            .collect();
        assert_eq!(found, expected);
    }
}
