//! JSON to items, by the shape of the operation. Whatever does not fit its type is a SerializationException, in the
//! service's words; fields that the shape does not have are ignored, as the service does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::error::ApiError;
use super::item::{Fields, Item};
use super::shape::{Field, Kind};

/// Decodes the body of a request.
pub(crate) fn request(body: &[u8], fields: &'static [Field]) -> Result<Fields, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(mut object)) => structure(&mut object, fields),
        _ => Err(ApiError::bare("SerializationException")),
    }
}

fn structure(object: &mut serde_json::Map<String, Value>, fields: &'static [Field]) -> Result<Fields, ApiError> {
    let mut out = Vec::new();
    for field in fields {
        match object.remove(field.name) {
            None | Some(Value::Null) => {}
            Some(value) => out.push((field.name, item(value, field.kind)?)),
        }
    }
    Ok(Fields(out))
}

fn item(value: Value, kind: Kind) -> Result<Item, ApiError> {
    let serialization = |text: String| Err(ApiError::serialization(text));
    let unexpected = |what: &str| serialization(format!("Start of {what} found where not expected"));
    match (kind, value) {
        (Kind::List(_) | Kind::Texts(_), Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            serialization("Expected list or null".to_owned())
        }
        (Kind::Map, Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            serialization("Expected map or null".to_owned())
        }
        (Kind::Structure(_), Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            serialization("Expected null".to_owned())
        }
        (Kind::List(fields), Value::Array(values)) => {
            let items = values.into_iter().map(|value| item(value, Kind::Structure(fields)));
            Ok(Item::List(items.collect::<Result<_, _>>()?))
        }
        (Kind::Texts(member), Value::Array(values)) => {
            let items = values.into_iter().map(|value| item(value, member.kind));
            Ok(Item::List(items.collect::<Result<_, _>>()?))
        }
        (Kind::Structure(fields), Value::Object(mut object)) => Ok(structure(&mut object, fields)?.into()),
        (Kind::Map, Value::Object(object)) => {
            let entries = object.into_iter().filter(|(_, value)| !value.is_null());
            let entries = entries.map(|(key, value)| Ok((key, item(value, Kind::Text)?)));
            Ok(Item::Map(entries.collect::<Result<_, ApiError>>()?))
        }
        (_, Value::Array(_)) => unexpected("list"),
        (_, Value::Object(_)) => unexpected("structure or map").map_err(|error: ApiError| error.with_full_stop()),
        (Kind::Text, Value::String(text)) => Ok(Item::Text(text)),
        (Kind::Integer, Value::Number(number)) => {
            let whole = number
                .as_i64()
                .or_else(|| number.as_f64().map(|number| number.floor() as i64));
            Ok(Item::Integer(
                whole
                    .unwrap_or(i64::MAX)
                    .clamp(i64::from(i32::MIN), i64::from(i32::MAX)),
            ))
        }
        (Kind::Boolean, Value::Bool(flag)) => Ok(Item::Flag(flag)),
        (Kind::Boolean, Value::String(text)) => match text.to_ascii_uppercase().as_str() {
            "TRUE" => Ok(Item::Flag(true)),
            "FALSE" => Ok(Item::Flag(false)),
            other => serialization(format!("'{other}' can not be converted to an Boolean")),
        },
        (Kind::Timestamp, Value::Number(number)) => match number.as_f64() {
            // Half a millisecond may be lost in a double: round.
            Some(seconds) => Ok(Item::Time((seconds * 1000.0).round() as i64)),
            None => serialization("the timestamp is out of range".to_owned()),
        },
        (Kind::Blob, Value::String(text)) => blob(&text),
        (kind, value) => {
            let class = match value {
                Value::Bool(_) => "java.lang.Boolean",
                Value::Number(_) => "com.amazon.coral.value.json.numbers.TruncatingBigNumber",
                _ => "java.lang.String",
            };
            let target = match kind {
                Kind::Text => "an String",
                Kind::Integer => "an Integer",
                Kind::Boolean => "an Boolean",
                Kind::Blob => "a Blob",
                _ => "milliseconds since epoch",
            };
            serialization(format!("class {class} can not be converted to {target}"))
        }
    }
}

fn blob(text: &str) -> Result<Item, ApiError> {
    if let Ok(bytes) = STANDARD.decode(text) {
        return Ok(Item::Blob(bytes.into()));
    }
    let reason = if !text.len().is_multiple_of(4) {
        format!(
            "Base64 encoded length is expected a multiple of 4 bytes but found: {}",
            text.len()
        )
    } else if let Some(bad) = text
        .chars()
        .find(|&c| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '/' | '='))
    {
        format!("Invalid Base64 character: '{bad}'")
    } else {
        // The service's own spelling.
        "Invalid last non-pad Base64 character dectected".to_owned()
    };
    Err(ApiError::serialization(format!(
        "'{text}' can not be converted to a Blob: {reason}"
    )))
}
