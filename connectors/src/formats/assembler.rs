//! Puts a batch together from where its columns come from: the record, the split, the record's metadata.

use super::{RecordFormat, RecordSchema};
use crate::error::ConnectorError;
use crate::table::{PartitionColumns, TableDefinition};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Where a projected column comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The decoder's column of this index.
    Record(usize),
    /// The same value for the whole split: a partition column, by its name.
    Partition(String),
    /// What the connector knows, by its key.
    Metadata(String),
}

/// How the batches of a projection are put together.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    schema: SchemaRef,
    origins: Vec<Origin>,
    record: RecordSchema,
}

impl Layout {
    /// Works out where the projected columns of a table come from.
    ///
    /// # Errors
    /// When the projection is beyond the table.
    pub(crate) fn new(
        table: &TableDefinition,
        projection: &[usize],
        partitions: PartitionColumns,
    ) -> Result<Self, ConnectorError> {
        let schema = table.project(projection)?;
        let record = table.record_schema(partitions);
        let (mut origins, mut wanted) = (Vec::new(), Vec::new());
        for field in schema.fields() {
            let name = field.name();
            origins.push(if let Some(key) = table.metadata_key(name) {
                Origin::Metadata(key.to_owned())
            } else if let Some((index, _)) = record.column_with_name(name) {
                // The same column may be wanted twice; it is decoded once.
                let at = wanted.iter().position(|&w| w == index).unwrap_or(wanted.len());
                if at == wanted.len() {
                    wanted.push(index);
                }
                Origin::Record(at)
            } else {
                Origin::Partition(name.clone())
            });
        }
        Ok(Self {
            schema,
            origins,
            record: RecordSchema::new(record, wanted),
        })
    }

    /// Returns the columns of the record.
    pub(crate) fn record(&self) -> &RecordSchema {
        &self.record
    }

    /// Returns the metadata keys that are wanted, each with its field.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&str, &FieldRef)> {
        self.origins
            .iter()
            .zip(self.schema.fields())
            .filter_map(|(origin, field)| match origin {
                Origin::Metadata(key) => Some((key.as_str(), field)),
                _ => None,
            })
    }

    /// Puts a batch together. `other` gives the columns that are not in the record, for `rows` rows.
    ///
    /// # Errors
    /// When a column does not have the type or the nulls that the schema asks for.
    pub(crate) fn assemble(
        &self,
        rows: usize,
        record: &[ArrayRef],
        mut other: impl FnMut(&Origin, &FieldRef) -> Result<ArrayRef, ArrowError>,
    ) -> Result<RecordBatch, ArrowError> {
        let column = |(origin, field): (&Origin, &FieldRef)| match origin {
            Origin::Record(index) => Ok(Arc::clone(&record[*index])),
            origin => other(origin, field),
        };
        let columns = self
            .origins
            .iter()
            .zip(self.schema.fields())
            .map(column)
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

/// Repeats the only value of an array.
///
/// # Errors
/// When the array is empty.
pub(crate) fn repeat(value: &ArrayRef, rows: usize) -> Result<ArrayRef, ArrowError> {
    take(value, &UInt32Array::from(vec![0; rows]), None)
}

/// Checks that every column can be read in a format.
///
/// # Errors
/// When one cannot.
pub(crate) fn check_readable(
    table: &TableDefinition,
    format: &RecordFormat,
    partitions: PartitionColumns,
) -> Result<(), ConnectorError> {
    let schema = table.record_schema(partitions);
    let all = (0..schema.fields().len()).collect();
    format.decoder(&RecordSchema::new(schema, all)).map(|_| ())
}
