//! The format `raw`: the record's bytes are the value of the table's only column.

use super::columns::{ColumnBuilder, TextOptions};
use super::record_error::RecordError;
use super::{RecordDecoder, RecordSchema, RowEncoder};
use crate::error::ConnectorError;
use crate::options::Options;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use tidemill_engine::Error;

/// The format's options.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawOptions;

impl RawOptions {
    /// Reads the options `raw.*`.
    ///
    /// # Errors
    /// When one is not valid.
    pub(crate) fn parse(options: &Options<'_>) -> Result<Self, ConnectorError> {
        match options.text("raw.charset") {
            Some(charset) if !charset.eq_ignore_ascii_case("UTF-8") => {
                return Err(ConnectorError::option("raw.charset", "only UTF-8 is supported"));
            }
            _ => {}
        }
        options.refuse(
            "raw.endianness",
            "raw columns are text or bytes here, which have no endianness",
        )?;
        Ok(Self)
    }
}

/// Checks that a record has one column, and that it is text or bytes.
fn check(schema: &Schema) -> Result<(), ConnectorError> {
    match schema.fields().as_ref() {
        [field] => match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary => {
                Ok(())
            }
            other => Err(ConnectorError::new(format!(
                "column {} has the type {other}; the format raw takes STRING or BYTES",
                field.name()
            ))),
        },
        fields => Err(ConnectorError::new(format!(
            "the format raw takes tables of one column, this has {}",
            fields.len()
        ))),
    }
}

/// Takes records as they are.
pub(crate) struct RawDecoder {
    column: Option<ColumnBuilder>,
    rows: usize,
}

impl RawDecoder {
    /// Makes a decoder.
    ///
    /// # Errors
    /// When the table has other columns than the one that raw needs.
    pub(crate) fn new(schema: &RecordSchema, _options: RawOptions) -> Result<Self, ConnectorError> {
        check(schema.all())?;
        let column = schema.projected().fields().first();
        let column = column
            .map(|field| ColumnBuilder::new(field, TextOptions::default()))
            .transpose()?;
        Ok(Self { column, rows: 0 })
    }
}

impl RecordDecoder for RawDecoder {
    fn decode(&mut self, record: &[u8]) -> Result<(), RecordError> {
        if let Some(column) = &mut self.column {
            column
                .append_bytes(record)
                .map_err(|error| error.within(column.name()))?;
        }
        self.rows += 1;
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.rows = 0;
        self.column.iter_mut().map(ColumnBuilder::finish).collect()
    }
}

/// Writes values as they are.
pub(crate) struct RawEncoder;

impl RawEncoder {
    /// Makes an encoder.
    ///
    /// # Errors
    /// When the table has other columns than the one that raw needs.
    pub(crate) fn new(schema: &Schema, _options: RawOptions) -> Result<Self, ConnectorError> {
        check(schema)?;
        Ok(Self)
    }
}

impl RowEncoder for RawEncoder {
    fn encode(
        &self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
        row_end: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<(), Error> {
        let column = batch.column(0);
        for row in 0..batch.num_rows() {
            // A NULL is an empty record, as in Flink.
            if column.is_valid(row) {
                out.extend_from_slice(match column.data_type() {
                    DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes(),
                    DataType::LargeUtf8 => column.as_string::<i64>().value(row).as_bytes(),
                    DataType::Utf8View => column.as_string_view().value(row).as_bytes(),
                    DataType::LargeBinary => column.as_binary::<i64>().value(row),
                    _ => column.as_binary::<i32>().value(row),
                });
            }
            row_end(out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;
    use std::sync::Arc;

    #[test]
    fn text_is_checked_and_bytes_are_not() {
        for (data_type, accepted) in [(DataType::Utf8, false), (DataType::Binary, true)] {
            let schema = Arc::new(Schema::new(vec![Field::new("v", data_type, true)]));
            let mut decoder = RawDecoder::new(&RecordSchema::new(schema, vec![0]), RawOptions).unwrap();
            assert_eq!(decoder.decode(b"\xff").is_ok(), accepted);
            decoder.decode(b"ok").unwrap();
            assert_eq!(decoder.finish().unwrap()[0].len(), 1 + usize::from(accepted));
        }
    }

    #[test]
    fn other_columns_are_refused() {
        let schema = Schema::new(vec![Field::new("v", DataType::Int64, true)]);
        assert!(RawEncoder::new(&schema, RawOptions).is_err());
        let schema = Schema::new(vec![
            Field::new("v", DataType::Utf8, true),
            Field::new("w", DataType::Utf8, true),
        ]);
        assert!(RawEncoder::new(&schema, RawOptions).is_err());
    }
}
