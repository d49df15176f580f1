//! Values as JSON: `JSON_STRING`, `JSON_OBJECT`, `JSON_ARRAY`, and what `JSON_OBJECTAGG` and `JSON_ARRAYAGG` put together.
//!
//! The names of an object are in the order of their letters, as Flink writes them, also those of rows and maps.

use super::super::native::Args;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion_common::{Result, exec_err};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::BTreeMap;

/// Writes values as JSON; `None` for null.
fn written(values: &ArrayRef) -> Result<Vec<Option<String>>> {
    let rows = 0..values.len();
    let each = |write: &dyn Fn(usize) -> String| -> Vec<Option<String>> {
        rows.clone()
            .map(|row| values.is_valid(row).then(|| write(row)))
            .collect()
    };
    let found = values.data_type();
    Ok(match found {
        DataType::Null => vec![None; values.len()],
        DataType::Float32 | DataType::Float64 => {
            let numbers = cast(values, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            each(&|row| Value::from(numbers.value(row)).to_string())
        }
        DataType::Binary => {
            let bytes = values.as_binary::<i32>();
            each(&|row| Value::from(STANDARD.encode(bytes.value(row))).to_string())
        }
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            let elements = written(lists.values())?;
            let offsets = lists.value_offsets();
            each(&|row| array_of(&elements[offsets[row] as usize..offsets[row + 1] as usize]))
        }
        DataType::Struct(fields) => {
            let columns = values.as_struct().columns().iter().map(written);
            let columns = columns.collect::<Result<Vec<_>>>()?;
            each(&|row| {
                let fields = fields.iter().zip(&columns);
                object_of(fields.map(|(field, column)| (field.name().as_str(), column[row].as_deref())))
            })
        }
        DataType::Map(..) => {
            let maps = values.as_map();
            if !maps.keys().data_type().is_string() {
                return exec_err!(
                    "{} cannot be written as JSON: the keys of an object are text",
                    crate::types::sql_name(found)
                );
            }
            let (keys, elements) = (cast(maps.keys(), &DataType::Utf8)?, written(maps.values())?);
            let (keys, offsets) = (keys.as_string::<i32>(), maps.value_offsets());
            each(&|row| {
                let entries = offsets[row] as usize..offsets[row + 1] as usize;
                object_of(entries.map(|entry| (keys.value(entry), elements[entry].as_deref())))
            })
        }
        found if found.is_numeric() || *found == DataType::Boolean => {
            let texts = cast(values, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            each(&|row| texts.value(row).to_owned())
        }
        _ => {
            let texts = cast(values, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            each(&|row| Value::from(texts.value(row)).to_string())
        }
    })
}

fn array_of(elements: &[Option<String>]) -> String {
    let elements: Vec<&str> = elements
        .iter()
        .map(|element| element.as_deref().unwrap_or("null"))
        .collect();
    format!("[{}]", elements.join(","))
}

/// Writes an object; of two entries with one name the last counts.
fn object_of<'a>(entries: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let entries: BTreeMap<&str, &str> = entries.map(|(name, value)| (name, value.unwrap_or("null"))).collect();
    let mut text = String::from("{");
    for (name, value) in entries {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&Value::from(name).to_string());
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
    text
}

pub(super) fn json_string(args: &Args<'_>) -> Result<ArrayRef> {
    let values = written(&args.array(0)?)?;
    args.texts(|row| values[row].as_deref())
}

/// What a call says of its values, besides the values.
struct Flags<'a> {
    /// Whether nulls are written.
    nulls: bool,
    /// Of each value `r` if it is JSON already.
    values: &'a [u8],
}

fn flags<'a>(args: &'a Args<'_>) -> Result<Flags<'a>> {
    match args.text(0).get(0).map(str::as_bytes) {
        Some([nulls @ (b'n' | b'a'), values @ ..]) => Ok(Flags {
            nulls: *nulls == b'n',
            values,
        }),
        _ => exec_err!("a JSON function was called without what it does with nulls"),
    }
}

/// Writes the argument that is the value of a number.
fn value(args: &Args<'_>, flags: &Flags<'_>, number: usize, index: usize) -> Result<Vec<Option<String>>> {
    let values = args.array(index)?;
    match flags.values.get(number) {
        Some(b'r') => {
            let texts = cast(&values, &DataType::Utf8)?;
            Ok(texts
                .as_string::<i32>()
                .iter()
                .map(|text| text.map(str::to_owned))
                .collect())
        }
        Some(_) => written(&values),
        None => exec_err!("a JSON function was called with a value too many"),
    }
}

/// Returns a column of names; a null is no name.
fn names(args: &Args<'_>, index: usize) -> Result<Vec<String>> {
    let values = args.array(index)?;
    if !values.data_type().is_string() {
        return exec_err!(
            "a key of {} is text, not {}",
            function(args),
            crate::types::sql_name(values.data_type())
        );
    }
    let texts = cast(&values, &DataType::Utf8)?;
    let mut names = Vec::with_capacity(args.rows);
    for text in texts.as_string::<i32>() {
        match text {
            Some(text) => names.push(text.to_owned()),
            None => return exec_err!("a key of {} is null; leave such rows out", function(args)),
        }
    }
    Ok(names)
}

/// Returns the name that the call has in the text.
fn function(args: &Args<'_>) -> String {
    match args.name() {
        "json_entry" => "JSON_OBJECTAGG".to_owned(),
        other => other.to_uppercase(),
    }
}

pub(super) fn json_array(args: &Args<'_>) -> Result<ArrayRef> {
    let flags = flags(args)?;
    let columns = (1..args.len()).map(|index| value(args, &flags, index - 1, index));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    args.texts(|row| {
        let values = columns.iter().map(|column| column[row].as_deref());
        let values: Vec<&str> = match flags.nulls {
            true => values.map(|value| value.unwrap_or("null")).collect(),
            false => values.flatten().collect(),
        };
        Some(format!("[{}]", values.join(",")))
    })
}

pub(super) fn json_object(args: &Args<'_>) -> Result<ArrayRef> {
    let flags = flags(args)?;
    let entries = (1..args.len()).step_by(2).enumerate();
    let entries = entries.map(|(number, index)| Ok((names(args, index)?, value(args, &flags, number, index + 1)?)));
    let entries = entries.collect::<Result<Vec<_>>>()?;
    args.texts(|row| {
        let entries = entries
            .iter()
            .map(|(names, values)| (names[row].as_str(), values[row].as_deref()));
        Some(object_of(entries.filter(|(_, value)| flags.nulls || value.is_some())))
    })
}

/// An element of `JSON_ARRAYAGG`; null where none is written.
pub(super) fn json_element(args: &Args<'_>) -> Result<ArrayRef> {
    let flags = flags(args)?;
    let values = value(args, &flags, 0, 1)?;
    args.texts(|row| values[row].as_deref().or(flags.nulls.then_some("null")))
}

/// An entry of `JSON_OBJECTAGG`; null where none is written.
pub(super) fn json_entry(args: &Args<'_>) -> Result<ArrayRef> {
    let flags = flags(args)?;
    let (names, values) = (names(args, 1)?, value(args, &flags, 0, 2)?);
    args.texts(|row| {
        let value = values[row].as_deref().or(flags.nulls.then_some("null"))?;
        Some(format!("{}:{value}", Value::from(names[row].as_str())))
    })
}

/// `JSON(text)`: the text, which must be JSON; null if there is none.
pub(super) fn json_checked(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0);
    for row in 0..args.rows {
        if let Some(text) = text.get(row).filter(|text| !text.trim().is_empty())
            && let Err(error) = serde_json::from_str::<IgnoredAny>(text)
        {
            return exec_err!("JSON(text) of a text that is no JSON: {error}");
        }
    }
    args.texts(|row| text.get(row).map(str::trim).filter(|text| !text.is_empty()))
}
