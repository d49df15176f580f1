//! Brings the changes of a tick together, by key.
//!
//! Keeps nothing beyond its tick. Keys go on in the order in which the tick first touched them, and of a key's rows those
//! that are taken out come first; a row that was added and taken out within the tick does not go on. A key that was
//! touched by one row, or by a removal and then an addition, is the rule and costs no more than finding it.

use super::group_table::GroupTable;
use crate::error::{Error, Result};
use crate::graph::{WEIGHT, weight_of};
use crate::key::{EncodedKeys, encode_keys, key_hash};
use crate::operator::{OpenTick, Operator, Output, Progress, TickClose};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows per emitted batch.
const BATCH_ROWS: usize = 8192;

/// The operator.
pub(crate) struct ConsolidateOperator {
    keys: Vec<usize>,
    weight: usize,
    schema: SchemaRef,
    /// What the tick has brought so far.
    arrived: Vec<RecordBatch>,
    /// What the closed tick did, and how much of it is emitted.
    closing: Option<(RecordBatch, usize)>,
    scratch: EncodedKeys,
}

impl ConsolidateOperator {
    /// Makes the operator for rows of a schema, with these columns as their key.
    ///
    /// # Errors
    /// When the rows have no weight.
    pub(crate) fn new(keys: Vec<usize>, schema: SchemaRef) -> Result<Self> {
        let weight = weight_of(&schema);
        let weight = weight.ok_or_else(|| Error::Internal(format!("changes without a column {WEIGHT}")))?;
        Ok(Self {
            keys,
            weight,
            schema,
            arrived: Vec::new(),
            closing: None,
            scratch: EncodedKeys::default(),
        })
    }

    /// Returns what a tick's changes come to.
    fn consolidated(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let weights = batch.column(self.weight).as_primitive::<Int64Type>().values();
        let columns: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        encode_keys(&columns, batch.num_rows(), &mut self.scratch)?;
        let mut table = GroupTable::default();
        let groups: Vec<u32> = (0..batch.num_rows())
            .map(|row| table.group(key_hash(self.scratch.key(row)), self.scratch.key(row)))
            .collect();
        let by_group = ByGroup::new(&groups, table.len());
        let is_plain = |rows: &[u32]| match *rows {
            [_] => true,
            [first, second] => weights[first as usize] < 0 && weights[second as usize] > 0,
            _ => false,
        };
        let mixed = (0..table.len()).any(|group| !is_plain(by_group.rows(group)));
        let rows = mixed.then(|| self.encoded_rows(batch)).transpose()?;
        let mut order: Vec<u32> = Vec::with_capacity(batch.num_rows());
        let mut net: Vec<i64> = Vec::with_capacity(batch.num_rows());
        for group in 0..table.len() {
            let of_group = by_group.rows(group);
            match &rows {
                Some(rows) if !is_plain(of_group) => net_changes(of_group, weights, rows, &mut order, &mut net),
                _ => {
                    order.extend_from_slice(of_group);
                    net.extend(of_group.iter().map(|&row| weights[row as usize]));
                }
            }
        }
        let taken = take_record_batch(batch, &UInt32Array::from(order))?;
        let mut columns = taken.columns().to_vec();
        columns[self.weight] = Arc::new(Int64Array::from(net));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Encodes rows without their weight, so that equal ones are equal bytes.
    fn encoded_rows(&self, batch: &RecordBatch) -> Result<Rows> {
        let fields = self.schema.fields()[..self.weight].iter();
        let converter = RowConverter::new(fields.map(|field| SortField::new(field.data_type().clone())).collect())?;
        Ok(converter.convert_columns(&batch.columns()[..self.weight])?)
    }
}

/// Appends what is left of a key's rows: first what is taken out, then what is added, each in the order it came.
fn net_changes(of_key: &[u32], weights: &[i64], rows: &Rows, order: &mut Vec<u32>, net: &mut Vec<i64>) {
    let mut sums: Vec<(u32, i64)> = Vec::new();
    let mut known: HashMap<&[u8], usize> = HashMap::with_capacity(of_key.len());
    for &row in of_key {
        let place = *known.entry(rows.row(row as usize).data()).or_insert_with(|| {
            sums.push((row, 0));
            sums.len() - 1
        });
        sums[place].1 += weights[row as usize];
    }
    for takes_out in [true, false] {
        for &(row, sum) in sums.iter().filter(|(_, sum)| *sum != 0 && (*sum < 0) == takes_out) {
            for _ in 0..sum.unsigned_abs() {
                order.push(row);
                net.push(sum.signum());
            }
        }
    }
}

/// The rows of each group, in the order they came.
struct ByGroup {
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl ByGroup {
    fn new(groups: &[u32], count: usize) -> Self {
        let mut starts = vec![0u32; count + 1];
        for &group in groups {
            starts[group as usize + 1] += 1;
        }
        for group in 0..count {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut rows = vec![0u32; groups.len()];
        for (row, &group) in groups.iter().enumerate() {
            let place = &mut next[group as usize];
            rows[*place as usize] = row as u32;
            *place += 1;
        }
        Self { starts, rows }
    }

    fn rows(&self, group: usize) -> &[u32] {
        &self.rows[self.starts[group] as usize..self.starts[group + 1] as usize]
    }
}

impl Operator for ConsolidateOperator {
    fn on_batch(
        &mut self,
        _input: usize,
        batch: &RecordBatch,
        _tick: &OpenTick,
        _out: &mut Output,
    ) -> Result<Progress> {
        self.arrived.push(batch.clone());
        Ok(Progress::Done)
    }

    fn on_close(&mut self, _close: &TickClose, out: &mut Output) -> Result<Progress> {
        let (batch, mut next) = match self.closing.take() {
            Some(closing) => closing,
            None if self.arrived.is_empty() => return Ok(Progress::Done),
            None => {
                let arrived = std::mem::take(&mut self.arrived);
                (self.consolidated(&concat_batches(&self.schema, &arrived)?)?, 0)
            }
        };
        while next < batch.num_rows() {
            let left = batch.num_rows() - next;
            let mut rows = left.min(BATCH_ROWS).min(out.budget_left());
            if rows == 0 {
                self.closing = Some((batch, next));
                return Ok(Progress::More);
            }
            // The two rows of an update stay together, so that a sink sees that they are one.
            let weights = batch.column(self.weight).as_primitive::<Int64Type>();
            rows += usize::from(rows < left && weights.value(next + rows - 1) < 0 && weights.value(next + rows) > 0);
            out.emit(batch.slice(next, rows));
            next += rows;
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::weight_field;
    use crate::time::{Tick, Watermark};
    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field, Schema};

    fn run(changes: &[&[(i64, &str, i64)]], budget: usize) -> Vec<(i64, String, i64)> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("v", DataType::Utf8, true),
            weight_field(),
        ]));
        let mut operator = ConsolidateOperator::new(vec![0], Arc::clone(&schema)).unwrap();
        let mut out = Output::with_budget(budget);
        let tick = OpenTick {
            tick: Tick(1),
            wall_time_ms: 0,
            watermarks: vec![Watermark::NONE],
        };
        for batch in changes {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(batch.iter().map(|row| row.0))),
                Arc::new(StringArray::from_iter_values(batch.iter().map(|row| row.1))),
                Arc::new(Int64Array::from_iter_values(batch.iter().map(|row| row.2))),
            ];
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
            let _ = operator.on_batch(0, &batch, &tick, &mut out).unwrap();
        }
        let close = TickClose {
            tick: Tick(1),
            wall_time_ms: 0,
            watermarks: vec![Watermark::NONE],
            is_last: false,
        };
        let mut found = Vec::new();
        loop {
            let progress = operator.on_close(&close, &mut out).unwrap();
            for batch in out.take() {
                for row in 0..batch.num_rows() {
                    found.push((
                        batch.column(0).as_primitive::<Int64Type>().value(row),
                        batch.column(1).as_string::<i32>().value(row).to_owned(),
                        batch.column(2).as_primitive::<Int64Type>().value(row),
                    ));
                }
            }
            if progress == Progress::Done {
                return found;
            }
        }
    }

    fn row(key: i64, value: &str, weight: i64) -> (i64, String, i64) {
        (key, value.to_owned(), weight)
    }

    #[test]
    fn removals_of_a_key_come_before_its_additions_whatever_order_they_came_in() {
        let found = run(&[&[(1, "new", 1), (2, "b", 1)], &[(1, "old", -1)]], 100);
        assert_eq!(found, [row(1, "old", -1), row(1, "new", 1), row(2, "b", 1)]);
    }

    #[test]
    fn what_came_and_went_within_a_tick_does_not_go_on() {
        let found = run(
            &[
                &[(1, "a", -1), (1, "b", 1), (2, "x", 1), (1, "b", -1)],
                &[(1, "c", 1), (2, "x", -1)],
            ],
            1,
        );
        assert_eq!(found, [row(1, "a", -1), row(1, "c", 1)]);
        assert_eq!(run(&[&[(1, "a", -1), (1, "b", 1), (1, "b", -1), (1, "a", 1)]], 9), []);
    }
}
