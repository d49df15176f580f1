//! Writes rows as JSON objects, the fields in the order of the columns.

use super::JsonOptions;
use crate::error::ConnectorError;
use crate::formats::RowEncoder;
use crate::formats::values::{Parts, Shape, TextColumn, check_writable};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tidemill_engine::Error;

/// Encodes a row as one JSON object.
pub(crate) struct JsonEncoder {
    options: JsonOptions,
    /// `"name":` of each column, escaped.
    keys: Vec<Vec<u8>>,
}

impl JsonEncoder {
    /// Makes the encoder of batches of a schema.
    ///
    /// # Errors
    /// When a column's type cannot be written.
    pub(crate) fn new(schema: &Schema, options: JsonOptions) -> Result<Self, ConnectorError> {
        let mut keys = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            check_writable(field.name(), field.data_type())?;
            let mut key = Vec::new();
            write_string(&mut key, field.name());
            key.push(b':');
            keys.push(key);
        }
        Ok(Self { options, keys })
    }

    /// Writes a row as an object.
    pub(crate) fn write_row(&self, columns: &[TextColumn<'_>], row: usize, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut first = true;
        for (key, column) in self.keys.iter().zip(columns) {
            if self.options.ignore_null_fields.is_on() && column.is_null(row) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(key);
            self.write_value(column, row, out);
        }
        out.push(b'}');
    }

    fn write_value(&self, column: &TextColumn<'_>, row: usize, out: &mut Vec<u8>) {
        if column.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match column.shape() {
            Shape::Text => write_string(out, column.text(row)),
            Shape::Float if !column.is_not_finite(row) => column.write(row, self.options.timestamps, out),
            Shape::PlainText | Shape::Float => {
                out.push(b'"');
                column.write(row, self.options.timestamps, out);
                out.push(b'"');
            }
            Shape::Bare => column.write(row, self.options.timestamps, out),
            Shape::Container => self.write_container(column, row, out),
        }
    }

    fn write_container(&self, column: &TextColumn<'_>, row: usize, out: &mut Vec<u8>) {
        match column.parts(row) {
            None => out.extend_from_slice(b"null"),
            Some(Parts::List(items, range)) => {
                out.push(b'[');
                for (i, row) in range.enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    self.write_value(items, row, out);
                }
                out.push(b']');
            }
            Some(Parts::Struct(fields)) => {
                out.push(b'{');
                let mut first = true;
                for (name, field) in fields {
                    if self.options.ignore_null_fields.is_on() && field.is_null(row) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    write_string(out, name);
                    out.push(b':');
                    self.write_value(field, row, out);
                }
                out.push(b'}');
            }
            Some(Parts::Map(keys, values, range)) => {
                out.push(b'{');
                for (i, row) in range.enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    let mut key = Vec::new();
                    keys.write(row, self.options.timestamps, &mut key);
                    write_string(out, &String::from_utf8_lossy(&key));
                    out.push(b':');
                    self.write_value(values, row, out);
                }
                out.push(b'}');
            }
        }
    }
}

impl RowEncoder for JsonEncoder {
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
            self.write_row(&columns, row, out);
            row_end(out);
        }
        Ok(())
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain..i]);
        plain = i + 1;
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::json::JsonDecoder;
    use crate::formats::{RecordDecoder, RecordSchema};
    use crate::options::Flag;
    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, TimeUnit};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn batch(ints: Vec<Option<i64>>, floats: Vec<Option<f64>>, texts: Vec<Option<String>>) -> RecordBatch {
        let times: Vec<Option<i64>> = ints.iter().map(|i| i.map(|i| i % 253_402_300_800_000)).collect();
        let times: Vec<Option<i64>> = times.into_iter().map(|t| t.map(i64::abs)).collect();
        let schema = Schema::new(vec![
            Field::new("i", DataType::Int64, true),
            Field::new("f", DataType::Float64, true),
            Field::new("s \"q\"", DataType::Utf8, true),
            Field::new(
                "t",
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                true,
            ),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(Int64Array::from(ints)),
                Arc::new(Float64Array::from(floats)),
                Arc::new(StringArray::from(texts)),
                Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC")),
            ],
        )
        .unwrap()
    }

    fn lines(batch: &RecordBatch, options: JsonOptions) -> String {
        let mut out = Vec::new();
        let encoder = JsonEncoder::new(batch.schema_ref(), options).unwrap();
        encoder.encode(batch, &mut out, &mut |out| out.push(b'\n')).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_objects_with_nulls_written_or_left_out() {
        let batch = batch(
            vec![Some(5), None],
            vec![Some(1.0), Some(f64::NAN)],
            vec![Some("a\"\n\u{1}".into()), None],
        );
        assert_eq!(
            lines(&batch, JsonOptions::default()),
            concat!(
                r#"{"i":5,"f":1.0,"s \"q\"":"a\"\n\u0001","t":"1970-01-01 00:00:00.005Z"}"#,
                "\n",
                r#"{"i":null,"f":"NaN","s \"q\"":null,"t":null}"#,
                "\n"
            )
        );
        let short = lines(
            &batch,
            JsonOptions {
                ignore_null_fields: Flag::On,
                ..JsonOptions::default()
            },
        );
        assert!(short.ends_with("{\"f\":\"NaN\"}\n"), "{short}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            rows in proptest::collection::vec((any::<Option<i64>>(), any::<Option<f64>>(), any::<Option<String>>()), 1..20)
        ) {
            let (mut ints, mut floats, mut texts) = (Vec::new(), Vec::new(), Vec::new());
            for (i, f, s) in rows {
                ints.push(i);
                floats.push(f.map(|f| if f.is_nan() { f64::INFINITY } else { f }));
                texts.push(s);
            }
            let batch = batch(ints, floats, texts);
            let schema = RecordSchema::new(batch.schema(), vec![0, 1, 2, 3]);
            let mut decoder = JsonDecoder::new(&schema, JsonOptions::default()).unwrap();
            for line in lines(&batch, JsonOptions::default()).split_terminator('\n') {
                decoder.decode(line.as_bytes()).unwrap();
            }
            let read = RecordBatch::try_new(batch.schema(), decoder.finish().unwrap()).unwrap();
            prop_assert_eq!(read, batch);
        }
    }
}
