//! Writes rows as lines of fields.

use super::{CsvOptions, byte, check_flat};
use crate::error::ConnectorError;
use crate::formats::RowEncoder;
use crate::formats::time_text::TimestampStandard;
use crate::formats::values::{Shape, TextColumn, check_writable};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tidemill_engine::Error;

/// Encodes a row as one line of fields.
pub(crate) struct CsvEncoder {
    options: CsvOptions,
}

impl CsvEncoder {
    /// Makes the encoder of batches of a schema.
    ///
    /// # Errors
    /// When a column's type cannot be written.
    pub(crate) fn new(schema: &Schema, options: CsvOptions) -> Result<Self, ConnectorError> {
        check_flat(schema)?;
        for field in schema.fields() {
            check_writable(field.name(), field.data_type())?;
        }
        Ok(Self { options })
    }

    fn write_text(&self, text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        let (quote, escape) = (self.options.quote.map(byte), self.options.escape.map(byte));
        let special = |b: u8| {
            b == byte(self.options.delimiter) || b == b'\n' || b == b'\r' || Some(b) == quote || Some(b) == escape
        };
        // An empty text is quoted where it would read as NULL, and a `#` where it would begin a comment.
        let looks_null = self.options.null_literal.as_deref() == Some(text);
        if !looks_null && !text.starts_with('#') && !text.bytes().any(special) {
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        let Some(quote) = quote else {
            return Err(Error::operator(format!(
                "the text {:?} cannot be written as CSV without a quote character",
                crate::formats::time_text::shorten(text)
            )));
        };
        out.push(quote);
        for b in text.bytes() {
            if b == quote {
                out.push(quote);
            } else if Some(b) == escape {
                out.push(b);
            }
            out.push(b);
        }
        out.push(quote);
        Ok(())
    }
}

impl RowEncoder for CsvEncoder {
    fn encode(
        &self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
        row_end: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<(), Error> {
        let columns = batch
            .columns()
            .iter()
            .map(TextColumn::new)
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    out.push(byte(self.options.delimiter));
                }
                if column.is_null(row) {
                    out.extend_from_slice(self.options.null_literal.as_deref().unwrap_or("").as_bytes());
                } else if column.shape() == Shape::Text {
                    self.write_text(column.text(row), out)?;
                } else {
                    column.write(row, TimestampStandard::Sql, out);
                }
            }
            row_end(out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::csv::CsvDecoder;
    use crate::formats::{RecordDecoder, RecordSchema};
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::DataType;
    use arrow::datatypes::Field;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn batch(texts: Vec<String>) -> RecordBatch {
        let numbers: Vec<Option<i64>> = (0..texts.len()).map(|i| (i % 3 > 0).then_some(i as i64)).collect();
        let schema = Schema::new(vec![
            Field::new("s", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]);
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(StringArray::from(texts)), Arc::new(Int64Array::from(numbers))];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(texts in proptest::collection::vec(any::<String>(), 1..10), escape: bool) {
            let mut texts = texts;
            texts.push("NULL".to_owned());
            let options = CsvOptions {
                null_literal: Some("NULL".to_owned()),
                escape: escape.then_some('\\'),
                ..CsvOptions::default()
            };
            let batch = batch(texts);
            let encoder = CsvEncoder::new(batch.schema_ref(), options.clone()).unwrap();
            let mut decoder = CsvDecoder::new(&RecordSchema::new(batch.schema(), vec![0, 1]), options).unwrap();
            let (mut out, mut rows) = (Vec::new(), Vec::new());
            encoder.encode(&batch, &mut out, &mut |out| rows.push(std::mem::take(out))).unwrap();
            for row in rows {
                decoder.decode(&row).unwrap();
            }
            let read = RecordBatch::try_new(batch.schema(), decoder.finish().unwrap()).unwrap();
            prop_assert_eq!(read, batch);
        }
    }
}
