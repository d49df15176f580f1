//! Constraints of all fields, in one message and in the service's words.

use super::error::ApiError;
use super::item::{Fields, Item};
use super::shape::{Field, Kind};
use crate::limits::VALIDATION_ERRORS_MAX;

/// Checks a request.
pub(crate) fn request(fields: &Fields, shape: &'static [Field]) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    structure("", fields, shape, &mut errors);
    outcome(errors)
}

/// One message of all errors, if there are any.
pub(crate) fn outcome(mut errors: Vec<String>) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    errors.truncate(VALIDATION_ERRORS_MAX);
    let count = errors.len();
    let plural = if count == 1 { "" } else { "s" };
    Err(ApiError::validation(format!(
        "{count} validation error{plural} detected: {}",
        errors.join("; ")
    )))
}

/// The error of a field that is not there.
pub(crate) fn missing(path: &str) -> String {
    format!("Value null at '{path}' failed to satisfy constraint: Member must not be null")
}

fn structure(parent: &str, fields: &Fields, shape: &'static [Field], errors: &mut Vec<String>) {
    for field in shape {
        if errors.len() >= VALIDATION_ERRORS_MAX {
            return;
        }
        let path = format!("{parent}{}", lower_first(field.name));
        let Some(item) = fields.get(field.name) else {
            if field.required {
                errors.push(missing(&path));
            }
            continue;
        };
        constraints(&path, item, field, errors);
        match (item, field.kind) {
            (Item::Structure(inner), Kind::Structure(shape)) => structure(&format!("{path}."), inner, shape, errors),
            (Item::List(items), Kind::List(shape)) => {
                for (index, item) in items.iter().enumerate() {
                    if let Item::Structure(inner) = item {
                        structure(&format!("{path}.{}.member.", index + 1), inner, shape, errors);
                    }
                }
            }
            (Item::List(items), Kind::Texts(member)) => texts(&path, item, items, member, errors),
            _ => {}
        }
    }
}

/// The service tells the constraints of a member once, for the list as a whole.
fn texts(path: &str, list: &Item, items: &[Item], member: &Field, errors: &mut Vec<String>) {
    let mut broken = Vec::new();
    for item in items {
        constraints(path, item, member, &mut broken);
    }
    if broken.is_empty() {
        return;
    }
    let mut rules = Vec::new();
    if let Some(max) = member.max {
        rules.push(format!("Member must have length less than or equal to {max}"));
    }
    if let Some(min) = member.min {
        rules.push(format!("Member must have length greater than or equal to {min}"));
    }
    if !member.values.is_empty() {
        rules.push(format!(
            "Member must satisfy enum value set: [{}]",
            member.values.join(", ")
        ));
    }
    errors.push(format!(
        "Value '{}' at '{path}' failed to satisfy constraint: Member must satisfy constraint: [{}]",
        shown(list),
        rules.join(", ")
    ));
}

fn constraints(path: &str, item: &Item, field: &Field, errors: &mut Vec<String>) {
    let mut fail = |constraint: String| {
        errors.push(format!(
            "Value '{}' at '{path}' failed to satisfy constraint: {constraint}",
            shown(item)
        ));
    };
    if let (Some(pattern), Item::Text(text)) = (field.pattern, item)
        && !pattern.matches(text)
    {
        fail(format!(
            "Member must satisfy regular expression pattern: {}",
            pattern.text()
        ));
    }
    let (what, size) = match item {
        Item::Text(text) => ("length", text.chars().count() as i64),
        Item::Blob(bytes) => ("length", bytes.len() as i64),
        Item::List(items) => ("length", items.len() as i64),
        Item::Map(entries) => ("length", entries.len() as i64),
        Item::Integer(number) => ("value", *number),
        _ => ("value", 0),
    };
    if let Some(min) = field.min.filter(|min| size < *min) {
        fail(format!("Member must have {what} greater than or equal to {min}"));
    }
    if let Some(max) = field.max.filter(|max| size > *max) {
        fail(format!("Member must have {what} less than or equal to {max}"));
    }
    if let Item::Text(text) = item
        && !field.values.is_empty()
        && !field.values.contains(&text.as_str())
    {
        fail(format!(
            "Member must satisfy enum value set: [{}]",
            field.values.join(", ")
        ));
    }
    if let Item::Map(entries) = item {
        let length = |item: &Item| {
            if let Item::Text(text) = item {
                text.chars().count()
            } else {
                0
            }
        };
        if entries.iter().any(|(key, _)| !(1..=128).contains(&key.chars().count())) {
            fail("Map keys must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]".to_owned());
        }
        if entries.iter().any(|(_, value)| length(value) > 256) {
            fail("Map value must satisfy constraint: [Member must have length less than or equal to 256, Member must have length greater than or equal to 0]".to_owned());
        }
    }
}

/// A value as the service shows it.
fn shown(item: &Item) -> String {
    match item {
        Item::Text(text) => text.clone(),
        Item::Integer(number) => number.to_string(),
        Item::Flag(flag) => flag.to_string(),
        Item::Time(ms) => ms.to_string(),
        Item::Blob(bytes) => format!("java.nio.HeapByteBuffer[pos=0 lim={0} cap={0}]", bytes.len()),
        Item::List(items) => {
            let member = |item: &Item| match item {
                Item::Structure(_) => "com.amazonaws.kinesis.v20131202.PutRecordsRequestEntry@c965e310".to_owned(),
                other => shown(other),
            };
            format!("[{}]", items.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        Item::Map(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{key}={}", shown(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Item::Structure(_) => "{}".to_owned(),
    }
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
