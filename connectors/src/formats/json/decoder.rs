//! Fills columns from JSON objects.
//!
//! Producers write the fields of a record in the same order each time. The decoder remembers the order of the record
//! before: the field expected next is compared with the bytes of the key, and only when they differ is it looked up.

use super::scan::{RawString, Scanner, Token, too_deep, unescape};
use super::{DEPTH_MAX, JsonOptions};
use crate::error::ConnectorError;
use crate::formats::columns::{ColumnBuilder, Container, TextOptions, builders, roll_back};
use crate::formats::record_error::RecordError;
use crate::formats::{RecordDecoder, RecordSchema};
use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use std::collections::HashMap;

/// Keys remembered of a record's shape; what comes after is looked up.
const SHAPE_KEYS_MAX: usize = 512;

/// Decodes records that are one JSON object each.
pub(crate) struct JsonDecoder {
    columns: Vec<ColumnBuilder>,
    by_name: HashMap<String, usize>,
    /// The keys of the record before, with quotation marks and colon as they stand in the text, and the columns they
    /// fill.
    shape: Vec<(Box<[u8]>, Option<usize>)>,
    rows: usize,
    fail_on_missing_field: bool,
    scratch: String,
}

impl JsonDecoder {
    /// Makes a decoder of the projected columns.
    ///
    /// # Errors
    /// When a column's type cannot be read from JSON.
    pub(crate) fn new(schema: &RecordSchema, options: JsonOptions) -> Result<Self, ConnectorError> {
        let columns = builders(
            schema.projected().fields(),
            TextOptions {
                timestamps: options.timestamps,
            },
        )?;
        let by_name = columns
            .iter()
            .enumerate()
            .map(|(i, column)| (column.name().to_owned(), i))
            .collect();
        Ok(Self {
            columns,
            by_name,
            shape: Vec::new(),
            rows: 0,
            fail_on_missing_field: options.fail_on_missing_field.is_on(),
            scratch: String::new(),
        })
    }

    fn decode_object(&mut self, text: &str) -> Result<(), RecordError> {
        let mut scanner = Scanner::new(text);
        scanner.skip_whitespace();
        if !scanner.take(b'{') {
            return Err(scanner.expected("an object, '{'"));
        }
        scanner.skip_whitespace();
        if !scanner.take(b'}') {
            let mut index = 0;
            loop {
                let column = match self.shape.get(index) {
                    Some((expected, column)) if scanner.take_all(expected) => *column,
                    _ => {
                        let start = scanner.position();
                        let key = scanner.key()?;
                        let text = scanner.since(start);
                        self.look_up(index, text, key)?
                    }
                };
                index += 1;
                match column {
                    None => scanner.skip_value(1)?,
                    Some(column) => {
                        let column = &mut self.columns[column];
                        // Of a key that comes twice the last one counts.
                        column.truncate(self.rows);
                        if let Err(error) = append_value(&mut scanner, column, 1, &mut self.scratch) {
                            return Err(error.within(column.name()));
                        }
                    }
                }
                scanner.skip_whitespace();
                if scanner.take(b',') {
                    scanner.skip_whitespace();
                } else if scanner.take(b'}') {
                    break;
                } else {
                    return Err(scanner.expected("',' or '}'"));
                }
            }
        }
        scanner.end()?;
        for column in &mut self.columns {
            if column.len() == self.rows {
                if self.fail_on_missing_field {
                    return Err(RecordError::new("is missing").within(column.name()));
                }
                column.append_null().map_err(|error| error.within(column.name()))?;
            }
        }
        Ok(())
    }

    /// Finds the column of a key that did not come where it was expected; `text` is the key with all around it.
    #[cold]
    fn look_up(&mut self, index: usize, text: &str, key: RawString<'_>) -> Result<Option<usize>, RecordError> {
        let column = if key.escaped {
            unescape(key.raw, &mut self.scratch)?;
            self.by_name.get(self.scratch.as_str()).copied()
        } else {
            self.by_name.get(key.raw).copied()
        };
        if index < SHAPE_KEYS_MAX {
            self.shape.truncate(index);
            if self.shape.len() == index {
                self.shape.push((text.as_bytes().into(), column));
            }
        }
        Ok(column)
    }
}

impl RecordDecoder for JsonDecoder {
    fn decode(&mut self, record: &[u8]) -> Result<(), RecordError> {
        let decoded = match std::str::from_utf8(record) {
            Ok(text) => self.decode_object(text),
            Err(error) => Err(RecordError::new(format!("not UTF-8 at byte {}", error.valid_up_to()))),
        };
        match decoded {
            Ok(()) => self.rows += 1,
            Err(_) => roll_back(&mut self.columns, self.rows),
        }
        decoded
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.rows = 0;
        self.columns.iter_mut().map(ColumnBuilder::finish).collect()
    }
}

/// Appends the next value to a column.
#[inline]
fn append_value(
    scanner: &mut Scanner<'_>,
    column: &mut ColumnBuilder,
    depth: usize,
    scratch: &mut String,
) -> Result<(), RecordError> {
    match scanner.peek()? {
        Token::String => {
            let string = scanner.string()?;
            if string.escaped {
                unescape(string.raw, scratch)?;
                column.append_text(scratch)
            } else {
                column.append_text(string.raw)
            }
        }
        Token::Number => column.append_number(scanner.number()?),
        Token::True => scanner.word("true").and_then(|()| column.append_bool(true)),
        Token::False => scanner.word("false").and_then(|()| column.append_bool(false)),
        Token::Null => scanner.word("null").and_then(|()| column.append_null()),
        token @ (Token::Object | Token::Array) => append_container(scanner, column, token, depth, scratch),
    }
}

/// Appends an object or an array to a column. The recursion is as deep as the column's type, never the record.
fn append_container(
    scanner: &mut Scanner<'_>,
    column: &mut ColumnBuilder,
    token: Token,
    depth: usize,
    scratch: &mut String,
) -> Result<(), RecordError> {
    if depth >= DEPTH_MAX {
        return Err(too_deep());
    }
    match (column.container(), token) {
        (Container::Text, _) => {
            let start = scanner.position();
            scanner.skip_value(depth)?;
            return column.append_text(scanner.since(start));
        }
        (Container::List(items), Token::Array) => {
            scanner.take(b'[');
            scanner.skip_whitespace();
            if !scanner.take(b']') {
                loop {
                    append_value(scanner, items, depth + 1, scratch)?;
                    scanner.skip_whitespace();
                    if scanner.take(b']') {
                        break;
                    }
                    scanner.expect(b',')?;
                }
            }
        }
        (Container::Struct(children), Token::Object) => {
            let rows = children.first().map_or(0, ColumnBuilder::len);
            each_entry(scanner, |scanner, key| {
                match children.iter_mut().find(|child| child.name() == key) {
                    None => scanner.skip_value(depth + 1),
                    Some(child) => {
                        child.truncate(rows);
                        append_value(scanner, child, depth + 1, &mut String::new()).map_err(|e| e.within(child.name()))
                    }
                }
            })?;
            for child in children {
                if child.len() == rows {
                    child.append_null().map_err(|error| error.within(child.name()))?;
                }
            }
        }
        (Container::Map(keys, values), Token::Object) => {
            each_entry(scanner, |scanner, key| {
                keys.append_text(key)?;
                append_value(scanner, values, depth + 1, scratch).map_err(|error| error.within(key))
            })?;
        }
        (_, Token::Object) => return Err(column.unexpected("an object")),
        _ => return Err(column.unexpected("an array")),
    }
    column.end_container()
}

/// Calls `entry` at the value of each key of an object.
fn each_entry(
    scanner: &mut Scanner<'_>,
    mut entry: impl FnMut(&mut Scanner<'_>, &str) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    scanner.take(b'{');
    scanner.skip_whitespace();
    if scanner.take(b'}') {
        return Ok(());
    }
    let mut unescaped = String::new();
    loop {
        let key = scanner.key()?;
        if key.escaped {
            unescape(key.raw, &mut unescaped)?;
            entry(scanner, &unescaped)?;
        } else {
            entry(scanner, key.raw)?;
        }
        scanner.skip_whitespace();
        if scanner.take(b'}') {
            return Ok(());
        }
        scanner.expect(b',')?;
        scanner.skip_whitespace();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Flag;
    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn decoder(fields: Vec<Field>, options: JsonOptions) -> JsonDecoder {
        let schema = Arc::new(Schema::new(fields));
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        JsonDecoder::new(&RecordSchema::new(schema, all), options).unwrap()
    }

    fn simple(options: JsonOptions) -> JsonDecoder {
        decoder(
            vec![
                Field::new("a", DataType::Int64, true),
                Field::new("b", DataType::Utf8, true),
                Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true),
            ],
            options,
        )
    }

    fn show(decoder: &mut JsonDecoder) -> String {
        let schema = Schema::new(
            decoder
                .columns
                .iter()
                .map(|c| Field::new(c.name(), DataType::Null, true))
                .collect::<Vec<_>>(),
        );
        let arrays = decoder.finish().unwrap();
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .zip(&arrays)
            .map(|(field, array)| Field::new(field.name(), array.data_type().clone(), true))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let mut out = Vec::new();
        let mut writer = arrow::json::LineDelimitedWriter::new(&mut out);
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_found_in_any_order_and_others_skipped() {
        let mut decoder = simple(JsonOptions::default());
        decoder
            .decode(br#"{"a": 1, "x": [1, {"y": 2}], "b": "one", "t": "1970-01-01 00:00:01"}"#)
            .unwrap();
        decoder.decode(br#"{"b":"t\u0077o","a":2}"#).unwrap();
        decoder.decode(br#"{"\u0061": "3", "b": 4.50}"#).unwrap();
        decoder.decode(br#"{"a":4,"b":{"raw": [1]},"a":5}"#).unwrap();
        decoder.decode(b" { } ").unwrap();
        assert_eq!(
            show(&mut decoder),
            concat!(
                r#"{"a":1,"b":"one","t":"1970-01-01T00:00:01"}"#,
                "\n",
                r#"{"a":2,"b":"two"}"#,
                "\n",
                r#"{"a":3,"b":"4.50"}"#,
                "\n",
                r#"{"a":5,"b":"{\"raw\": [1]}"}"#,
                "\n",
                "{}\n",
            )
        );
    }

    #[test]
    fn a_record_that_fails_leaves_no_trace() {
        let mut decoder = simple(JsonOptions::default());
        decoder.decode(br#"{"a":1,"b":"x"}"#).unwrap();
        for (record, reason) in [
            (
                &br#"{"a":2,"b":"y","t":"yesterday"}"#[..],
                "field t: 'yesterday' is not a timestamp",
            ),
            (br#"{"a":2,"t":1700000000000}"#, "BIGINT"),
            (
                br#"{"a":99999999999999999999}"#,
                "field a: 99999999999999999999 is out of the column's range",
            ),
            (br#"{"b":"y","a":[1]}"#, "field a: is an array"),
            (br#"{"b":"y""#, "expected ',' or '}'"),
            (br#"{"b":"y"} {}"#, "expected the end of the record"),
            (br#"[{"a":1}]"#, "expected an object"),
            (b"", "expected an object"),
            (b"{\"b\":\"\xff\"}", "not UTF-8 at byte 6"),
        ] {
            let error = decoder.decode(record).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        decoder.decode(br#"{"a":3}"#).unwrap();
        assert_eq!(show(&mut decoder), "{\"a\":1,\"b\":\"x\"}\n{\"a\":3}\n");
    }

    #[test]
    fn deep_nesting_is_an_error_wherever_it_is() {
        let deep = "[".repeat(100_000);
        let mut decoder = simple(JsonOptions::default());
        for record in [
            format!(r#"{{"x":{deep}"#),
            format!(r#"{{"b":{deep}"#),
            format!(r#"{{"a":{deep}"#),
        ] {
            assert!(decoder.decode(record.as_bytes()).is_err());
        }
    }

    #[test]
    fn missing_and_null_fields_follow_the_options() {
        let mut strict = simple(JsonOptions {
            fail_on_missing_field: Flag::On,
            ..JsonOptions::default()
        });
        let error = strict.decode(br#"{"a":1,"b":"x"}"#).unwrap_err();
        assert_eq!(error.to_string(), "field t: is missing");
        strict.decode(br#"{"a":1,"b":null,"t":null}"#).unwrap();
        let mut not_null = decoder(vec![Field::new("a", DataType::Int64, false)], JsonOptions::default());
        assert!(
            not_null
                .decode(br#"{"a":null}"#)
                .unwrap_err()
                .to_string()
                .contains("NOT NULL")
        );
        assert!(not_null.decode(b"{}").unwrap_err().to_string().contains("NOT NULL"));
        not_null.decode(br#"{"a":7}"#).unwrap();
        assert_eq!(not_null.finish().unwrap()[0].as_primitive::<Int64Type>().values(), &[7]);
    }

    #[test]
    fn nested_columns_are_read_and_rolled_back() {
        let item = Arc::new(Field::new("item", DataType::Int64, true));
        let inner = DataType::Struct(
            vec![
                Field::new("x", DataType::Int64, true),
                Field::new("l", DataType::List(Arc::clone(&item)), true),
            ]
            .into(),
        );
        let entries = DataType::Struct(
            vec![
                Field::new("key", DataType::Utf8, false),
                Field::new("value", DataType::Int64, true),
            ]
            .into(),
        );
        let mut decoder = decoder(
            vec![
                Field::new("s", inner, true),
                Field::new(
                    "m",
                    DataType::Map(Arc::new(Field::new("entries", entries, false)), false),
                    true,
                ),
            ],
            JsonOptions::default(),
        );
        decoder
            .decode(br#"{"s":{"x":1,"l":[1,null,3]},"m":{"k":1,"q":2}}"#)
            .unwrap();
        let error = decoder
            .decode(br#"{"m":{"z":1},"s":{"l":[4,5],"x":"no"}}"#)
            .unwrap_err();
        assert_eq!(error.to_string(), "field s.x: 'no' is not a number");
        decoder.decode(br#"{"m":{},"s":{"l":[]}}"#).unwrap();
        decoder.decode(br#"{"s":null}"#).unwrap();
        assert_eq!(
            show(&mut decoder),
            "{\"s\":{\"x\":1,\"l\":[1,null,3]},\"m\":{\"k\":1,\"q\":2}}\n{\"s\":{\"l\":[]},\"m\":{}}\n{}\n"
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(record: Vec<u8>) {
            let _ = simple(JsonOptions::default()).decode(&record);
        }

        #[test]
        fn broken_records_never_panic(cut in 0..80_usize, put: u8) {
            let mut record = br#"{"a": -12.5e3, "x": [1, {"y": "\u00e9"}], "b": "\ud83d\ude00", "t": "1970-01-01 00:00:01"}"#.to_vec();
            record[cut] = put;
            let mut decoder = simple(JsonOptions::default());
            let rows = usize::from(decoder.decode(&record).is_ok());
            prop_assert_eq!(decoder.finish().unwrap()[0].len(), rows);
        }
    }
}
