//! Formats: how a record's bytes become columns, and rows become bytes.
//!
//! | format | read | written | unit |
//! |---|---|---|---|
//! | [`json`] | yes | yes | one object a record |
//! | [`csv`] | yes | yes | one line a record |
//! | [`debezium`] | not yet | yes | one object a change |
//! | [`raw`] | yes | yes | the record is the only column |
//! | parquet | yes | yes | a whole file, so in `filesystem` only |
//!
//! A decoder takes one record at a time and appends it to its columns, or takes back everything it appended and says
//! why. It never panics, whatever the bytes.

pub(crate) mod assembler;
pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod debezium;
pub(crate) mod json;
pub(crate) mod raw;
pub(crate) mod record_error;
pub(crate) mod time_text;
pub(crate) mod upsert;
pub(crate) mod values;

use crate::error::ConnectorError;
use crate::options::Options;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use csv::{CsvDecoder, CsvEncoder, CsvOptions};
use debezium::DebeziumEncoder;
use json::{JsonDecoder, JsonEncoder, JsonOptions};
use raw::{RawDecoder, RawEncoder, RawOptions};
use record_error::RecordError;
use std::sync::Arc;
use tidemill_engine::Error;

/// Decodes records into columns.
pub(crate) trait RecordDecoder: Send {
    /// Appends one record as a row; one that fails leaves no trace.
    fn decode(&mut self, record: &[u8]) -> Result<(), RecordError>;

    /// Returns the rows since the last `finish`.
    fn rows(&self) -> usize;

    /// Takes the rows out, as the projected columns.
    fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError>;
}

/// Encodes rows.
pub(crate) trait RowEncoder: Send + Sync {
    /// Returns the rows of a batch that become records: all of them, unless rows are written by their key.
    fn records(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        Ok(batch.clone())
    }

    /// Appends each row of a batch to `out` and calls `row_end` after it.
    fn encode(
        &self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
        row_end: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<(), Error>;
}

/// The columns that stand in a record, and which of them are wanted.
#[derive(Clone, Debug)]
pub(crate) struct RecordSchema {
    all: SchemaRef,
    projection: Vec<usize>,
    projected: SchemaRef,
}

impl RecordSchema {
    /// Makes the schema of records of which the columns in `projection` are wanted, in that order.
    pub(crate) fn new(all: SchemaRef, projection: Vec<usize>) -> Self {
        let fields: Vec<_> = projection.iter().map(|&i| Arc::clone(&all.fields()[i])).collect();
        Self {
            projected: Arc::new(Schema::new(fields)),
            all,
            projection,
        }
    }

    /// Returns all columns of a record.
    pub(crate) fn all(&self) -> &SchemaRef {
        &self.all
    }

    /// Returns the indexes of the wanted columns.
    pub(crate) fn projection(&self) -> &[usize] {
        &self.projection
    }

    /// Returns the wanted columns.
    pub(crate) fn projected(&self) -> &SchemaRef {
        &self.projected
    }
}

/// What becomes of a record that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParseErrors {
    /// The job fails, with a message that ends in what its author can do.
    Fail { remedy: &'static str },
    /// The record is dropped and counted.
    Drop,
}

/// A format whose unit is a record, with its options.
#[derive(Clone, Debug)]
pub(crate) enum RecordFormat {
    Json(JsonOptions),
    Csv(CsvOptions),
    Raw(RawOptions),
    DebeziumJson(JsonOptions),
}

/// The formats whose unit is a record.
pub(crate) const RECORD_FORMATS: [&str; 4] = ["json", "csv", "raw", debezium::NAME];
/// The formats of files.
pub(crate) const FILE_FORMATS: [&str; 5] = ["json", "csv", "raw", "parquet", debezium::NAME];

impl RecordFormat {
    /// Reads the option `format`, one of those in `offered`, and the format's own options; `None` for one that is
    /// offered and is no format of records.
    ///
    /// # Errors
    /// When the format is missing, not offered, or one of its options is not valid.
    pub(crate) fn parse(options: &Options<'_>, offered: &[&str]) -> Result<Option<Self>, ConnectorError> {
        let connector = match options.connector() {
            "" => String::new(),
            connector => format!(" for the connector '{connector}'"),
        };
        let refusal = |message: String| ConnectorError::option("format", message);
        let there_are = || format!("there are {}{connector}", offered.join(", "));
        let name = match options.text("format") {
            None | Some("") => {
                let error = refusal(format!("table {} needs this option", options.table()));
                return Err(error.with_hint(format!(
                    "add for example 'format' = 'json' to its WITH; {}",
                    there_are()
                )));
            }
            Some(name) if offered.contains(&name) => name,
            Some(other) => {
                let error = refusal(format!("there is no format '{other}'{connector}"));
                return Err(match crate::options::closest(other, offered.iter().copied()) {
                    Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                    None => error.with_hint(there_are()),
                });
            }
        };
        Ok(match name {
            "json" => Some(Self::Json(JsonOptions::parse(options)?)),
            "csv" => Some(Self::Csv(CsvOptions::parse(options)?)),
            "raw" => Some(Self::Raw(RawOptions::parse(options)?)),
            debezium::NAME => Some(Self::DebeziumJson(debezium::parse(options)?)),
            _ => None,
        })
    }

    /// Makes a decoder.
    ///
    /// # Errors
    /// When a column's type cannot be read.
    pub(crate) fn decoder(&self, schema: &RecordSchema) -> Result<Box<dyn RecordDecoder>, ConnectorError> {
        Ok(match self {
            Self::Json(options) => Box::new(JsonDecoder::new(schema, *options)?),
            Self::Csv(options) => Box::new(CsvDecoder::new(schema, options.clone())?),
            Self::Raw(options) => Box::new(RawDecoder::new(schema, *options)?),
            Self::DebeziumJson(_) => return Err(debezium::only_written()),
        })
    }

    /// Makes an encoder.
    ///
    /// # Errors
    /// When a column's type cannot be written.
    pub(crate) fn encoder(&self, schema: &Schema) -> Result<Arc<dyn RowEncoder>, ConnectorError> {
        Ok(match self {
            Self::Json(options) => Arc::new(JsonEncoder::new(schema, *options)?),
            Self::Csv(options) => Arc::new(CsvEncoder::new(schema, options.clone())?),
            Self::Raw(options) => Arc::new(RawEncoder::new(schema, *options)?),
            Self::DebeziumJson(options) => Arc::new(DebeziumEncoder::new(schema, *options)?),
        })
    }

    /// Says what becomes of a record that cannot be decoded.
    pub(crate) fn parse_errors(&self) -> ParseErrors {
        let (ignore, remedy) = match self {
            Self::Json(options) => (
                options.ignore_parse_errors,
                "to drop and count such records, set 'json.ignore-parse-errors' = 'true' on the table",
            ),
            Self::Csv(options) => (
                options.ignore_parse_errors,
                "to drop and count such records, set 'csv.ignore-parse-errors' = 'true' on the table",
            ),
            Self::Raw(_) => (
                crate::options::Flag::Off,
                "declare the column as BYTES to take any record",
            ),
            Self::DebeziumJson(_) => (crate::options::Flag::Off, "the format is not read"),
        };
        if ignore.is_on() {
            ParseErrors::Drop
        } else {
            ParseErrors::Fail { remedy }
        }
    }
}
