//! The format `debezium-json`: what happened to a row, as one JSON object. It is written, and not read yet.
//!
//! | change | object |
//! |---|---|
//! | a row is added, or is there after an update | `{"before":null,"after":{...},"op":"c"}` |
//! | a row is taken out, or was there before an update | `{"before":{...},"after":null,"op":"d"}` |
//!
//! This is what Flink writes: an update is a `d` and, behind it, a `c`.

use super::RowEncoder;
use super::json::{JsonEncoder, JsonOptions};
use super::values::TextColumn;
use crate::changes::{ChangeKind, Changes};
use crate::error::ConnectorError;
use crate::options::{Flag, Options};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tidemill_engine::Error;
use tidemill_engine::graph::weight_of;

/// The format's name.
pub(crate) const NAME: &str = "debezium-json";

/// Reads the options `debezium-json.*`.
///
/// # Errors
/// When one is not valid or has no effect here.
pub(crate) fn parse(options: &Options<'_>) -> Result<JsonOptions, ConnectorError> {
    for option in ["debezium-json.ignore-parse-errors", "debezium-json.schema-include"] {
        options.refuse(
            option,
            "is for reading, and this format is only written yet; leave it out",
        )?;
    }
    options.refuse_prefix(
        "debezium-json.map-null-key",
        "a map has no null keys here; leave the option out",
    )?;
    if options.boolean("debezium-json.encode.decimal-as-plain-number", Flag::On)? == Flag::Off {
        return Err(ConnectorError::option(
            "debezium-json.encode.decimal-as-plain-number",
            "decimals are always written as plain numbers here; leave the option out",
        ));
    }
    Ok(JsonOptions {
        timestamps: super::json::timestamps(options, "debezium-json.timestamp-format.standard")?,
        ignore_null_fields: options.boolean("debezium-json.encode.ignore-null-fields", Flag::Off)?,
        ..JsonOptions::default()
    })
}

/// Refuses to read.
pub(crate) fn only_written() -> ConnectorError {
    ConnectorError::option("format", format!("'{NAME}' can only be written yet, not read"))
        .with_hint("read the records with 'format' = 'json' and columns before, after and op")
}

/// Encodes a change as one JSON object.
pub(crate) struct DebeziumEncoder {
    rows: JsonEncoder,
}

impl DebeziumEncoder {
    /// Makes the encoder of batches of a schema, with or without the weight.
    ///
    /// # Errors
    /// When a column's type cannot be written.
    pub(crate) fn new(schema: &Schema, options: JsonOptions) -> Result<Self, ConnectorError> {
        let columns = weight_of(schema).unwrap_or(schema.fields().len());
        let values = Schema::new(schema.fields()[..columns].to_vec());
        Ok(Self {
            rows: JsonEncoder::new(&values, options)?,
        })
    }
}

impl RowEncoder for DebeziumEncoder {
    fn encode(
        &self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
        row_end: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<(), Error> {
        let changes = Changes::of(batch, &[])?;
        let columns = batch.columns()[..changes.columns()].iter().map(TextColumn::new);
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            match changes.kind(row) {
                ChangeKind::Insert | ChangeKind::UpdateAfter => {
                    out.extend_from_slice(b"{\"before\":null,\"after\":");
                    self.rows.write_row(&columns, row, out);
                    out.extend_from_slice(b",\"op\":\"c\"}");
                }
                ChangeKind::Delete | ChangeKind::UpdateBefore => {
                    out.extend_from_slice(b"{\"before\":");
                    self.rows.write_row(&columns, row, out);
                    out.extend_from_slice(b",\"after\":null,\"op\":\"d\"}");
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
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn update_is_a_removal_and_an_addition() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("k", Arc::new(StringArray::from(vec!["a", "a", "b"]))),
            ("n", Arc::new(Int64Array::from(vec![Some(1), Some(2), None]))),
            ("__weight", Arc::new(Int64Array::from(vec![-1, 1, 1]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let lines = |batch: &RecordBatch| {
            let mut out = Vec::new();
            let encoder = DebeziumEncoder::new(batch.schema_ref(), JsonOptions::default()).unwrap();
            encoder.encode(batch, &mut out, &mut |out| out.push(b'\n')).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            lines(&batch),
            concat!(
                r#"{"before":{"k":"a","n":1},"after":null,"op":"d"}"#,
                "\n",
                r#"{"before":null,"after":{"k":"a","n":2},"op":"c"}"#,
                "\n",
                r#"{"before":null,"after":{"k":"b","n":null},"op":"c"}"#,
                "\n"
            )
        );
        let added = batch.project(&[0, 1]).unwrap();
        assert_eq!(lines(&added).matches(r#""op":"c""#).count(), 3);
    }
}
