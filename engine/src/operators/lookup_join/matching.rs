//! Joins a batch with the rows of a table, column by column.

use super::index::{Matches, TableIndex, is_all, valid};
use crate::error::{Error, Result};
use crate::expr::{EvalContext, Expr};
use crate::key::{EncodedKeys, encode_keys, key_hash};
use crate::lookup::{LookupJoin, LookupJoinKind};
use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use hashbrown::HashTable;
use std::sync::Arc;

/// How batches are joined.
pub(super) struct Matching {
    /// The stream's key columns.
    keys: Vec<usize>,
    kind: LookupJoinKind,
    residual: Option<Expr>,
    /// The stream's columns and then the table's, all of which may be null.
    both: SchemaRef,
    table: SchemaRef,
    outputs: Vec<usize>,
    schema: SchemaRef,
    input_columns: usize,
}

/// The keys of a batch, each once, without those that hold a null.
pub(super) struct DistinctKeys {
    columns: Vec<ArrayRef>,
    encoded: EncodedKeys,
    /// The hash of each key, and the first row that has it.
    found: Vec<(u64, u32)>,
}

impl Matching {
    /// Prepares a join of rows of `input` that emits rows of `schema`.
    pub(super) fn new(join: LookupJoin, input: &Schema, schema: SchemaRef) -> Self {
        let both = input.fields().iter().chain(join.schema.fields());
        let both: Vec<Field> = both.map(|field| field.as_ref().clone().with_nullable(true)).collect();
        Self {
            keys: join.keys.iter().map(|(of_stream, _)| *of_stream).collect(),
            kind: join.kind,
            residual: join.residual,
            both: Arc::new(Schema::new(both)),
            table: join.schema,
            outputs: join.outputs.iter().map(|(_, place)| *place).collect(),
            schema,
            input_columns: input.fields().len(),
        }
    }

    /// Returns the columns of the table's rows.
    pub(super) fn table_schema(&self) -> &SchemaRef {
        &self.table
    }

    /// Joins a batch with the rows of the table that are in `index`.
    ///
    /// # Errors
    /// When the condition cannot be evaluated, or a value of the table does not fit its column.
    pub(super) fn join(&self, batch: &RecordBatch, index: &TableIndex, wall_time_ms: i64) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut found = index.find(&self.key_columns(batch), rows)?;
        if let Some(residual) = &self.residual
            && !found.input.is_empty()
        {
            let (input, table) = (
                UInt32Array::from(found.input.clone()),
                UInt32Array::from(found.table.clone()),
            );
            let left = batch.columns().iter().map(|column| take(column, &input, None));
            let right = index.rows().columns().iter().map(|column| take(column, &table, None));
            let pairs = RecordBatch::try_new(Arc::clone(&self.both), left.chain(right).collect::<Result<_, _>>()?)?;
            let mask = residual.evaluate(&pairs, &EvalContext { wall_time_ms })?;
            let mask = mask
                .as_boolean_opt()
                .ok_or_else(|| Error::Internal("a condition is no boolean".into()))?;
            found.keep(mask);
        }
        let (input, table) = match self.kind {
            LookupJoinKind::Inner => (found.input, UInt32Array::from(found.table)),
            LookupJoinKind::Left => with_unmatched(found, rows),
        };
        let all = is_all(&input, rows);
        let input = UInt32Array::from(input);
        let columns = self
            .outputs
            .iter()
            .map(|place| match place.checked_sub(self.input_columns) {
                None if all => Ok(Arc::clone(batch.column(*place))),
                None => take(batch.column(*place), &input, None),
                Some(place) => take(index.rows().column(place), &table, None),
            });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(table.len()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns,
            &options,
        )?)
    }

    /// Returns the keys of a batch, each once.
    ///
    /// # Errors
    /// When a column cannot be a key.
    pub(super) fn distinct(&self, batch: &RecordBatch) -> Result<DistinctKeys> {
        let columns = self.key_columns(batch);
        let mut encoded = EncodedKeys::default();
        encode_keys(&columns, batch.num_rows(), &mut encoded)?;
        let valid = valid(&columns);
        let mut table: HashTable<(u64, u32)> = HashTable::new();
        let mut found = Vec::new();
        for row in 0..batch.num_rows() {
            if valid.as_ref().is_some_and(|valid| valid.is_null(row)) {
                continue;
            }
            let key = encoded.key(row);
            let hash = key_hash(key);
            let same = |(known, first): &(u64, u32)| *known == hash && encoded.key(*first as usize) == key;
            if table.find(hash, same).is_none() {
                table.insert_unique(hash, (hash, row as u32), |(hash, _)| *hash);
                found.push((hash, row as u32));
            }
        }
        Ok(DistinctKeys {
            columns,
            encoded,
            found,
        })
    }

    fn key_columns(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.keys.iter().map(|key| Arc::clone(batch.column(*key))).collect()
    }
}

impl DistinctKeys {
    /// Returns how many keys there are.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Says whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns a key's hash and bytes.
    pub(super) fn key(&self, number: usize) -> (u64, &[u8]) {
        let (hash, row) = self.found[number];
        (hash, self.encoded.key(row as usize))
    }

    /// Returns some of the keys as columns of a table.
    ///
    /// # Errors
    /// When the columns are of other types.
    pub(super) fn batch(&self, numbers: &[usize], schema: &SchemaRef) -> Result<RecordBatch> {
        let rows = UInt32Array::from_iter_values(numbers.iter().map(|number| self.found[*number].1));
        let columns = self.columns.iter().map(|column| take(column, &rows, None));
        Ok(RecordBatch::try_new(
            Arc::clone(schema),
            columns.collect::<Result<_, _>>()?,
        )?)
    }
}

/// Puts the rows without a match between the others, each where it stands in the batch.
fn with_unmatched(found: Matches, rows: usize) -> (Vec<u32>, UInt32Array) {
    if is_all(&found.input, rows) {
        return (found.input, UInt32Array::from(found.table));
    }
    let mut input = Vec::with_capacity(rows.max(found.input.len()));
    let mut table = Vec::with_capacity(input.capacity());
    let mut matched = Vec::with_capacity(input.capacity());
    let mut pair = 0;
    for row in 0..rows as u32 {
        let first = pair;
        while found.input.get(pair) == Some(&row) {
            input.push(row);
            table.push(found.table[pair]);
            matched.push(true);
            pair += 1;
        }
        if pair == first {
            input.push(row);
            table.push(0);
            matched.push(false);
        }
    }
    (input, UInt32Array::new(table.into(), Some(NullBuffer::from(matched))))
}
