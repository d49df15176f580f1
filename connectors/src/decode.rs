//! Decodes records outside of any source: for tools and benches.

use crate::error::ConnectorError;
use crate::formats::assembler::Layout;
use crate::formats::{RECORD_FORMATS, RecordFormat};
use crate::options::Options;
use crate::table::{PartitionColumns, TableDefinition};
use arrow::array::RecordBatch;

/// Decodes records with a table's `format` into one batch of the projected columns. Other options are not looked at.
///
/// # Errors
/// When the format is not one of records, the projection names other columns than a record's, or a record cannot be
/// decoded: the error names its number, from 0.
///
/// # Examples
/// ```
/// use std::{collections::BTreeMap, sync::Arc};
/// use arrow::datatypes::{DataType, Field, Schema};
/// use tidemill_connectors::{TableDefinition, decode_records};
///
/// let table = TableDefinition {
///     name: "clicks".into(),
///     schema: Arc::new(Schema::new(vec![
///         Field::new("page", DataType::Utf8, true),
///         Field::new("cents", DataType::Int64, true),
///     ])),
///     metadata_columns: Vec::new(),
///     options: BTreeMap::from([("format".into(), "json".into())]),
///     partition_keys: Vec::new(),
///     primary_key: Vec::new(),
/// };
/// let records: [&[u8]; 2] = [br#"{"page":"/","cents":5}"#, br#"{"cents":7,"more":[1,2]}"#];
/// let batch = decode_records(&table, &[1], records)?;
/// assert_eq!((batch.num_rows(), batch.num_columns()), (2, 1));
/// # Ok::<_, tidemill_connectors::ConnectorError>(())
/// ```
pub fn decode_records<'a>(
    table: &TableDefinition,
    projection: &[usize],
    records: impl IntoIterator<Item = &'a [u8]>,
) -> Result<RecordBatch, ConnectorError> {
    let options = Options::new(&table.name, &table.options);
    let Some(format) = RecordFormat::parse(&options, &RECORD_FORMATS)? else {
        return Err(ConnectorError::option(
            "format",
            "has no records that could be decoded alone",
        ));
    };
    let layout = Layout::new(table, projection, PartitionColumns::InRecord)?;
    if let Some((key, _)) = layout.metadata().next() {
        return Err(ConnectorError::new(format!("the metadata '{key}' is not in a record")));
    }
    let mut decoder = format.decoder(layout.record())?;
    for (number, record) in records.into_iter().enumerate() {
        decoder
            .decode(record)
            .map_err(|error| ConnectorError::new(format!("record {number}: {error}")))?;
    }
    let error = |error: arrow::error::ArrowError| ConnectorError::new(error.to_string());
    let (rows, columns) = (decoder.rows(), decoder.finish().map_err(error)?);
    let no_other = |_: &_, _: &_| {
        Err(arrow::error::ArrowError::SchemaError(
            "a column is not in the record".to_owned(),
        ))
    };
    layout.assemble(rows, &columns, no_other).map_err(error)
}
