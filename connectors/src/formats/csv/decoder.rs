//! Fills columns from lines of fields.

use super::{CsvOptions, byte, check_flat};
use crate::error::ConnectorError;
use crate::formats::columns::{ColumnBuilder, TextOptions, builders, roll_back};
use crate::formats::record_error::RecordError;
use crate::formats::{RecordDecoder, RecordSchema};
use arrow::array::ArrayRef;
use arrow::error::ArrowError;

/// Decodes records that are one line of fields each.
pub(crate) struct CsvDecoder {
    options: CsvOptions,
    columns: Vec<ColumnBuilder>,
    /// For each field of a record, the column it fills.
    targets: Vec<Option<usize>>,
    rows: usize,
    scratch: String,
}

impl CsvDecoder {
    /// Makes a decoder of the projected columns; every column of the record has its place in the line.
    ///
    /// # Errors
    /// When a column's type cannot be read from CSV.
    pub(crate) fn new(schema: &RecordSchema, options: CsvOptions) -> Result<Self, ConnectorError> {
        check_flat(schema.all())?;
        let columns = builders(schema.projected().fields(), TextOptions::default())?;
        let mut targets = vec![None; schema.all().fields().len()];
        for (column, &field) in schema.projection().iter().enumerate() {
            targets[field] = Some(column);
        }
        Ok(Self {
            options,
            columns,
            targets,
            rows: 0,
            scratch: String::new(),
        })
    }

    fn decode_line(&mut self, line: &str) -> Result<(), RecordError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let mut rest = Some(line.strip_suffix('\r').unwrap_or(line));
        let mut fields = 0;
        while let Some(text) = rest {
            let (value, after) = split_field(text, &self.options, &mut self.scratch)?;
            rest = after;
            let Some(target) = self.targets.get(fields) else {
                fields += 1;
                continue;
            };
            fields += 1;
            let Some(column) = target.map(|target| &mut self.columns[target]) else {
                continue;
            };
            let (text, quoted) = match value {
                Field::Plain(text) => (text, false),
                Field::Unescaped => (self.scratch.as_str(), false),
                Field::Quoted => (self.scratch.as_str(), true),
            };
            let appended = if !quoted && self.options.null_literal.as_deref() == Some(text) {
                column.append_null()
            } else {
                column.append_text(text)
            };
            if let Err(mut error) = appended {
                if text.is_empty() && self.options.null_literal.is_none() {
                    error = RecordError::new(format!(
                        "{error}; to read empty fields as NULL set csv.null-literal to ''"
                    ));
                }
                return Err(error.within(column.name()));
            }
        }
        if fields != self.targets.len() {
            let expected = self.targets.len();
            return Err(RecordError::new(format!(
                "the line has {fields} fields, the table has {expected}"
            )));
        }
        Ok(())
    }
}

impl RecordDecoder for CsvDecoder {
    fn decode(&mut self, record: &[u8]) -> Result<(), RecordError> {
        let decoded = match std::str::from_utf8(record) {
            Ok(text) => self.decode_line(text),
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

enum Field<'a> {
    Plain(&'a str),
    /// The value is in the scratch buffer.
    Unescaped,
    /// The value is in the scratch buffer and stood in quotation marks, so it is not NULL.
    Quoted,
}

/// Splits the first field off a line; what follows is `None` at the line's end.
fn split_field<'a>(
    text: &'a str,
    options: &CsvOptions,
    scratch: &mut String,
) -> Result<(Field<'a>, Option<&'a str>), RecordError> {
    let delimiter = byte(options.delimiter);
    let escape = options.escape.map(byte);
    let quoted = options.quote.is_some_and(|quote| text.starts_with(quote));
    if !quoted && escape.is_none() {
        return Ok(match text.bytes().position(|b| b == delimiter) {
            Some(at) => (Field::Plain(&text[..at]), Some(&text[at + 1..])),
            None => (Field::Plain(text), None),
        });
    }
    scratch.clear();
    let quote = options.quote.map(byte);
    let bytes = text.as_bytes();
    let mut at = usize::from(quoted);
    let mut plain = at;
    loop {
        let b = bytes.get(at).copied();
        if b.is_some() && b == escape && bytes.len() > at + 1 {
            scratch.push_str(&text[plain..at]);
            plain = at + 1;
            // What is escaped may be a character of several bytes: only its first needs protection.
            at += 2;
        } else if quoted && b == quote {
            scratch.push_str(&text[plain..at]);
            if bytes.get(at + 1).copied() == quote {
                plain = at + 1;
                at += 2;
                continue;
            }
            return match bytes.get(at + 1) {
                None => Ok((Field::Quoted, None)),
                Some(b) if *b == delimiter => Ok((Field::Quoted, Some(&text[at + 2..]))),
                Some(_) => Err(RecordError::new(format!(
                    "text follows the closing quote at byte {at} of a field"
                ))),
            };
        } else if !quoted && (b.is_none() || b == Some(delimiter)) {
            scratch.push_str(&text[plain..at]);
            return Ok((Field::Unescaped, b.map(|_| &text[at + 1..])));
        } else if b.is_none() {
            return Err(RecordError::new("a quoted field does not end"));
        } else {
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::DataType;
    use arrow::datatypes::{Field as ArrowField, Int64Type, Schema};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn decoder(options: CsvOptions, projection: Vec<usize>) -> CsvDecoder {
        let schema = Schema::new(vec![
            ArrowField::new("a", DataType::Int64, true),
            ArrowField::new("b", DataType::Utf8, true),
            ArrowField::new("c", DataType::Float64, true),
        ]);
        CsvDecoder::new(&RecordSchema::new(Arc::new(schema), projection), options).unwrap()
    }

    fn texts(decoder: &mut CsvDecoder, lines: &[&str]) -> Vec<String> {
        for line in lines {
            decoder.decode(line.as_bytes()).unwrap();
        }
        let arrays = decoder.finish().unwrap();
        arrays[0]
            .as_string::<i32>()
            .iter()
            .map(|s| s.unwrap_or("NULL").to_owned())
            .collect()
    }

    #[test]
    fn fields_are_quoted_as_in_rfc_4180() {
        let mut decoder = decoder(CsvOptions::default(), vec![1]);
        let lines = [
            "1,x,1",
            "2,\"a,b\",2",
            "3,\"say \"\"hi\"\"\",3",
            "4,\"two\nlines\",4",
            "5,,5\r\n",
        ];
        assert_eq!(
            texts(&mut decoder, &lines),
            ["x", "a,b", "say \"hi\"", "two\nlines", ""]
        );
    }

    #[test]
    fn escapes_and_null_literals_are_options() {
        let options = CsvOptions {
            delimiter: ';',
            escape: Some('\\'),
            null_literal: Some("n/a".to_owned()),
            ..CsvOptions::default()
        };
        let mut decoder = decoder(options, vec![1]);
        assert_eq!(
            texts(&mut decoder, &["1;a\\;b;1", "2;n/a;2", "3;\"q\\\"q\";3", "4;\\é;4"]),
            ["a;b", "NULL", "q\"q", "é"]
        );
    }

    #[test]
    fn errors_name_the_field() {
        let mut decoder = decoder(CsvOptions::default(), vec![0, 1, 2]);
        for (line, reason) in [
            ("1,b", "the line has 2 fields, the table has 3"),
            ("1,b,2,3", "the line has 4 fields, the table has 3"),
            ("x,b,2", "field a: 'x' is not a number"),
            (",b,2", "csv.null-literal"),
            ("1,\"b,2", "does not end"),
            ("1,\"b\"x,2", "closing quote"),
        ] {
            let error = decoder.decode(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        decoder.decode(b"7,b,2.5").unwrap();
        assert_eq!(decoder.finish().unwrap()[0].as_primitive::<Int64Type>().values(), &[7]);
    }

    proptest! {
        #[test]
        fn random_text_never_panics(line: String, escape: bool) {
            let options = CsvOptions { escape: escape.then_some('\\'), ..CsvOptions::default() };
            let _ = decoder(options, vec![0, 1, 2]).decode(line.as_bytes());
        }
    }
}
