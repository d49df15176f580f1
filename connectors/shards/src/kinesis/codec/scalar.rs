//! Single values to items, and what the service says of values that do not fit their type.

use super::super::error::ApiError;
use super::super::item::Item;
use super::super::shape::Kind;

/// A value that holds no others, as a codec found it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar<'a> {
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text(&'a str),
    Bytes,
}

/// What holds others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Container {
    List,
    Map,
}

/// The item of a value. Timestamps and blobs are the codec's own: here they never fit.
pub(super) fn item(value: Scalar<'_>, kind: Kind) -> Result<Item, ApiError> {
    let serialization = |text: String| Err(ApiError::serialization(text));
    match (kind, value) {
        (Kind::List(_) | Kind::Texts(_), _) => serialization("Expected list or null".to_owned()),
        (Kind::Map, _) => serialization("Expected map or null".to_owned()),
        (Kind::Structure(_), _) => serialization("Expected null".to_owned()),
        (Kind::Text, Scalar::Text(text)) => Ok(Item::Text(text.to_owned())),
        (Kind::Integer, Scalar::Whole(number)) => Ok(Item::Integer(clamp(number))),
        (Kind::Integer, Scalar::Real(number)) => Ok(Item::Integer(clamp(number.floor() as i64))),
        (Kind::Boolean, Scalar::Flag(flag)) => Ok(Item::Flag(flag)),
        (Kind::Boolean, Scalar::Text(text)) => match text.to_ascii_uppercase().as_str() {
            "TRUE" => Ok(Item::Flag(true)),
            "FALSE" => Ok(Item::Flag(false)),
            other => serialization(format!("'{other}' can not be converted to an Boolean")),
        },
        (kind, value) => {
            let class = match value {
                Scalar::Flag(_) => "java.lang.Boolean",
                Scalar::Whole(_) | Scalar::Real(_) => "com.amazon.coral.value.json.numbers.TruncatingBigNumber",
                Scalar::Text(_) => "java.lang.String",
                Scalar::Bytes => "java.nio.HeapByteBuffer",
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

/// A list, structure or map where the shape has something else.
pub(super) fn unexpected(container: Container) -> ApiError {
    ApiError::serialization(match container {
        Container::List => "Start of list found where not expected",
        Container::Map => "Start of structure or map found where not expected.",
    })
}

/// A timestamp from its milliseconds.
pub(super) fn time(ms: f64) -> Result<Item, ApiError> {
    if ms.is_finite() {
        // Half a millisecond may be lost in a double: round.
        Ok(Item::Time(ms.round() as i64))
    } else {
        Err(ApiError::serialization("the timestamp is out of range"))
    }
}

/// The service takes what is beyond 32 bits for the nearest number that is not.
fn clamp(number: i64) -> i64 {
    number.clamp(i64::from(i32::MIN), i64::from(i32::MAX))
}
