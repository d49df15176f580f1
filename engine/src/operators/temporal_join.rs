//! The join of a stream with the versions of a table's rows, as of the stream's event time.
//!
//! ```text
//!  left rows  ─▶ kept until the right watermark reaches their time ─▶ the version valid then ─▶ out
//!  right rows ─▶ kept as versions; one that is older than the version valid at both watermarks is dropped
//! ```
//! Everything happens when a tick is closed, when all versions of the tick are there. A version that comes late counts for
//! the rows that are still to come.

use crate::error::Result;
use crate::expr::EvalContext;
use crate::graph::{Join, JoinInput, JoinKind};
use crate::key::{EncodedKeys, hash_columns};
use crate::operator::{
    CapturedSection, OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose,
};
use crate::operators::join::{KeptRows, Matcher, are_equal, kept_schema, millis_or};
use crate::rows::{RowKeys, RowRef, RowStore};
use crate::time::Watermark;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use std::sync::Arc;

/// Left rows that are joined together, and rows per emitted batch.
const BATCH_ROWS: usize = 4096;

/// The operator.
pub(crate) struct TemporalJoinOperator {
    kind: JoinKind,
    sides: [Side; 2],
    by_key: Matcher,
    /// Looks at the condition, too; none without one.
    by_condition: Option<Matcher>,
    outputs: Vec<(JoinInput, usize)>,
    schema: SchemaRef,
    context: OperatorContext,
    /// The left rows that the close emits, and how many are done.
    leaving: Option<(Vec<RowRef>, usize)>,
}

struct Side {
    /// The input's columns that are kept, ascending.
    columns: Vec<usize>,
    /// The keys and the time among them.
    keys: Vec<usize>,
    time: usize,
    kept: KeptRows,
}

/// A version: its time and place.
type Version = (i64, RowRef);

impl TemporalJoinOperator {
    /// Makes the operator of a join whose sides' times are those of rows and versions.
    ///
    /// # Errors
    /// When a column does not exist.
    pub(crate) fn new(
        join: &Join,
        schemas: &[SchemaRef; 2],
        output: SchemaRef,
        context: OperatorContext,
    ) -> Result<Self> {
        let side = |input: JoinInput| -> Result<Side> {
            let spec = join.side(input);
            let time = spec.time.map_or(0, |time| time.column);
            let mut columns = spec.keys.clone();
            columns.push(time);
            let read = join.condition.iter().flat_map(|condition| &condition.columns);
            let read = read.chain(&join.outputs).filter(|(of, ..)| *of == input);
            columns.extend(read.map(|(_, column, _)| *column));
            columns.sort_unstable();
            columns.dedup();
            let schema = kept_schema(&schemas[input as usize], &columns)?;
            let place = |column: &usize| columns.binary_search(column).unwrap_or_default();
            Ok(Side {
                keys: spec.keys.iter().map(place).collect(),
                time: place(&time),
                columns,
                kept: KeptRows::new(RowStore::new(schema).with_due()),
            })
        };
        let sides = [side(JoinInput::Left)?, side(JoinInput::Right)?];
        let place = |input: JoinInput, column: usize| {
            Ok(sides[input as usize].columns.binary_search(&column).unwrap_or_default())
        };
        let keys = [sides[0].keys.clone(), sides[1].keys.clone()];
        let without = Join {
            condition: None,
            ..join.clone()
        };
        let by_key = Matcher::new(&without, schemas, keys.clone(), place)?;
        let by_condition = match join.condition {
            Some(_) => Some(Matcher::new(join, schemas, keys, place)?),
            None => None,
        };
        let outputs = join
            .outputs
            .iter()
            .map(|(input, column, _)| Ok((*input, place(*input, *column)?)));
        Ok(Self {
            kind: join.kind,
            outputs: outputs.collect::<Result<Vec<_>>>()?,
            sides,
            by_key,
            by_condition,
            schema: output,
            context,
            leaving: None,
        })
    }

    /// Joins left rows whose versions are all there.
    fn join(&mut self, refs: &[RowRef], context: &EvalContext, out: &mut Output) -> Result<()> {
        let (left, hashes) = self.sides[0].rows(refs)?;
        let times = raw_times(left.column(self.sides[0].time))?;
        let versions = self.sides[1].versions(&hashes)?;
        let right = &self.sides[1].kept.store;
        let (mut rows, mut found) = (Vec::new(), Vec::new());
        for (row, (hash, time)) in hashes.iter().zip(&times).enumerate() {
            let of_hash = versions.of(*hash);
            let until = of_hash.partition_point(|(of_version, _)| of_version <= time);
            if let Some((_, version)) = of_hash[..until].last() {
                rows.push(row as u32);
                found.push(*version);
            }
        }
        let known = rows.clone();
        let pairs = self
            .by_key
            .matches(JoinInput::Left, &left, right, rows, found, &[], context)?;
        let (mut rows, mut found) = (pairs.probing, pairs.found);
        if rows.len() < known.len() {
            // Another key has the same hash: look at all versions of the hash.
            for row in known
                .into_iter()
                .filter(|row| rows.binary_search(row).is_err())
                .collect::<Vec<_>>()
            {
                let of_hash = versions.of(hashes[row as usize]);
                let until = of_hash.partition_point(|(time, _)| *time <= times[row as usize]);
                let all: Vec<RowRef> = of_hash[..until].iter().map(|(_, version)| *version).collect();
                let same =
                    self.by_key
                        .matches(JoinInput::Left, &left, right, vec![row; all.len()], all, &[], context)?;
                if let Some(last) = same.found.last() {
                    let place = rows.partition_point(|known| *known < row);
                    rows.insert(place, row);
                    found.insert(place, *last);
                }
            }
        }
        let matcher = self.by_condition.as_ref().unwrap_or(&self.by_key);
        let pairs = matcher.matches(JoinInput::Left, &left, right, rows, found, &self.outputs, context)?;
        let rows = pairs.probing.len();
        out.emit(self.batch(pairs.columns, rows)?);
        if self.kind == JoinKind::Left && rows < left.num_rows() {
            let mut is_alone = vec![true; left.num_rows()];
            pairs.probing.iter().for_each(|row| is_alone[*row as usize] = false);
            out.emit(self.padded(&filter_record_batch(&left, &BooleanArray::from(is_alone))?)?);
        }
        Ok(())
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns,
            &options,
        )?)
    }

    /// Makes left rows without a version of their kept columns.
    fn padded(&self, left: &RecordBatch) -> Result<RecordBatch> {
        let rows = left.num_rows();
        let columns = self
            .outputs
            .iter()
            .enumerate()
            .map(|(index, (input, place))| match input {
                JoinInput::Left => Arc::clone(left.column(*place)),
                JoinInput::Right => new_null_array(self.schema.field(index).data_type(), rows),
            });
        self.batch(columns.collect(), rows)
    }

    /// Returns the versions that are valid at a time, or were before, each once: it is marked then.
    fn due_versions(&mut self, until_ms: i64) -> Vec<RowRef> {
        let mut due = Vec::new();
        let store = &mut self.sides[1].kept.store;
        store.take_due(until_ms, &mut due);
        due.retain(|row| store.mark(*row));
        due
    }

    /// Drops versions that no row to come can ask for: those before the one that is valid at a time.
    fn drop_versions(&mut self, until_ms: i64) -> Result<()> {
        let due = self.due_versions(until_ms);
        let side = &mut self.sides[1];
        for refs in due.chunks(BATCH_ROWS) {
            // Others of this pass may have dropped some.
            let refs: Vec<RowRef> = refs
                .iter()
                .copied()
                .filter(|row| side.kept.store.contains(*row))
                .collect();
            let (rows, hashes) = side.rows(&refs)?;
            let times = raw_times(rows.column(side.time))?;
            // The last of each hash is enough; of another key with this hash, versions stay a while longer.
            let mut last: Vec<(u64, Version, usize)> = (0..refs.len())
                .map(|row| (hashes[row], (times[row], refs[row]), row))
                .collect();
            last.sort_unstable();
            let versions = side.versions(&hashes)?;
            let (mut probing, mut older, mut late) = (Vec::new(), Vec::new(), Vec::new());
            for of_hash in last.chunk_by(|a, b| a.0 == b.0) {
                if let Some((hash, newest, row)) = of_hash.last() {
                    let known = versions.of(*hash);
                    for (_, version) in &known[..known.partition_point(|version| version < newest)] {
                        probing.push(*row as u32);
                        older.push(*version);
                    }
                    // One that was told before may be younger than all of these, which came late then.
                    let told = known.iter().rev().find(|(_, row)| side.kept.store.is_marked(*row));
                    if let Some((_, told)) = told.filter(|told| *told > newest) {
                        late.extend(of_hash.iter().map(|(_, (_, row), place)| (*row, *place as u32, *told)));
                    }
                }
            }
            let places: Vec<u32> = late.iter().map(|(_, place, _)| *place).collect();
            let told: Vec<RowRef> = late.iter().map(|(.., told)| *told).collect();
            let is_late = are_equal(&rows, &side.keys, &places, &side.kept.store, &side.keys, &told)?;
            let late = late.into_iter().zip(is_late).filter(|(_, is_late)| *is_late);
            let late: Vec<RowRef> = late.map(|((row, ..), _)| row).collect();
            let same = are_equal(&rows, &side.keys, &probing, &side.kept.store, &side.keys, &older)?;
            let gone = older
                .into_iter()
                .zip(same)
                .filter(|(_, same)| *same)
                .map(|(version, _)| version);
            let gone: Vec<RowRef> = gone.collect();
            side.kept.remove(&gone);
            side.kept.remove(&late);
        }
        side.kept.compact()
    }
}

/// The versions of some hashes, those of a hash in the order in which they are valid.
struct Versions(Vec<(u64, Vec<Version>)>);

impl Versions {
    fn of(&self, hash: u64) -> &[Version] {
        match self.0.binary_search_by_key(&hash, |(known, _)| *known) {
            Ok(place) => &self.0[place].1,
            Err(_) => &[],
        }
    }
}

impl Side {
    /// Returns kept rows as a batch, with their hashes.
    fn rows(&self, refs: &[RowRef]) -> Result<(RecordBatch, Vec<u64>)> {
        let columns: Vec<usize> = (0..self.columns.len()).collect();
        let columns = self.kept.store.gather(refs, &columns)?;
        let rows = RecordBatch::try_new(Arc::clone(self.kept.store.schema()), columns)?;
        let hashes = refs.iter().map(|row| self.kept.store.hash_of(*row).unwrap_or_default());
        Ok((rows, hashes.collect()))
    }

    /// Finds the versions of hashes.
    fn versions(&mut self, hashes: &[u64]) -> Result<Versions> {
        let mut distinct = hashes.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let mut probe = self.kept.probe(&distinct);
        let (mut places, mut refs) = (Vec::new(), Vec::new());
        while self
            .kept
            .candidates(&mut probe, &distinct, usize::MAX, &mut places, &mut refs)
        {}
        let times = raw_times(&self.kept.store.gather(&refs, &[self.time])?[0])?;
        let mut versions: Vec<(u64, Vec<Version>)> = distinct.into_iter().map(|hash| (hash, Vec::new())).collect();
        for ((place, row), time) in places.into_iter().zip(refs).zip(times) {
            versions[place as usize].1.push((time, row));
        }
        versions.iter_mut().for_each(|(_, of_hash)| of_hash.sort_unstable());
        Ok(Versions(versions))
    }
}

/// Returns the times of a column in its own unit; none is null.
fn raw_times(column: &ArrayRef) -> Result<Vec<i64>> {
    let times = cast(column, &DataType::Int64)?;
    Ok(times.as_primitive::<Int64Type>().values().to_vec())
}

impl Operator for TemporalJoinOperator {
    fn on_batch(&mut self, input: usize, batch: &RecordBatch, tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let input = JoinInput::BOTH[input.min(1)];
        let side = &self.sides[input as usize];
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = side
            .columns
            .iter()
            .map(|&column| Arc::clone(batch.column(column)))
            .collect();
        let mut rows = RecordBatch::try_new_with_options(Arc::clone(side.kept.store.schema()), columns, &options)?;
        if input == JoinInput::Left {
            let passed = tick.watermarks.first().copied().unwrap_or_default();
            let times = millis_or(rows.column(side.time), i64::MAX)?;
            let in_time: Vec<bool> = times.iter().map(|time_ms| *time_ms > passed.0).collect();
            let late = in_time.iter().filter(|in_time| !**in_time).count();
            if passed != Watermark::NONE && late > 0 {
                self.context.metrics.rows_late.add(late as u64);
                rows = filter_record_batch(&rows, &BooleanArray::from(in_time))?;
            }
        }
        // A null among the keys has no version, nor has one without a time; and as a version it is none.
        let mut nulls: Option<NullBuffer> = None;
        for &column in side.keys.iter().chain([&side.time]) {
            nulls = NullBuffer::union(nulls.as_ref(), rows.column(column).logical_nulls().as_ref());
        }
        if let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) {
            if input == JoinInput::Left && self.kind == JoinKind::Left {
                let alone = filter_record_batch(&rows, &BooleanArray::new(!nulls.inner(), None))?;
                out.emit(self.padded(&alone)?);
            }
            rows = filter_record_batch(&rows, &BooleanArray::new(nulls.inner().clone(), None))?;
        }
        let side = &mut self.sides[input as usize];
        let keys: Vec<ArrayRef> = side.keys.iter().map(|&key| Arc::clone(rows.column(key))).collect();
        let mut hashes = Vec::new();
        hash_columns(&keys, rows.num_rows(), &mut EncodedKeys::default(), &mut hashes)?;
        let due = millis_or(rows.column(side.time), i64::MAX)?;
        let keys = RowKeys {
            hashes: &hashes,
            due: Some(&due),
        };
        side.kept.append(&rows, keys)?;
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        let passed = |side: usize| close.watermarks.get(side).copied().unwrap_or_default();
        let context = EvalContext {
            wall_time_ms: close.wall_time_ms,
        };
        let (due, mut next) = match self.leaving.take() {
            Some(leaving) => leaving,
            None => {
                let mut due = Vec::new();
                if passed(1) != Watermark::NONE {
                    self.sides[0].kept.store.take_due(passed(1).0, &mut due);
                }
                (due, 0)
            }
        };
        while next < due.len() {
            if out.is_full() {
                self.leaving = Some((due, next));
                return Ok(Progress::More);
            }
            let until = due.len().min(next + BATCH_ROWS.min(out.budget_left()));
            self.join(&due[next..until], &context, out)?;
            next = until;
        }
        self.sides[0].kept.remove(&due);
        self.sides[0].kept.compact()?;
        let both = passed(0).min(passed(1));
        if both != Watermark::NONE {
            self.drop_versions(both.0)?;
        }
        Ok(Progress::Done)
    }

    fn capture(&mut self) -> Result<Vec<StateSection>> {
        self.capture_sections()?
            .into_iter()
            .map(CapturedSection::encode)
            .collect()
    }

    fn capture_sections(&mut self) -> Result<Vec<CapturedSection>> {
        let [left, right] = &self.sides;
        Ok(KeptRows::capture_sides([&left.kept, &right.kept], &self.context))
    }

    fn restore(&mut self, sections: &[StateSection]) -> Result<()> {
        let [left, right] = &mut self.sides;
        KeptRows::restore_sides([&mut left.kept, &mut right.kept], sections, &self.context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::from_fn;
    use crate::graph::{JoinCondition, JoinSide, KeepRows, ShiftedTime};
    use crate::key::KeyGroupRange;
    use crate::metrics::OperatorMetrics;
    use crate::time::Tick;
    use arrow::array::{Int64Array, TimestampMillisecondArray};
    use arrow::compute::kernels::cmp::neq;
    use arrow::datatypes::{Field, Schema, TimeUnit};
    use proptest::prelude::*;

    /// Key, time, value.
    type Row = (Option<i64>, i64, i64);

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::Int64, true),
            Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, None), true),
            Field::new("value", DataType::Int64, true),
        ]))
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(TimestampMillisecondArray::from_iter_values(
                rows.iter().map(|row| row.1),
            )),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn operator(kind: JoinKind, worker: usize, workers: usize) -> (TemporalJoinOperator, OperatorContext) {
        let time = ShiftedTime {
            column: 1,
            offset_ms: 0,
        };
        let side = JoinSide {
            keys: vec![0],
            time: Some(time),
            keep: KeepRows::Until(vec![time]),
            watermark_delay_ms: 0,
        };
        let output = |input, name: &str| (input, 2, name.to_owned());
        let join = Join {
            kind,
            sides: [side.clone(), side],
            // A version that is equal to the row's value is none, and does not make an older one valid.
            condition: Some(JoinCondition {
                columns: vec![output(JoinInput::Left, "l"), output(JoinInput::Right, "r")],
                expr: from_fn("l <> r", DataType::Boolean, |batch, _| {
                    Ok(Arc::new(neq(batch.column(0), batch.column(1))?) as ArrayRef)
                }),
            }),
            outputs: vec![output(JoinInput::Left, "l"), output(JoinInput::Right, "r")],
        };
        let context = OperatorContext {
            uid: "join".into(),
            worker,
            workers,
            key_groups: KeyGroupRange::of_worker(worker, workers, 256),
            metrics: Arc::new(OperatorMetrics::default()),
        };
        let fields = ["l", "r"].map(|name| Field::new(name, DataType::Int64, true));
        let output = Arc::new(Schema::new(fields.to_vec()));
        let operator = TemporalJoinOperator::new(&join, &[schema(), schema()], output, context.clone()).unwrap();
        (operator, context)
    }

    fn ticks() -> impl Strategy<Value = Vec<(Vec<Row>, Vec<Row>, i64, i64)>> {
        let key = || prop_oneof![1 => Just(None), 8 => (0i64..3).prop_map(Some)];
        let row = (key(), -4i64..14, 0i64..4);
        let version = (key(), 1i64..14, 0i64..4);
        let rows = prop::collection::vec(row, 0..12);
        let versions = prop::collection::vec(version, 0..8);
        prop::collection::vec((rows, versions, 0i64..9, 0i64..9), 1..8)
    }

    fn reference(kind: JoinKind, rows: &[Row], versions: &[Row]) -> Vec<(i64, Option<i64>)> {
        let mut all = Vec::new();
        for (key, time_ms, value) in rows {
            let of_key = versions
                .iter()
                .filter(|v| key.is_some() && v.0 == *key && v.1 <= *time_ms);
            // Of the greatest time the last one.
            let version = of_key
                .max_by_key(|version| version.1)
                .filter(|version| version.2 != *value);
            match version {
                Some(version) => all.push((*value, Some(version.2))),
                None if kind == JoinKind::Left => all.push((*value, None)),
                None => {}
            }
        }
        all.sort_unstable();
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn rows_get_the_version_of_their_time(
            kind in prop::sample::select(vec![JoinKind::Inner, JoinKind::Left]),
            ticks in ticks(),
            cut in 0usize..8,
            old in 1usize..3,
            new in 1usize..4,
            budget in prop::sample::select(vec![1usize, 5, 10_000]),
        ) {
            let made = |count: usize| (0..count).map(|worker| operator(kind, worker, count)).collect::<Vec<_>>();
            let mut running = made(old);
            let (mut rows, mut versions, mut emitted) = (Vec::new(), Vec::new(), Vec::new());
            let mut watermarks = vec![Watermark::NONE, Watermark::NONE];
            let mut offset_ms = 0;
            for (number, (left, right, advance_left, advance_right)) in ticks.iter().enumerate() {
                if number == cut {
                    let state: Vec<_> = running.iter_mut().flat_map(|(o, _)| o.capture().unwrap()).collect();
                    running = made(new);
                    running.iter_mut().for_each(|(operator, _)| operator.restore(&state).unwrap());
                }
                let open = OpenTick { tick: Tick(number as u64), wall_time_ms: 0, watermarks: watermarks.clone() };
                offset_ms += 4;
                let left: Vec<Row> = left.iter().map(|(key, time, value)| (*key, time + offset_ms, *value)).collect();
                // Versions are in time.
                let floor = if watermarks[1] == Watermark::NONE { 0 } else { watermarks[1].0 };
                let right: Vec<Row> = right.iter().map(|(key, time, value)| (*key, time + floor, *value)).collect();
                rows.extend(left.iter().filter(|row| row.1 > watermarks[0].0).copied());
                versions.extend(right.iter().copied());
                let is_last = number + 1 == ticks.len();
                let next = |side: usize, by: i64| match watermarks[side] {
                    _ if is_last => Watermark::END,
                    Watermark::NONE => Watermark(by),
                    Watermark(known) => Watermark(known + by),
                };
                let close = TickClose {
                    tick: open.tick,
                    wall_time_ms: 0,
                    watermarks: vec![next(0, *advance_left), next(1, *advance_right)],
                    is_last,
                };
                for (operator, context) in &mut running {
                    let mut out = Output::with_budget(budget);
                    for (input, rows) in [(0, &left), (1, &right)] {
                        let whole = batch(rows);
                        let mut hashes = Vec::new();
                        let keys = [Arc::clone(whole.column(0))];
                        hash_columns(&keys, rows.len(), &mut EncodedKeys::default(), &mut hashes).unwrap();
                        let mine = hashes.iter().map(|hash| Some(context.key_groups.contains_hash(*hash)));
                        let mine = filter_record_batch(&whole, &BooleanArray::from_iter(mine)).unwrap();
                        prop_assert_eq!(operator.on_batch(input, &mine, &open, &mut out).unwrap(), Progress::Done);
                    }
                    let mut batches = out.take();
                    while operator.on_close(&close, &mut out).unwrap() == Progress::More {
                        batches.extend(out.take());
                    }
                    batches.extend(out.take());
                    for batch in batches {
                        let [l, r] = [0, 1].map(|column| batch.column(column).as_primitive::<Int64Type>().clone());
                        emitted.extend((0..batch.num_rows()).map(|row| (l.value(row), r.is_valid(row).then(|| r.value(row)))));
                    }
                }
                watermarks = close.watermarks;
            }
            emitted.sort_unstable();
            prop_assert_eq!(emitted, reference(kind, &rows, &versions));
            // Of each key one version is left, and no row.
            for (operator, _) in &running {
                prop_assert_eq!(operator.sides[0].kept.store.len(), 0);
                prop_assert!(operator.sides[1].kept.store.len() <= 3);
            }
        }
    }

    #[test]
    fn version_that_is_valid_is_looked_at_once_and_late_ones_are_dropped() {
        let (mut operator, _) = operator(JoinKind::Inner, 0, 1);
        let open = OpenTick {
            tick: Tick(1),
            wall_time_ms: 0,
            watermarks: vec![Watermark::NONE; 2],
        };
        let mut out = Output::with_budget(1);
        let mut push = |operator: &mut TemporalJoinOperator, rows: &[Row]| {
            assert_eq!(
                operator.on_batch(1, &batch(rows), &open, &mut out).unwrap(),
                Progress::Done
            );
        };
        let versions: Vec<Row> = (0..1000).map(|key| (Some(key), 10, 0)).collect();
        push(&mut operator, &versions);
        operator.drop_versions(10).unwrap();
        assert_eq!(operator.sides[1].kept.store.len(), 1000);
        push(&mut operator, &[(Some(7), 20, 1)]);
        assert_eq!(operator.due_versions(20).len(), 1);
        push(&mut operator, &[(Some(8), 20, 1)]);
        operator.drop_versions(20).unwrap();
        assert_eq!(
            operator.sides[1].kept.store.len(),
            1001,
            "of key 8 the older one has gone"
        );
        push(&mut operator, &[(Some(9), 5, 1)]);
        operator.drop_versions(20).unwrap();
        assert_eq!(
            operator.sides[1].kept.store.len(),
            1001,
            "of key 9 the late one has gone"
        );
    }
}
