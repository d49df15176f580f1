//! Rows written by their primary key, as JSON: the newest record of a key says what the row is.
//!
//! | change | object |
//! |---|---|
//! | a row is added, or replaces another of its key | the row |
//! | a row is taken out | its key, and `"__deleted":true` |
//!
//! What was there before an update is not written.

use super::RowEncoder;
use super::json::{JsonEncoder, JsonOptions};
use super::values::TextColumn;
use crate::changes::{ChangeKind, Changes, without_old_rows};
use crate::error::ConnectorError;
use crate::table::TableDefinition;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tidemill_engine::Error;
use tidemill_engine::graph::weight_of;

/// The field that says that there is no row of this key any more.
const DELETED: &str = "__deleted";

/// Encodes the row that a key has now, or that it has none.
pub(crate) struct UpsertEncoder {
    rows: JsonEncoder,
    keys: JsonEncoder,
    /// The primary key's columns.
    key: Vec<usize>,
}

impl UpsertEncoder {
    /// Makes the encoder of a table with a primary key.
    ///
    /// # Errors
    /// When a column's type cannot be written, or a column has the name of the mark.
    pub(crate) fn new(table: &TableDefinition, options: JsonOptions) -> Result<Self, ConnectorError> {
        let schema = &table.schema;
        if schema.column_with_name(DELETED).is_some() {
            let message = format!("the column {DELETED} has the name of the field that marks a row that is taken out");
            return Err(ConnectorError::new(message).with_hint("rename the column"));
        }
        let columns = weight_of(schema).unwrap_or(schema.fields().len());
        let key: Vec<usize> = table
            .primary_key
            .iter()
            .filter_map(|name| schema.index_of(name).ok())
            .collect();
        let of = |columns: &[usize]| {
            schema
                .project(columns)
                .map_err(|error| ConnectorError::new(error.to_string()))
        };
        let rows: Schema = of(&(0..columns).collect::<Vec<_>>())?;
        Ok(Self {
            rows: JsonEncoder::new(&rows, options)?,
            keys: JsonEncoder::new(&of(&key)?, options)?,
            key,
        })
    }
}

impl RowEncoder for UpsertEncoder {
    fn records(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        without_old_rows(batch, &self.key)
    }

    fn encode(
        &self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
        row_end: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<(), Error> {
        let changes = Changes::of(batch, &self.key)?;
        let columns = batch.columns()[..changes.columns()].iter().map(TextColumn::new);
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let keys = self.key.iter().map(|&index| TextColumn::new(batch.column(index)));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            if matches!(changes.kind(row), ChangeKind::Insert | ChangeKind::UpdateAfter) {
                self.rows.write_row(&columns, row, out);
            } else {
                self.keys.write_row(&keys, row, out);
                // A primary key has a column, and none of them is null.
                out.pop();
                out.extend_from_slice(format!(",\"{DELETED}\":true}}").as_bytes());
            }
            row_end(out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn newest_record_of_a_key_says_what_its_row_is() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
            ("k", Arc::new(StringArray::from(vec!["a", "a", "b", "c"]))),
            ("__weight", Arc::new(Int64Array::from(vec![-1, 1, -1, 1]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let table = TableDefinition {
            name: "t".into(),
            schema: batch.schema(),
            metadata_columns: Vec::new(),
            options: BTreeMap::new(),
            partition_keys: Vec::new(),
            primary_key: vec!["k".into()],
        };
        let encoder = UpsertEncoder::new(&table, JsonOptions::default()).unwrap();
        let mut out = Vec::new();
        let records = encoder.records(&batch).unwrap();
        encoder.encode(&records, &mut out, &mut |out| out.push(b'\n')).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"n\":2,\"k\":\"a\"}\n{\"k\":\"b\",\"__deleted\":true}\n{\"n\":4,\"k\":\"c\"}\n"
        );
    }
}
