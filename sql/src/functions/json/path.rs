//! Values at paths: `JSON_VALUE`, `JSON_QUERY` and `JSON_EXISTS`.
//!
//! Paths are SQL/JSON's: `$`, `.name`, `['name']`, `[n]`, `[*]` and `.*`, after an optional `lax` or `strict`. Where a
//! `strict` path finds nothing, or something of another kind than is asked for, that is an error; else it is empty. Text
//! that is no JSON is always an error.

use super::super::native::{Args, Each, texts};
use arrow::array::{Array, ArrayRef, ListArray, ListBuilder, StringArray, StringBuilder, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, interleave};
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err};
use serde_json::Value;
use std::sync::Arc;

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
    All,
}

/// Steps from a document inwards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path {
    steps: Vec<Step>,
    strict: bool,
}

fn parse_path(path: &str) -> Option<Path> {
    let path = path.trim();
    let (mode, behind) = path.split_once(char::is_whitespace).unwrap_or(("", path));
    let (path, strict) = match mode.to_ascii_lowercase().as_str() {
        "lax" => (behind, false),
        "strict" => (behind, true),
        _ => (path, false),
    };
    let mut rest = path.trim_start().strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('.') {
            if let Some(behind) = behind.strip_prefix('*') {
                steps.push(Step::All);
                rest = behind;
                continue;
            }
            // A dot may stand before a name in brackets.
            if behind.starts_with('[') {
                rest = behind;
                continue;
            }
            let end = behind.find(['.', '[']).unwrap_or(behind.len());
            let name = behind[..end].trim();
            if name.is_empty() {
                return None;
            }
            steps.push(Step::Name(name.trim_matches('"').to_owned()));
            rest = &behind[end..];
        } else {
            let behind = rest.strip_prefix('[')?;
            let quote = behind.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let (inside, behind) = match quote {
                Some(quote) => {
                    let (name, behind) = behind[1..].split_once(quote)?;
                    steps.push(Step::Name(name.to_owned()));
                    ("", behind.trim_start().strip_prefix(']')?)
                }
                None => behind.split_once(']')?,
            };
            match inside.trim() {
                "" if quote.is_some() => {}
                "*" => steps.push(Step::All),
                index => steps.push(Step::Index(index.parse().ok()?)),
            }
            rest = behind;
        }
    }
    Some(Path { steps, strict })
}

/// Follows a path; several values behind a `*`.
fn follow<'a>(value: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found
            .into_iter()
            .flat_map(|value| match (step, value) {
                (Step::Name(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
                (Step::Index(index), Value::Array(values)) => values.get(*index).into_iter().collect(),
                (Step::All, Value::Array(values)) => values.iter().collect(),
                (Step::All, Value::Object(fields)) => fields.values().collect(),
                _ => Vec::new(),
            })
            .collect();
    }
    found
}

/// What a path finds in a document.
enum Found<'a> {
    Value(&'a Value),
    /// The values behind a `*`.
    Several(Vec<&'a Value>),
    Nothing,
    /// There is an error, which says why.
    Error(&'static str),
}

/// What is given of a row.
enum Given<T> {
    Null,
    Value(T),
    Empty,
    Error(&'static str),
}

impl<T> Given<T> {
    /// What is asked for is not there: an error of a `strict` path.
    fn missing(strict: bool, why: &'static str) -> Self {
        if strict { Self::Error(why) } else { Self::Empty }
    }
}

/// Gives what each row's path finds in its document to `of`, with whether the path is strict; a literal path is understood
/// once.
fn each<T>(args: &Args<'_>, of: impl Fn(Found<'_>, bool) -> Given<T>) -> Result<Vec<Given<T>>> {
    let (text, path) = (args.text(0), args.text(1));
    let mut known: Option<(String, Path)> = None;
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let (Some(text), Some(path)) = (text.get(row), path.get(row)) else {
            values.push(Given::Null);
            continue;
        };
        if known.as_ref().is_none_or(|(written, _)| written != path) {
            let Some(understood) = parse_path(path) else {
                return exec_err!("'{path}' is no JSON path; write '$.name', '$.list[0]' or '$[*].name'");
            };
            known = Some((path.to_owned(), understood));
        }
        let Some((_, path)) = &known else { continue };
        values.push(match serde_json::from_str::<Value>(text) {
            Ok(document) => {
                let found = follow(&document, &path.steps);
                let found = match found.as_slice() {
                    _ if path.steps.contains(&Step::All) => Found::Several(found),
                    [value] => Found::Value(value),
                    _ if path.strict => Found::Error("the path leads to nothing"),
                    _ => Found::Nothing,
                };
                of(found, path.strict)
            }
            Err(_) => of(Found::Error("the text is no JSON"), path.strict),
        });
    }
    Ok(values)
}

/// What is given instead of what is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    Null,
    Error,
    Default,
    EmptyArray,
    EmptyObject,
    True,
    False,
}

/// Returns what is given instead: the words of an argument, from the one of this number on.
fn instead(args: &Args<'_>, first: usize) -> Result<[Instead; 2]> {
    let words: Each<'_, StringArray> = args.text(2);
    let mut words = words.get(0).unwrap_or("").split(' ').skip(first);
    let mut next = || match words.next() {
        None | Some("" | "NULL" | "UNKNOWN") => Ok(Instead::Null),
        Some("ERROR") => Ok(Instead::Error),
        Some("DEFAULT") => Ok(Instead::Default),
        Some("EMPTY_ARRAY") => Ok(Instead::EmptyArray),
        Some("EMPTY_OBJECT") => Ok(Instead::EmptyObject),
        Some("TRUE") => Ok(Instead::True),
        Some("FALSE") => Ok(Instead::False),
        Some(other) => exec_err!("{other} is no behaviour of a JSON function"),
    };
    Ok([next()?, next()?])
}

fn failed<T>(args: &Args<'_>, row: usize, why: &str) -> Result<T> {
    let path = args.text(1);
    exec_err!(
        "{} of the path '{}' has an error, as its ERROR ON ... asks for: {why}",
        args.name().to_uppercase(),
        path.get(row).unwrap_or("")
    )
}

/// The scalar at a path, as text or of the type behind `RETURNING`.
pub(super) fn json_value(args: &Args<'_>) -> Result<ArrayRef> {
    let given = each(args, |found, strict| match found {
        Found::Value(Value::String(text)) => Given::Value(text.clone()),
        Found::Value(Value::Number(number)) => Given::Value(number.to_string()),
        Found::Value(Value::Bool(value)) => Given::Value(value.to_string()),
        Found::Value(Value::Null) | Found::Nothing => Given::Empty,
        Found::Value(_) | Found::Several(_) => Given::missing(strict, "it is not a single value"),
        Found::Error(why) => Given::Error(why),
    })?;
    let scalars = args.texts(|row| match &given[row] {
        Given::Value(text) => Some(text.as_str()),
        _ => None,
    })?;
    if args.len() == 2 {
        return Ok(scalars);
    }
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    let values = cast_with_options(&scalars, args.gives, &options)?;
    let [on_empty, on_error] = instead(args, 0)?;
    // Of each row: where its value is, and its place there.
    let mut places = Vec::with_capacity(args.rows);
    for (row, given) in given.iter().enumerate() {
        let (behaviour, default, why) = match given {
            Given::Null => (Instead::Null, 0, ""),
            Given::Value(_) if values.is_valid(row) => {
                places.push((0, row));
                continue;
            }
            Given::Value(_) => (on_error, 2, "its value is not of the type behind RETURNING"),
            Given::Empty => (on_empty, 1, "there is nothing at the path"),
            Given::Error(why) => (on_error, 2, *why),
        };
        places.push(match behaviour {
            Instead::Error => return failed(args, row, why),
            Instead::Default => (default, row),
            _ => (3, 0),
        });
    }
    let null = new_null_array(args.gives, 1);
    Ok(interleave(
        &[&values, &args.array(3)?, &args.array(4)?, &null],
        &places,
    )?)
}

/// The object or array at a path as JSON; all values behind a `*` as an array.
pub(super) fn json_query(args: &Args<'_>) -> Result<ArrayRef> {
    let words = args.text(2);
    let wrapper = words
        .get(0)
        .and_then(|words| words.split(' ').next())
        .unwrap_or("WITHOUT");
    let as_list = matches!(args.gives, DataType::List(_));
    let given = each(args, |found, strict| {
        let (value, is_array) = match found {
            Found::Nothing | Found::Value(Value::Null) => return Given::Empty,
            Found::Error(why) => return Given::Error(why),
            Found::Several(values) => (Value::from_iter(values.into_iter().cloned()), true),
            Found::Value(value) => (value.clone(), value.is_array()),
        };
        let value = match wrapper {
            "UNCONDITIONAL" => Value::Array(vec![value]),
            "CONDITIONAL" if !is_array => Value::Array(vec![value]),
            _ => value,
        };
        match value {
            Value::Array(_) => Given::Value(value),
            Value::Object(_) if as_list => Given::Error("it is not an array, which RETURNING asks for"),
            Value::Object(_) => Given::Value(value),
            _ => Given::missing(strict, "it is neither an object nor an array; a WRAPPER makes it one"),
        }
    })?;
    let [on_empty, on_error] = instead(args, 1)?;
    let mut values: Vec<Option<Value>> = Vec::with_capacity(args.rows);
    for (row, given) in given.into_iter().enumerate() {
        let (behaviour, why) = match given {
            Given::Null => (Instead::Null, ""),
            Given::Value(value) => {
                values.push(Some(value));
                continue;
            }
            Given::Empty => (on_empty, "there is no object or array at the path"),
            Given::Error(why) => (on_error, why),
        };
        values.push(match behaviour {
            Instead::Error => return failed(args, row, why),
            Instead::EmptyArray => Some(Value::Array(Vec::new())),
            Instead::EmptyObject if as_list => return failed(args, row, "EMPTY OBJECT is not an array"),
            Instead::EmptyObject => Some(Value::Object(serde_json::Map::new())),
            _ => None,
        });
    }
    match args.gives {
        DataType::List(_) => lists(&values, args.gives),
        _ => args.texts(|row| values[row].as_ref().map(Value::to_string)),
    }
}

/// Makes arrays of text: texts as they are, other elements as JSON.
fn lists(values: &[Option<Value>], gives: &DataType) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for value in values {
        for element in value.iter().filter_map(Value::as_array).flatten() {
            match element {
                Value::Null => builder.values().append_null(),
                Value::String(text) => builder.values().append_value(text),
                other => builder.values().append_value(other.to_string()),
            }
        }
        builder.append(value.is_some());
    }
    let lists: ListArray = builder.finish();
    match (*gives == texts(), gives) {
        (false, DataType::List(item)) => {
            let (_, offsets, values, nulls) = lists.into_parts();
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
        }
        _ => Ok(Arc::new(lists)),
    }
}

pub(super) fn json_exists(args: &Args<'_>) -> Result<ArrayRef> {
    let given = each(args, |found, _| match found {
        Found::Several(values) => Given::Value(!values.is_empty()),
        Found::Value(_) => Given::Value(true),
        Found::Nothing => Given::Value(false),
        Found::Error(why) => Given::Error(why),
    })?;
    let on_error = match args.len() {
        2 => Instead::False,
        _ => instead(args, 0)?[0],
    };
    let mut values = Vec::with_capacity(args.rows);
    for (row, given) in given.iter().enumerate() {
        values.push(match given {
            Given::Value(value) => Some(*value),
            Given::Error(why) => match on_error {
                Instead::Error => return failed(args, row, why),
                Instead::True => Some(true),
                Instead::False => Some(false),
                _ => None,
            },
            _ => None,
        });
    }
    args.booleans(|row| values[row])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood_or_not() {
        let name = |name: &str| Step::Name(name.into());
        let path = |steps: Vec<Step>, strict: bool| Some(Path { steps, strict });
        assert_eq!(
            parse_path("lax $.a[0]['b c'].*"),
            path(vec![name("a"), Step::Index(0), name("b c"), Step::All], false)
        );
        assert_eq!(parse_path("STRICT $"), path(vec![], true));
        assert_eq!(
            parse_path("$.[\"a.b\"][0]"),
            path(vec![name("a.b"), Step::Index(0)], false)
        );
        for wrong in ["", "a", "$a", "$.", "$[", "$[x]", "$['a'", "$[0"] {
            assert_eq!(parse_path(wrong), None, "{wrong}");
        }
    }
}
