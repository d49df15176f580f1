//! JSON in text: `JSON_VALUE`, `JSON_QUERY`, `JSON_EXISTS`, `IS JSON` and what makes JSON.
//!
//! What stands inside calls as clauses comes as arguments ([`crate::json_syntax`]).
//!
//! File map: `path` finds values, `write` makes JSON of values.

mod path;
mod write;

use super::native::{Args, Gives, Native, REPEATED_OR_NONE, Takes};
use arrow::array::ArrayRef;
use datafusion_common::Result;
use serde_json::Value;

use Takes::{Any, Text};

const fn native(
    name: &'static str,
    takes: &'static [Takes],
    needed: usize,
    gives: Gives,
    eval: fn(&Args<'_>) -> Result<ArrayRef>,
) -> Native {
    Native {
        name,
        takes,
        needed,
        gives,
        eval,
    }
}

pub(super) const FUNCTIONS: &[Native] = &[
    // A document, a path, what is given where nothing is found and on errors, and both defaults.
    native(
        "json_value",
        &[Text, Text, Text, Any, Any],
        2,
        Gives::Single(3),
        path::json_value,
    ),
    // A document, a path, the wrapper and what is given where nothing is found and on errors, and a null of the type.
    native(
        "json_query",
        &[Text, Text, Text, Any],
        2,
        Gives::TextOrTexts(3),
        path::json_query,
    ),
    native("json_exists", &[Text, Text, Text], 2, Gives::Boolean, path::json_exists),
    native("is_json", &[Text, Text], 1, Gives::Boolean, is_json),
    native("json_string", &[Any], 1, Gives::Text, write::json_string),
    native("json_quote", &[Text], 1, Gives::Text, json_quote),
    native("json_unquote", &[Text], 1, Gives::Text, json_unquote),
    // Flags and values; the others have keys before values.
    native(
        "json_array",
        &[Text, Any],
        REPEATED_OR_NONE,
        Gives::Text,
        write::json_array,
    ),
    native(
        "json_object",
        &[Text, Any],
        REPEATED_OR_NONE,
        Gives::Text,
        write::json_object,
    ),
    native("json_element", &[Text, Any], 2, Gives::Text, write::json_element),
    native("json_entry", &[Text, Any, Any], 3, Gives::Text, write::json_entry),
    native("json_checked", &[Text], 1, Gives::Text, write::json_checked),
];

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
