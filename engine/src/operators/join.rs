//! The join of two streams: one operator for all kinds.
//!
//! ```text
//!  left row  ─▶ hash ─▶ right rows with the hash ─▶ equal keys, condition ─▶ pairs      then it is kept, for right rows to come
//!  right row ─▶ hash ─▶ left rows with the hash  ─▶      "        "      ─▶ pairs      then it is kept, for left rows to come
//!  watermark ─▶ rows that can have no match any more are dropped; of an outer join, those without one are emitted
//! ```
//! Each row looks at the rows of the other side that came before it, so each pair is seen once. A batch is handled as a
//! whole: the candidates of all its rows are gathered into columns, and compared, filtered and emitted as columns, a few
//! thousand at a time, as far as the output's budget allows.
//!
//! File map: `distinct` keeps one row per key where that is enough, `kept` holds the rows of a side, `pairs` makes columns of candidates, `times` reads time columns.

mod distinct;
mod kept;
mod pairs;
#[cfg(test)]
mod tests;
mod times;

use crate::error::{Error, Result};
use crate::expr::EvalContext;
use crate::graph::{Join, JoinInput, JoinKind, KeepRows, ShiftedTime};
use crate::key::{EncodedKeys, hash_columns};
use crate::operator::{
    CapturedSection, OpenTick, Operator, OperatorContext, Output, Progress, StateSection, TickClose,
};
use crate::rows::{RowKeys, RowRef, RowStore};
use crate::time::{Tick, Watermark};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use distinct::{last_of_keys, replace};
pub(super) use kept::KeptRows;
use kept::Probe;
pub(super) use pairs::{Matcher, are_equal};
use std::collections::HashSet;
use std::sync::Arc;
use times::due_of;
pub(super) use times::millis_or;

/// Candidates that are looked at together, and rows per emitted batch.
const BATCH_ROWS: usize = 8192;

/// The operator.
pub(crate) struct JoinOperator {
    kind: JoinKind,
    sides: [Side; 2],
    matcher: Matcher,
    /// Where the columns that come out are: the side, and the place among its kept columns.
    outputs: Vec<(JoinInput, usize)>,
    schema: SchemaRef,
    context: OperatorContext,
    /// The batch that is not done.
    arriving: Option<Arriving>,
    /// The rows that the close drops and has not emitted yet, by side.
    leaving: Option<(JoinInput, Vec<RowRef>, usize)>,
    /// The sides that the close is done with.
    closed: usize,
    /// The tick for which rows were dropped that had been kept long enough when it began.
    expired_for: Option<Tick>,
}

/// A side and what is kept of it.
struct Side {
    /// The input's columns that are kept, ascending.
    columns: Vec<usize>,
    /// The keys among them.
    keys: Vec<usize>,
    time: Option<ShiftedTime>,
    keep: KeepRows,
    kept: KeptRows,
}

/// A batch on its way through the operator.
struct Arriving {
    input: JoinInput,
    rows: RecordBatch,
    hashes: Vec<u64>,
    due: Option<Vec<i64>>,
    /// Which rows have found a match; empty where nobody asks.
    matched: Vec<bool>,
    probe: Probe,
    is_probed: bool,
    /// Left rows of a semi or anti join that right rows of this batch match, and how many are emitted.
    hits: Vec<RowRef>,
    hits_emitted: usize,
}

impl JoinOperator {
    /// Makes the operator; `schemas` are those of the inputs, `output` that of the result.
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
            let (spec, schema) = (join.side(input), &schemas[input as usize]);
            let mut columns = spec.keys.clone();
            let read = join.condition.iter().flat_map(|condition| &condition.columns);
            let read = read.chain(&join.outputs).filter(|(of, ..)| *of == input);
            columns.extend(read.map(|(_, column, _)| *column));
            columns.sort_unstable();
            columns.dedup();
            let schema = kept_schema(schema, &columns)?;
            let place = |column: &usize| columns.binary_search(column).unwrap_or_default();
            let keys = spec.keys.iter().map(place).collect();
            let store = RowStore::new(schema);
            let store = match spec.keep {
                KeepRows::Forever => store,
                KeepRows::For(_) | KeepRows::Until(_) => store.with_due(),
            };
            Ok(Side {
                columns,
                keys,
                time: spec.time,
                keep: spec.keep.clone(),
                kept: KeptRows::new(store),
            })
        };
        let sides = [side(JoinInput::Left)?, side(JoinInput::Right)?];
        let place = |input: JoinInput, column: usize| {
            let place = sides[input as usize].columns.binary_search(&column);
            place.map_err(|_| Error::Internal("a join lost a column".into()))
        };
        let outputs = join
            .outputs
            .iter()
            .map(|(input, column, _)| Ok((*input, place(*input, *column)?)));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let keys = [sides[0].keys.clone(), sides[1].keys.clone()];
        let matcher = Matcher::new(join, schemas, keys, place)?;
        Ok(Self {
            kind: join.kind,
            sides,
            matcher,
            outputs,
            schema: output,
            context,
            arriving: None,
            leaving: None,
            closed: 0,
            expired_for: None,
        })
    }

    /// Begins with a batch.
    fn arrive(&mut self, input: JoinInput, batch: &RecordBatch, tick: &OpenTick, out: &mut Output) -> Result<Arriving> {
        let watermark = |input: JoinInput| tick.watermarks.get(input as usize).copied().unwrap_or_default();
        let side = &self.sides[input as usize];
        let mut batch = batch.clone();
        if let Some(time) = side.time {
            let passed = watermark(input);
            let times = millis_or(batch.column(time.column), i64::MAX)?;
            let is_late = |time_ms: &i64| time_ms.saturating_add(time.offset_ms) <= passed.0;
            let late = times.iter().filter(|time_ms| is_late(time_ms)).count();
            if late > 0 && passed != Watermark::NONE {
                self.context.metrics.rows_late.add(late as u64);
                let in_time: BooleanArray = times.iter().map(|time_ms| Some(!is_late(time_ms))).collect();
                batch = filter_record_batch(&batch, &in_time)?;
            }
        }
        // A null among what must be equal, or among what bounds the time, matches nothing.
        let mut nulls: Option<NullBuffer> = None;
        for &key in &side.keys {
            let column = batch.column(side.columns[key]);
            nulls = NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref());
        }
        if let KeepRows::Until(times) = &side.keep {
            for time in times {
                nulls = NullBuffer::union(nulls.as_ref(), batch.column(time.column).logical_nulls().as_ref());
            }
        }
        if let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) {
            if self.kind.preserves(input) {
                let unmatched = BooleanArray::new(!nulls.inner(), None);
                let unmatched = filter_record_batch(&batch, &unmatched)?.project(&side.columns)?;
                out.emit(self.padded(input, unmatched.columns(), unmatched.num_rows())?);
            }
            batch = filter_record_batch(&batch, &BooleanArray::new(nulls.inner().clone(), None))?;
        }
        let rows = batch.num_rows();
        let side = &self.sides[input as usize];
        let due = match &side.keep {
            KeepRows::Forever => None,
            KeepRows::For(time) => {
                let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                Some(vec![tick.wall_time_ms.saturating_add(time_ms); rows])
            }
            KeepRows::Until(times) => Some(due_of(&batch, times)?),
        };
        let columns = side.columns.iter().map(|&column| Arc::clone(batch.column(column)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(side.kept.store.schema()), columns.collect(), &options)?;
        // One row per key is enough where only left rows come out, and nothing else is asked of the right one.
        if let Some(kept) = match self.is_distinct(input) {
            true => last_of_keys(&batch, &side.keys, due.as_deref())?,
            false => None,
        } {
            let due = due.map(|due| kept.iter().map(|&row| due[row]).collect());
            let kept = UInt32Array::from_iter_values(kept.iter().map(|&row| row as u32));
            return self.arrived(input, take_record_batch(&batch, &kept)?, due);
        }
        self.arrived(input, batch, due)
    }

    /// Says whether one row of each key is enough of a side.
    fn is_distinct(&self, input: JoinInput) -> bool {
        self.kind.is_of_left_rows() && input == JoinInput::Right && !self.matcher.has_condition()
    }

    fn arrived(&mut self, input: JoinInput, batch: RecordBatch, due: Option<Vec<i64>>) -> Result<Arriving> {
        let rows = batch.num_rows();
        let side = &self.sides[input as usize];
        let keys: Vec<ArrayRef> = side.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let mut hashes = Vec::new();
        hash_columns(&keys, rows, &mut EncodedKeys::default(), &mut hashes)?;
        let asks = self.kind.preserves(input) || (self.kind.is_of_left_rows() && input == JoinInput::Left);
        let probe = self.sides[input.other() as usize].kept.probe(&hashes);
        Ok(Arriving {
            input,
            rows: batch,
            hashes,
            due,
            matched: vec![false; if asks { rows } else { 0 }],
            probe,
            is_probed: rows == 0,
            hits: Vec::new(),
            hits_emitted: 0,
        })
    }

    /// Looks at some candidates.
    fn look(&mut self, arriving: &mut Arriving, context: &EvalContext, out: &mut Output) -> Result<()> {
        let (input, other) = (arriving.input, arriving.input.other());
        let pairs_max = BATCH_ROWS.min(out.budget_left());
        let (mut probing, mut found) = (Vec::new(), Vec::new());
        let kept = &self.sides[other as usize].kept;
        let more = kept.candidates(
            &mut arriving.probe,
            &arriving.hashes,
            pairs_max,
            &mut probing,
            &mut found,
        );
        arriving.is_probed = !more;
        if probing.is_empty() {
            return Ok(());
        }
        let wanted: &[_] = if self.kind.is_of_left_rows() {
            &[]
        } else {
            &self.outputs
        };
        let pairs = self
            .matcher
            .matches(input, &arriving.rows, &kept.store, probing, found, wanted, context)?;
        if !arriving.matched.is_empty() {
            pairs
                .probing
                .iter()
                .for_each(|&row| arriving.matched[row as usize] = true);
        }
        let kept = &mut self.sides[other as usize].kept;
        if self.kind.is_of_left_rows() {
            if input == JoinInput::Right {
                let new = pairs.found.iter().filter(|row| kept.store.mark(**row));
                arriving.hits.extend(new);
            }
        } else {
            if self.kind.preserves(other) {
                pairs.found.iter().for_each(|row| {
                    kept.store.mark(*row);
                });
            }
            let rows = pairs.probing.len();
            out.emit(batch_of(&self.schema, pairs.columns, rows)?);
        }
        Ok(())
    }

    /// Ends a batch: emits what is certain now, and keeps the rows.
    fn keep(&mut self, arriving: Arriving, tick: &OpenTick, out: &mut Output) -> Result<()> {
        let Arriving {
            input,
            rows,
            hashes,
            due,
            matched,
            hits,
            ..
        } = arriving;
        self.sides[input.other() as usize].kept.remove(&hits);
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let matched = (!matched.is_empty()).then(|| BooleanBuffer::collect_bool(matched.len(), |row| matched[row]));
        // What no row of the other side can match any more.
        let passed = tick.watermarks.get(input.other() as usize).copied().unwrap_or_default();
        let is_over = match (&self.sides[input as usize].keep, &due) {
            (KeepRows::Until(_), Some(due)) if passed != Watermark::NONE && due.iter().any(|due| *due <= passed.0) => {
                Some(BooleanBuffer::collect_bool(due.len(), |row| due[row] <= passed.0))
            }
            _ => None,
        };
        let of_left_rows = self.kind.is_of_left_rows() && input == JoinInput::Left;
        if let Some(matched) = &matched {
            let emitted = match (self.kind, &is_over) {
                (JoinKind::Semi, _) => Some(matched.clone()),
                (_, Some(is_over)) => Some(is_over & &!matched),
                (_, None) => None,
            };
            if let Some(emitted) = emitted.filter(|emitted| emitted.count_set_bits() > 0) {
                let emitted = filter_record_batch(&rows, &BooleanArray::new(emitted, None))?;
                out.emit(self.padded(input, emitted.columns(), emitted.num_rows())?);
            }
        }
        let mut kept = is_over.map(|is_over| !&is_over);
        if self.is_distinct(input) {
            let side = &mut self.sides[input as usize];
            let is_wanted = replace(&mut side.kept, &rows, &side.keys, &hashes, due.as_deref())?;
            let is_wanted = BooleanBuffer::collect_bool(is_wanted.len(), |row| is_wanted[row]);
            kept = Some(kept.map_or(is_wanted.clone(), |kept| &kept & &is_wanted));
        }
        if let Some(matched) = matched.as_ref().filter(|_| of_left_rows) {
            let unmatched = !matched;
            kept = Some(kept.map_or(unmatched.clone(), |kept| &kept & &unmatched));
        }
        let kept = kept.filter(|kept| kept.count_set_bits() < rows.num_rows());
        let side = &mut self.sides[input as usize].kept;
        let first;
        let places: Vec<usize>;
        match kept {
            None => {
                let keys = RowKeys {
                    hashes: &hashes,
                    due: due.as_deref(),
                };
                first = side.append(&rows, keys)?;
                places = (0..rows.num_rows()).collect();
            }
            Some(kept) => {
                places = kept.set_indices().collect();
                let hashes: Vec<u64> = places.iter().map(|&row| hashes[row]).collect();
                let due: Option<Vec<i64>> = due.map(|due| places.iter().map(|&row| due[row]).collect());
                let keys = RowKeys {
                    hashes: &hashes,
                    due: due.as_deref(),
                };
                first = side.append(&filter_record_batch(&rows, &BooleanArray::new(kept, None))?, keys)?;
            }
        }
        if let Some(matched) = matched.filter(|_| !of_left_rows) {
            for (place, row) in places.into_iter().enumerate() {
                if matched.value(row) {
                    side.store.mark(first.plus(place));
                }
            }
        }
        Ok(())
    }

    /// Makes rows that come out without a match of their kept columns.
    fn padded(&self, input: JoinInput, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        let columns = self.outputs.iter().enumerate().map(|(index, &(of, place))| {
            if of == input {
                Arc::clone(&columns[place])
            } else {
                new_null_array(self.schema.field(index).data_type(), rows)
            }
        });
        batch_of(&self.schema, columns.collect(), rows)
    }

    /// Emits kept rows of a side without the other.
    fn emit_kept(&self, input: JoinInput, refs: &[RowRef], out: &mut Output) -> Result<()> {
        let mut places: Vec<usize> = self
            .outputs
            .iter()
            .filter(|(of, _)| *of == input)
            .map(|(_, p)| *p)
            .collect();
        places.sort_unstable();
        places.dedup();
        let side = &self.sides[input as usize];
        let gathered = side.kept.store.gather(refs, &places)?;
        let columns = self.outputs.iter().enumerate().map(|(index, (of, place))| {
            match places.binary_search(place).ok().filter(|_| *of == input) {
                Some(found) => Arc::clone(&gathered[found]),
                None => new_null_array(self.schema.field(index).data_type(), refs.len()),
            }
        });
        out.emit(batch_of(&self.schema, columns.collect(), refs.len())?);
        Ok(())
    }

    /// Drops rows that were kept for their time of a side's wall time.
    fn expire(&mut self, now_ms: i64) {
        for side in &mut self.sides {
            if matches!(side.keep, KeepRows::For(_)) {
                let mut due = Vec::new();
                side.kept.store.take_due(now_ms, &mut due);
                side.kept.remove(&due);
            }
        }
    }

    /// Drops what can have no match any more of a side, and emits what had none.
    fn leave(&mut self, input: JoinInput, close: &TickClose, out: &mut Output) -> Result<Progress> {
        let side = &mut self.sides[input as usize];
        if self.leaving.is_none() {
            let passed = close
                .watermarks
                .get(input.other() as usize)
                .copied()
                .unwrap_or_default();
            let mut due = Vec::new();
            if matches!(side.keep, KeepRows::Until(_)) && passed != Watermark::NONE {
                side.kept.store.take_due(passed.0, &mut due);
            }
            self.leaving = Some((input, due, 0));
        }
        if self.kind.preserves(input) {
            while let Some((_, due, next)) = &mut self.leaving
                && *next < due.len()
            {
                if out.is_full() {
                    return Ok(Progress::More);
                }
                let until = due.len().min(*next + BATCH_ROWS.min(out.budget_left()));
                let store = &self.sides[input as usize].kept.store;
                let unmatched = due[*next..until].iter().filter(|row| !store.is_marked(**row));
                let unmatched: Vec<RowRef> = unmatched.copied().collect();
                *next = until;
                if !unmatched.is_empty() {
                    self.emit_kept(input, &unmatched, out)?;
                }
            }
        }
        if let Some((_, due, _)) = self.leaving.take() {
            let side = &mut self.sides[input as usize];
            side.kept.remove(&due);
            side.kept.compact()?;
        }
        Ok(Progress::Done)
    }
}

impl Operator for JoinOperator {
    fn on_batch(&mut self, input: usize, batch: &RecordBatch, tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        let input = JoinInput::BOTH[input.min(1)];
        let mut arriving = match self.arriving.take() {
            Some(arriving) => arriving,
            None => {
                if self.expired_for != Some(tick.tick) {
                    self.expired_for = Some(tick.tick);
                    self.expire(tick.wall_time_ms);
                }
                self.arrive(input, batch, tick, out)?
            }
        };
        let context = EvalContext {
            wall_time_ms: tick.wall_time_ms,
        };
        while !arriving.is_probed {
            if out.is_full() {
                self.arriving = Some(arriving);
                return Ok(Progress::More);
            }
            self.look(&mut arriving, &context, out)?;
        }
        if self.kind == JoinKind::Semi {
            while arriving.hits_emitted < arriving.hits.len() {
                if out.is_full() {
                    self.arriving = Some(arriving);
                    return Ok(Progress::More);
                }
                let left = &arriving.hits[arriving.hits_emitted..];
                let some = &left[..left.len().min(BATCH_ROWS).min(out.budget_left())];
                self.emit_kept(JoinInput::Left, some, out)?;
                arriving.hits_emitted += some.len();
            }
        }
        self.keep(arriving, tick, out)?;
        Ok(Progress::Done)
    }

    fn on_close(&mut self, close: &TickClose, out: &mut Output) -> Result<Progress> {
        while let Some(&input) = JoinInput::BOTH.get(self.closed) {
            if self.leave(input, close, out)? == Progress::More {
                return Ok(Progress::More);
            }
            self.closed += 1;
        }
        self.closed = 0;
        self.expire(close.wall_time_ms);
        for side in &mut self.sides {
            side.kept.compact()?;
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

fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

/// Returns the schema of the columns that are kept. State is stored under their names, so they are made unique.
pub(super) fn kept_schema(schema: &Schema, columns: &[usize]) -> Result<SchemaRef> {
    let mut names = HashSet::new();
    let mut fields: Vec<Field> = Vec::with_capacity(columns.len());
    for &column in columns {
        let field = schema.field(column).clone();
        let mut name = field.name().clone();
        while !names.insert(name.clone()) {
            name = format!("{name}.{column}");
        }
        fields.push(field.with_name(name));
    }
    Ok(Arc::new(Schema::new(fields)))
}
