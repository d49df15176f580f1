//! JSON in text: `JSON_VALUE`, `JSON_QUERY`, `JSON_EXISTS`, `IS JSON` and what makes JSON.
//!
//! Paths are SQL/JSON's: `$`, `.name`, `['name']`, `[n]`, `[*]` and `.*`, after an optional `lax` or `strict`, which differ
//! only in errors that are null here.

use super::native::{Args, Gives, Native, REPEATED, Takes};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{Result, exec_err};
use serde_json::Value;

use Takes::{Any, Text};

pub(super) const FUNCTIONS: &[Native] = &[
    Native {
        name: "json_value",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Text,
        eval: json_value,
    },
    Native {
        name: "json_query",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Text,
        eval: json_query,
    },
    Native {
        name: "json_exists",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Boolean,
        eval: json_exists,
    },
    Native {
        name: "is_json",
        takes: &[Text, Text],
        needed: 1,
        gives: Gives::Boolean,
        eval: is_json,
    },
    Native {
        name: "json_string",
        takes: &[Any],
        needed: 1,
        gives: Gives::Text,
        eval: json_string,
    },
    Native {
        name: "json_quote",
        takes: &[Text],
        needed: 1,
        gives: Gives::Text,
        eval: json_quote,
    },
    Native {
        name: "json_unquote",
        takes: &[Text],
        needed: 1,
        gives: Gives::Text,
        eval: json_unquote,
    },
    Native {
        name: "json_array",
        takes: &[Any],
        needed: REPEATED,
        gives: Gives::Text,
        eval: json_array,
    },
];

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
    All,
}

fn parse_path(path: &str) -> Option<Vec<Step>> {
    let path = path.trim();
    let path = path
        .strip_prefix("lax ")
        .or_else(|| path.strip_prefix("strict "))
        .unwrap_or(path);
    let mut rest = path.trim_start().strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('.') {
            if let Some(behind) = behind.strip_prefix('*') {
                steps.push(Step::All);
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
    Some(steps)
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

/// Gives each row's document and path to `of`; a literal path is understood once.
fn each<T>(args: &Args<'_>, of: impl Fn(&[&Value], bool) -> Option<T>) -> Result<Vec<Option<T>>> {
    let (text, path) = (args.text(0), args.text(1));
    let mut known: Option<(String, Vec<Step>)> = None;
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let (Some(text), Some(path)) = (text.get(row), path.get(row)) else {
            values.push(None);
            continue;
        };
        if known.as_ref().is_none_or(|(written, _)| written != path) {
            let Some(steps) = parse_path(path) else {
                return exec_err!("'{path}' is no JSON path; write '$.name', '$.list[0]' or '$[*].name'");
            };
            known = Some((path.to_owned(), steps));
        }
        let steps: &[Step] = known.as_ref().map_or(&[], |(_, steps)| steps);
        let several = steps.contains(&Step::All);
        values.push(match serde_json::from_str::<Value>(text) {
            Ok(document) => of(&follow(&document, steps), several),
            Err(_) => of(&[], several),
        });
    }
    Ok(values)
}

/// The scalar at a path as text; null where there is none.
fn json_value(args: &Args<'_>) -> Result<ArrayRef> {
    let values = each(args, |found, _| match found {
        [Value::String(text)] => Some(text.clone()),
        [Value::Number(number)] => Some(number.to_string()),
        [Value::Bool(value)] => Some(value.to_string()),
        _ => None,
    })?;
    args.texts(|row| values[row].as_deref())
}

/// The object or array at a path as JSON; all values behind a `*` as an array.
fn json_query(args: &Args<'_>) -> Result<ArrayRef> {
    let values = each(args, |found, several| match found {
        [] => None,
        found if several => serde_json::to_string(found).ok(),
        [value @ (Value::Object(_) | Value::Array(_))] => Some(value.to_string()),
        _ => None,
    })?;
    args.texts(|row| values[row].as_deref())
}

fn json_exists(args: &Args<'_>) -> Result<ArrayRef> {
    let values = each(args, |found, _| Some(!found.is_empty()))?;
    args.booleans(|row| values[row])
}

/// Says whether a text is JSON, of a kind if one is named; as in Flink, a null is not.
fn is_json(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, kind) = (args.text(0), args.text(1));
    args.booleans(|row| {
        let parsed = text.get(row).and_then(|text| serde_json::from_str::<Value>(text).ok());
        Some(parsed.is_some_and(|value| match kind.get(row) {
            Some("OBJECT") => value.is_object(),
            Some("ARRAY") => value.is_array(),
            Some("SCALAR") => !value.is_object() && !value.is_array(),
            _ => true,
        }))
    })
}

/// Writes the values of an argument as JSON, row by row; `None` for null.
fn written(args: &Args<'_>, index: usize) -> Result<Vec<Option<String>>> {
    let values = args.array(index)?;
    let rows = 0..args.rows;
    let found = values.data_type();
    match found {
        DataType::Null => Ok(vec![None; args.rows]),
        DataType::Float32 | DataType::Float64 => {
            let values = cast(&values, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            Ok(rows
                .map(|row| values.is_valid(row).then(|| Value::from(values.value(row)).to_string()))
                .collect())
        }
        found if found.is_numeric() || *found == DataType::Boolean => {
            let values = cast(&values, &DataType::Utf8)?;
            let values = values.as_string::<i32>();
            Ok(rows
                .map(|row| values.is_valid(row).then(|| values.value(row).to_owned()))
                .collect())
        }
        found if found.is_nested() => exec_err!(
            "{} cannot be written as JSON here; write it into a table with 'format' = 'json'",
            crate::types::sql_name(found)
        ),
        _ => {
            let values = cast(&values, &DataType::Utf8)?;
            let values = values.as_string::<i32>();
            Ok(rows
                .map(|row| values.is_valid(row).then(|| Value::from(values.value(row)).to_string()))
                .collect())
        }
    }
}

fn json_string(args: &Args<'_>) -> Result<ArrayRef> {
    let values = written(args, 0)?;
    args.texts(|row| values[row].as_deref())
}

/// Nulls are left out, as `ABSENT ON NULL` says, which is Flink's default for arrays.
fn json_array(args: &Args<'_>) -> Result<ArrayRef> {
    let columns = (0..args.len())
        .map(|index| written(args, index))
        .collect::<Result<Vec<_>>>()?;
    args.texts(|row| {
        let values: Vec<&str> = columns.iter().filter_map(|column| column[row].as_deref()).collect();
        Some(format!("[{}]", values.join(",")))
    })
}

fn json_quote(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0);
    args.texts(|row| Some(Value::from(text.get(row)?).to_string()))
}

/// Takes the quotes of a JSON text away; other text stays.
fn json_unquote(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0);
    args.texts(|row| {
        let text = text.get(row)?;
        Some(match serde_json::from_str::<Value>(text) {
            Ok(Value::String(inner)) => inner,
            _ => text.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood_or_not() {
        let name = |name: &str| Step::Name(name.into());
        assert_eq!(
            parse_path("lax $.a[0]['b c'].*"),
            Some(vec![name("a"), Step::Index(0), name("b c"), Step::All])
        );
        assert_eq!(parse_path("$"), Some(vec![]));
        for wrong in ["", "a", "$a", "$.", "$[", "$[x]", "$['a'", "$[0"] {
            assert_eq!(parse_path(wrong), None, "{wrong}");
        }
    }
}
