//! Formats: how a record's bytes become columns, and rows become bytes.
//!
//! | format | read | written | unit |
//! |---|---|---|---|
//! | [`json`] | yes | yes | one object a record |
//! | [`csv`] | yes | yes | one line a record |
//! | [`raw`] | yes | yes | the record is the only column |
//! | parquet | yes | yes | a whole file, so in `filesystem` only |
//!
//! A decoder takes one record at a time and appends it to its columns, or takes back everything it appended and says
//! why. It never panics, whatever the bytes.

pub(crate) mod assembler;
pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod json;
pub(crate) mod raw;
pub(crate) mod record_error;
pub(crate) mod time_text;
pub(crate) mod values;

use crate::error::ConnectorError;
use crate::options::Options;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use csv::{CsvDecoder, CsvEncoder, CsvOptions};
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
    /// The job fails.
    Fail,
    /// The record is dropped and counted.
    Drop,
}

/// A format whose unit is a record, with its options.
#[derive(Clone, Debug)]
pub(crate) enum RecordFormat {
    Json(JsonOptions),
    Csv(CsvOptions),
    Raw(RawOptions),
}

/// The names of the formats.
pub(crate) const FORMATS: [&str; 4] = ["json", "csv", "raw", "parquet"];

impl RecordFormat {
    /// Reads the option `format` and the format's own options; `None` for parquet, which is no format of records.
    ///
    /// # Errors
    /// When the format is not known or one of its options is not valid.
    pub(crate) fn parse(options: &Options<'_>) -> Result<Option<Self>, ConnectorError> {
        Ok(match options.required("format")? {
            "json" => Some(Self::Json(JsonOptions::parse(options)?)),
            "csv" => Some(Self::Csv(CsvOptions::parse(options)?)),
            "raw" => Some(Self::Raw(RawOptions::parse(options)?)),
            "parquet" => None,
            other => {
                let error = ConnectorError::option("format", format!("there is no format '{other}'"));
                return Err(match crate::options::closest(other, FORMATS.into_iter()) {
                    Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                    None => error.with_hint(format!("there are {}", FORMATS.join(", "))),
                });
            }
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
        })
    }

    /// Says what becomes of a record that cannot be decoded.
    pub(crate) fn parse_errors(&self) -> ParseErrors {
        let ignore = match self {
            Self::Json(options) => options.ignore_parse_errors,
            Self::Csv(options) => options.ignore_parse_errors,
            Self::Raw(_) => crate::options::Flag::Off,
        };
        if ignore.is_on() {
            ParseErrors::Drop
        } else {
            ParseErrors::Fail
        }
    }
}
