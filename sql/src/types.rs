//! Flink's types and the Arrow types that stand for them.
//!
//! | SQL | Arrow |
//! |---|---|
//! | `STRING`, `VARCHAR(n)`, `CHAR(n)` | `Utf8` |
//! | `TIMESTAMP(p)` | `Timestamp`: milliseconds for p <= 3, microseconds for p <= 6 (the default), else nanoseconds |
//! | `TIMESTAMP_LTZ(p)` | the same with the time zone `UTC` |
//! | `TIME(p)` | `Time32`: seconds for p = 0 (the default), milliseconds for p <= 3 |
//! | `DECIMAL(p, s)` | `Decimal128(p, s)`; `DECIMAL` is `DECIMAL(10, 0)` |
//! | `BYTES`, `VARBINARY(n)`, `BINARY(n)` | `Binary` |
//! | `ROW<a type, ...>` | `Struct` |
//! | `ARRAY<type>` | `List`, whose field is `item` |
//! | `MAP<key, value>` | `Map` of `entries` with `key` and `value` |
//!
//! A length is a promise that is checked: see [`Length`].

mod nested;

pub(crate) use nested::ROW_DEPTH_MAX;

use crate::error::{Result, SqlError};
use crate::script::{from_parser, start_of};
use arrow::datatypes::{DataType, Field, TimeUnit};
use sqlparser::ast;
use sqlparser::ast::{BinaryLength, CharacterLength, ExactNumberInfo, TimezoneInfo};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;
use std::sync::Arc;

/// The length of `STRING` in Flink, and of `VARCHAR` without one.
const LENGTH_UNBOUNDED: u64 = 2_147_483_647;

/// The length that a type promises, in characters or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Length {
    /// `VARCHAR(n)`, `VARBINARY(n)`: at most so many.
    Max(u64),
    /// `CHAR(n)`, `BINARY(n)`: just so many.
    Exact(u64),
}

/// A type as SQL writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SqlType {
    /// The Arrow type of the values.
    pub(crate) data_type: DataType,
    /// The length that each value must have.
    pub(crate) length: Option<Length>,
}

impl From<DataType> for SqlType {
    fn from(data_type: DataType) -> Self {
        Self {
            data_type,
            length: None,
        }
    }
}

/// Parses the type of a column.
///
/// # Errors
/// On types that are not supported, at their first word.
pub(crate) fn parse_type(parser: &mut Parser<'_>) -> Result<SqlType> {
    let first = parser.peek_token();
    let at = start_of(first.span);
    let Token::Word(word) = &first.token else {
        return Err(SqlError::at(at, format!("expected a type, found {first}")));
    };
    let name = word.value.to_ascii_uppercase();
    match name.as_str() {
        word if nested::begins(word) => return nested::parse(parser).map(|nested| nested.sql_type),
        "STRUCT" | "STRUCTURED" => {
            return Err(SqlError::at(at, format!("the type {name} is not supported yet"))
                .hint("declare the column as STRING, or as ROW<...> if it is an object of known fields"));
        }
        "TIMESTAMP" | "TIMESTAMP_LTZ" => {
            parser.advance_token();
            let precision = parser.parse_optional_precision().map_err(from_parser)?;
            let mut local = name == "TIMESTAMP_LTZ";
            if !local && parser.parse_keyword(Keyword::WITH) {
                let token = parser.next_token();
                if !token.token.to_string().eq_ignore_ascii_case("LOCAL") {
                    return Err(SqlError::at(at, "TIMESTAMP WITH TIME ZONE is not supported")
                        .hint("use TIMESTAMP_LTZ(3), which keeps an instant in UTC"));
                }
                parser
                    .expect_keywords(&[Keyword::TIME, Keyword::ZONE])
                    .map_err(from_parser)?;
                local = true;
            } else if !local && parser.parse_keyword(Keyword::WITHOUT) {
                parser
                    .expect_keywords(&[Keyword::TIME, Keyword::ZONE])
                    .map_err(from_parser)?;
            }
            return timestamp(precision, local)
                .map(SqlType::from)
                .map_err(|error| error.or_at(at));
        }
        _ => {}
    }
    let parsed = parser.parse_data_type().map_err(|error| from_parser(error).or_at(at))?;
    from_ast(&parsed).map_err(|error| error.or_at(at))
}

/// Translates a parsed type.
///
/// # Errors
/// On types that are not supported; without a position.
pub(crate) fn from_ast(parsed: &ast::DataType) -> Result<SqlType> {
    use ast::DataType as Sql;
    let plain = |data_type: DataType| Ok(SqlType::from(data_type));
    match parsed {
        Sql::String(None) | Sql::Varchar(None) | Sql::CharacterVarying(None) => plain(DataType::Utf8),
        Sql::Varchar(Some(length)) | Sql::CharacterVarying(Some(length)) => {
            let length = characters(length)?;
            let length = (length != LENGTH_UNBOUNDED).then_some(Length::Max(length));
            Ok(SqlType {
                data_type: DataType::Utf8,
                length,
            })
        }
        Sql::Char(length) | Sql::Character(length) => {
            let length = length.as_ref().map_or(Ok(1), characters)?;
            Ok(SqlType {
                data_type: DataType::Utf8,
                length: Some(Length::Exact(length)),
            })
        }
        Sql::Bytes(None) => plain(DataType::Binary),
        Sql::Varbinary(length) => {
            let length = match length {
                None | Some(BinaryLength::Max) => LENGTH_UNBOUNDED,
                Some(BinaryLength::IntegerLength { length }) => *length,
            };
            let length = (length != LENGTH_UNBOUNDED).then_some(Length::Max(length));
            Ok(SqlType {
                data_type: DataType::Binary,
                length,
            })
        }
        Sql::Binary(length) => Ok(SqlType {
            data_type: DataType::Binary,
            length: Some(Length::Exact(length.unwrap_or(1))),
        }),
        Sql::Boolean | Sql::Bool => plain(DataType::Boolean),
        Sql::TinyInt(None) => plain(DataType::Int8),
        Sql::SmallInt(None) => plain(DataType::Int16),
        Sql::Int(None) | Sql::Integer(None) => plain(DataType::Int32),
        Sql::BigInt(None) => plain(DataType::Int64),
        Sql::Float(ExactNumberInfo::None) => plain(DataType::Float32),
        Sql::Double(ExactNumberInfo::None) | Sql::DoublePrecision => plain(DataType::Float64),
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => decimal(info).map(SqlType::from),
        Sql::Date => plain(DataType::Date32),
        Sql::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => match precision.unwrap_or(0) {
            0 => plain(DataType::Time32(TimeUnit::Second)),
            1..=3 => plain(DataType::Time32(TimeUnit::Millisecond)),
            other => Err(SqlError::new(format!("TIME({other}) is not supported")).hint("use TIME(3) or less")),
        },
        Sql::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            timestamp(*precision, false).map(SqlType::from)
        }
        Sql::Custom(name, modifiers) if name.to_string().eq_ignore_ascii_case("TIMESTAMP_LTZ") => {
            let precision = match modifiers.as_slice() {
                [] => None,
                [precision] => Some(precision.parse().map_err(|_| {
                    SqlError::new(format!("TIMESTAMP_LTZ({precision}) is not supported")).hint("use TIMESTAMP_LTZ(3)")
                })?),
                _ => return Err(SqlError::new("TIMESTAMP_LTZ takes one precision").hint("use TIMESTAMP_LTZ(3)")),
            };
            timestamp(precision, true).map(SqlType::from)
        }
        Sql::Array(ast::ArrayElemTypeDef::AngleBracket(element)) => {
            let element = from_ast(element)?;
            if element.length.is_some() {
                return Err(SqlError::new("a length in an ARRAY is not checked yet").hint("write ARRAY<STRING>"));
            }
            plain(array_of(element.data_type))
        }
        Sql::Array(_) | Sql::Map(..) | Sql::Struct(..) | Sql::Tuple(_) => {
            Err(SqlError::new(format!("the type {parsed} is not supported yet"))
                .hint("use STRING, or flatten the value in the producer"))
        }
        _ => Err(SqlError::new(format!("the type {parsed} is not supported")).hint(
            "supported: BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), STRING, VARCHAR(n), \
             CHAR(n), BYTES, VARBINARY(n), BINARY(n), DATE, TIME(p), TIMESTAMP(p), TIMESTAMP_LTZ(p), ARRAY<type>, ROW<...> \
             and MAP<key, value> in CREATE TABLE",
        )),
    }
}

/// Writes an Arrow type as SQL does, for messages.
pub(crate) fn sql_name(data_type: &DataType) -> String {
    let precision = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("TIME({})", precision(unit)),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", precision(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", precision(unit)),
        DataType::Interval(_) => "INTERVAL".into(),
        DataType::Null => "NULL".into(),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), sql_name(field.data_type())))
                .collect();
            format!("ROW<{}>", fields.join(", "))
        }
        DataType::List(item) => format!("ARRAY<{}>", sql_name(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!(
                    "MAP<{}, {}>",
                    sql_name(fields[0].data_type()),
                    sql_name(fields[1].data_type())
                )
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

/// Returns the type of an array.
pub(crate) fn array_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

/// Returns the type of a map.
pub(crate) fn map_of(key: DataType, value: DataType) -> DataType {
    let fields = vec![Field::new("key", key, false), Field::new("value", value, true)];
    DataType::Map(
        Arc::new(Field::new("entries", DataType::Struct(fields.into()), false)),
        false,
    )
}

/// Says whether a column of a table may have a type.
pub(crate) fn can_be_column(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null | DataType::Interval(_) | DataType::Duration(_) => false,
        DataType::Struct(fields) => fields.iter().all(|field| can_be_column(field.data_type())),
        _ => true,
    }
}

impl SqlType {
    /// Writes the type as SQL does, with its length.
    pub(crate) fn text(&self) -> String {
        let (data_type, length) = (&self.data_type, self.length);
        match (data_type, length) {
            (DataType::Binary, Some(Length::Max(length))) => format!("VARBINARY({length})"),
            (DataType::Binary, Some(Length::Exact(length))) => format!("BINARY({length})"),
            (_, Some(Length::Max(length))) => format!("VARCHAR({length})"),
            (_, Some(Length::Exact(length))) => format!("CHAR({length})"),
            (_, None) => sql_name(data_type),
        }
    }
}

fn characters(length: &CharacterLength) -> Result<u64> {
    match length {
        CharacterLength::IntegerLength { length, unit: None } if (1..=LENGTH_UNBOUNDED).contains(length) => Ok(*length),
        CharacterLength::IntegerLength { unit: Some(unit), .. } => {
            Err(SqlError::new(format!("a length in {unit} is not supported")).hint("lengths count characters"))
        }
        CharacterLength::IntegerLength { length, .. } => {
            Err(SqlError::new(format!("a length of {length} cannot be")).hint("use 1 to 2147483647, or STRING"))
        }
        CharacterLength::Max => Ok(LENGTH_UNBOUNDED),
    }
}

fn decimal(info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (10, 0),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s)) if s >= 0 && scale <= precision as i64 => Ok(DataType::Decimal128(p, s)),
        _ => Err(SqlError::new(format!("DECIMAL({precision}, {scale}) cannot be"))
            .hint("the precision is 1 to 38, the scale 0 to the precision")),
    }
}

fn timestamp(precision: Option<u64>, local: bool) -> Result<DataType> {
    let unit = match precision.unwrap_or(6) {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        7..=9 => TimeUnit::Nanosecond,
        other => {
            let name = if local { "TIMESTAMP_LTZ" } else { "TIMESTAMP" };
            return Err(SqlError::new(format!("{name}({other}) cannot be")).hint("the precision is 0 to 9"));
        }
    };
    Ok(DataType::Timestamp(unit, local.then(|| "UTC".into())))
}
