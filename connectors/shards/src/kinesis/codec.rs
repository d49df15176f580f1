//! The two codecs of requests and answers: JSON 1.1 and CBOR 1.1. Operations see [`Fields`] and never know which it was.
//!
//! Both decode straight by the shape of the operation, without a tree of values in between: a field that the shape does
//! not have is skipped, a value that does not fit its type is a SerializationException in the service's words. What a
//! body declares (lengths, counts) never decides how much memory is taken, and lists keep no more items than any
//! operation allows, so that a body of empty structures does not grow into a hundred times its size.
//!
//! | | JSON | CBOR |
//! |---|---|---|
//! | timestamp | seconds, with a fraction | tag 1 and milliseconds, a whole number; floats are read as milliseconds too |
//! | blob | base64 | byte string, read without a copy |
//! | answers | | maps and arrays of indefinite length, as the service writes them |
//!
//! | file | |
//! |---|---|
//! | `json.rs` | JSON 1.1 |
//! | `cbor.rs` | CBOR 1.1 |
//! | `scalar.rs` | single values to items, and what the service says when they do not fit |
//! | `draft.rs` | a structure while its fields come in |

mod cbor;
mod draft;
mod json;
mod scalar;

use bytes::Bytes;

use super::error::ApiError;
use super::item::{Fields, Item};
use super::shape::Field;

/// How bodies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// `application/x-amz-json-1.1`
    Json,
    /// `application/x-amz-cbor-1.1`
    Cbor,
}

impl Codec {
    /// The codec of a content type, which has no parameters.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        [Self::Json, Self::Cbor]
            .into_iter()
            .find(|codec| codec.content_type() == content_type)
    }

    /// The content type of requests and answers.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// The content type of the payload of an event.
    pub(crate) fn event_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// Decodes the body of a request.
    ///
    /// # Errors
    /// SerializationException.
    pub(crate) fn decode(self, body: &Bytes, shape: &'static [Field]) -> Result<Fields, ApiError> {
        match self {
            Self::Json => json::decode(body, shape),
            Self::Cbor => cbor::decode(body, shape),
        }
    }

    /// Appends an item.
    pub(crate) fn encode(self, item: &Item, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode(item, out),
            Self::Cbor => cbor::encode(item, out),
        }
    }

    /// The body of an answer.
    pub(crate) fn body(self, item: &Item) -> Vec<u8> {
        let mut out = Vec::with_capacity(item.encoded_bytes_guess());
        self.encode(item, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kinesis::shape::Kind;

    const INNER: &[Field] = &[
        Field::new("Blob", Kind::Blob),
        Field::new("Text", Kind::Text),
        Field::new("Time", Kind::Timestamp),
    ];
    const SHAPE: &[Field] = &[
        Field::new("Text", Kind::Text),
        Field::new("Integer", Kind::Integer),
        Field::new("Flag", Kind::Boolean),
        Field::new("Time", Kind::Timestamp),
        Field::new("Blob", Kind::Blob),
        Field::new("List", Kind::List(INNER)),
        Field::new("Structure", Kind::Structure(INNER)),
        Field::new("Map", Kind::Map),
    ];

    fn leaf(kind: Kind) -> BoxedStrategy<Item> {
        match kind {
            Kind::Integer => any::<i32>().prop_map(|number| Item::Integer(number.into())).boxed(),
            Kind::Boolean => any::<bool>().prop_map(Item::Flag).boxed(),
            // A double of seconds holds the milliseconds of some 280,000 years.
            Kind::Timestamp => (-8_000_000_000_000i64..8_000_000_000_000).prop_map(Item::Time).boxed(),
            Kind::Blob => prop::collection::vec(any::<u8>(), 0..300)
                .prop_map(|bytes| Item::Blob(bytes.into()))
                .boxed(),
            Kind::List(shape) => prop::collection::vec(structure(shape).prop_map(Item::from), 0..4)
                .prop_map(Item::List)
                .boxed(),
            Kind::Structure(shape) => structure(shape).prop_map(Item::from).boxed(),
            Kind::Map => prop::collection::btree_map(".{0,5}", ".{0,30}", 0..4)
                .prop_map(|map| Item::Map(map.into_iter().map(|(key, text)| (key, Item::Text(text))).collect()))
                .boxed(),
            _ => ".{0,30}".prop_map(Item::Text).boxed(),
        }
    }

    fn structure(shape: &'static [Field]) -> BoxedStrategy<Fields> {
        let fields: Vec<_> = shape
            .iter()
            .map(|field| prop::option::of(leaf(field.kind)).prop_map(|item| (field.name, item)))
            .collect();
        fields
            .prop_map(|fields| {
                Fields(
                    fields
                        .into_iter()
                        .filter_map(|(name, item)| Some((name, item?)))
                        .collect(),
                )
            })
            .boxed()
    }

    proptest! {
        #[test]
        fn json_and_cbor_of_a_request_are_the_same_fields(fields in structure(SHAPE)) {
            let item = Item::from(fields.clone());
            for codec in [Codec::Json, Codec::Cbor] {
                let body = Bytes::from(codec.body(&item));
                prop_assert_eq!(codec.decode(&body, SHAPE).unwrap(), fields.clone(), "{:?}", codec);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = Codec::Json.decode(&bytes, SHAPE);
            let _ = Codec::Cbor.decode(&bytes, SHAPE);
        }

        #[test]
        fn damaged_bodies_never_panic(fields in structure(SHAPE), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            for codec in [Codec::Json, Codec::Cbor] {
                let mut body = codec.body(&fields.clone().into());
                let at = at.index(body.len());
                if cut {
                    body.truncate(at);
                    // What is cut off is missing: no prefix is a whole body.
                    prop_assert!(codec.decode(&body.into(), SHAPE).is_err());
                } else {
                    body[at] = byte;
                    let _ = codec.decode(&body.into(), SHAPE);
                }
            }
        }
    }
}
