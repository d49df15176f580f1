//! The format `csv`: a record is one line of fields, a column the field of its place.
//!
//! Quoting is RFC 4180's: a quoted field may hold delimiters, line ends, and quotation marks written twice; an escape
//! character may be set besides.

mod decoder;
mod encoder;

pub(crate) use decoder::CsvDecoder;
pub(crate) use encoder::CsvEncoder;

use crate::error::ConnectorError;
use crate::options::{Flag, Options};
use arrow::datatypes::{DataType, FieldRef, Schema};

/// The format's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CsvOptions {
    pub(crate) delimiter: char,
    pub(crate) quote: Option<char>,
    pub(crate) escape: Option<char>,
    pub(crate) null_literal: Option<String>,
    pub(crate) allow_comments: Flag,
    pub(crate) ignore_parse_errors: Flag,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            delimiter: ',',
            quote: Some('"'),
            escape: None,
            null_literal: None,
            allow_comments: Flag::Off,
            ignore_parse_errors: Flag::Off,
        }
    }
}

impl CsvOptions {
    /// Reads the options `csv.*`.
    ///
    /// # Errors
    /// When one is not valid.
    pub(crate) fn parse(options: &Options<'_>) -> Result<Self, ConnectorError> {
        let defaults = Self::default();
        let quote_set = options.character("csv.quote-character")?;
        let quote = if options.boolean("csv.disable-quote-character", Flag::Off)?.is_on() {
            if quote_set.is_some() {
                let message = "cannot be set together with csv.disable-quote-character";
                return Err(ConnectorError::option("csv.quote-character", message));
            }
            None
        } else {
            quote_set.or(defaults.quote)
        };
        let parsed = Self {
            delimiter: options.character("csv.field-delimiter")?.unwrap_or(defaults.delimiter),
            quote,
            escape: options.character("csv.escape-character")?,
            null_literal: options.text("csv.null-literal").map(str::to_owned),
            allow_comments: options.boolean("csv.allow-comments", Flag::Off)?,
            ignore_parse_errors: options.boolean("csv.ignore-parse-errors", Flag::Off)?,
        };
        options.refuse(
            "csv.array-element-delimiter",
            "arrays in CSV are not supported; use the format json",
        )?;
        if options
            .boolean("csv.write-bigdecimal-in-scientific-notation", Flag::Off)?
            .is_on()
        {
            return Err(ConnectorError::option(
                "csv.write-bigdecimal-in-scientific-notation",
                "decimals are always written as plain numbers here; leave the option out",
            ));
        }
        for (name, value) in [
            ("csv.field-delimiter", Some(parsed.delimiter)),
            ("csv.quote-character", parsed.quote),
            ("csv.escape-character", parsed.escape),
        ] {
            match value {
                Some('\n' | '\r') => return Err(ConnectorError::option(name, "must not be a line end")),
                Some(c) if !c.is_ascii() => return Err(ConnectorError::option(name, "must be an ASCII character")),
                _ => {}
            }
        }
        if parsed.quote == Some(parsed.delimiter) || parsed.escape == Some(parsed.delimiter) {
            return Err(ConnectorError::option(
                "csv.field-delimiter",
                "is also the quote or escape character",
            ));
        }
        Ok(parsed)
    }
}

/// Checks that every column has a single value, which a field can hold.
fn check_flat(schema: &Schema) -> Result<(), ConnectorError> {
    let nested = |field: &&FieldRef| {
        matches!(
            field.data_type(),
            DataType::List(_) | DataType::Struct(_) | DataType::Map(..)
        )
    };
    match schema.fields().iter().find(nested) {
        None => Ok(()),
        Some(field) => Err(ConnectorError::new(format!(
            "column {} has the type {}, which CSV cannot hold; use the format json",
            field.name(),
            field.data_type()
        ))),
    }
}

fn byte(c: char) -> u8 {
    u8::try_from(c).unwrap_or(b'?')
}
