//! The format `json`: a record is one JSON object, a column the field of its name.
//!
//! Reading goes from the bytes straight into columns; fields that no column asks for are checked and skipped, nothing
//! is built for them. `scan` walks the text, `decoder` fills columns, `encoder` writes rows.

mod decoder;
mod encoder;
mod scan;

pub(crate) use decoder::JsonDecoder;
pub(crate) use encoder::JsonEncoder;

use super::time_text::TimestampStandard;
use crate::error::ConnectorError;
use crate::options::{Flag, Options};

/// Objects and arrays may be nested this deep.
pub(crate) const DEPTH_MAX: usize = 128;

/// The format's options.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JsonOptions {
    pub(crate) ignore_parse_errors: Flag,
    pub(crate) fail_on_missing_field: Flag,
    pub(crate) timestamps: TimestampStandard,
    pub(crate) ignore_null_fields: Flag,
}

impl JsonOptions {
    /// Reads the options `json.*`.
    ///
    /// # Errors
    /// When one is not valid.
    pub(crate) fn parse(options: &Options<'_>) -> Result<Self, ConnectorError> {
        let ignore_parse_errors = options.boolean("json.ignore-parse-errors", Flag::Off)?;
        let fail_on_missing_field = options.boolean("json.fail-on-missing-field", Flag::Off)?;
        if ignore_parse_errors.is_on() && fail_on_missing_field.is_on() {
            return Err(ConnectorError::option(
                "json.fail-on-missing-field",
                "cannot be true together with json.ignore-parse-errors",
            ));
        }
        let timestamps = timestamps(options, "json.timestamp-format.standard")?;
        let ignore_null_fields = options.boolean("json.encode.ignore-null-fields", Flag::Off)?;
        if options.boolean("json.encode.decimal-as-plain-number", Flag::On)? == Flag::Off {
            return Err(ConnectorError::option(
                "json.encode.decimal-as-plain-number",
                "decimals are always written as plain numbers here; leave the option out",
            ));
        }
        options.refuse_prefix("json.map-null-key", "a map has no null keys here; leave the option out")?;
        options.refuse(
            "json.decode.json-parser.enabled",
            "there is only one parser here; leave the option out",
        )?;
        Ok(Self {
            ignore_parse_errors,
            fail_on_missing_field,
            timestamps,
            ignore_null_fields,
        })
    }
}

/// Reads the option of how times are written.
///
/// # Errors
/// When it is not one of the standards.
pub(crate) fn timestamps(options: &Options<'_>, option: &str) -> Result<TimestampStandard, ConnectorError> {
    let standards = [
        ("SQL", TimestampStandard::Sql),
        ("ISO-8601", TimestampStandard::Iso8601),
    ];
    Ok(options.choice(option, &standards)?.unwrap_or_default())
}
