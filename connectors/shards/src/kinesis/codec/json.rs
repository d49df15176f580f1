//! JSON 1.1. The body is read once, from front to back; a value that does not fit its type is remembered, and told when
//! the rest has turned out to be JSON.

use std::cell::RefCell;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::error::ApiError;
use super::super::item::{Fields, Item};
use super::super::shape::{Field, Kind};
use super::draft::{self, Draft};
use super::scalar::{self, Container, Scalar};
use crate::limits::LIST_ITEMS_KEPT;

/// Decodes a request.
pub(super) fn decode(body: &[u8], shape: &'static [Field]) -> Result<Fields, ApiError> {
    let reading = RefCell::new(Reading {
        failure: None,
        blobs: BytesMut::new(),
        blob_bytes_max: body.len() / 4 * 3 + 3,
    });
    let mut json = serde_json::Deserializer::from_slice(body);
    let request = Structure {
        shape,
        reading: &reading,
    };
    let decoded = json
        .deserialize_map(request)
        .and_then(|fields| json.end().map(|()| fields));
    match (decoded, reading.into_inner().failure) {
        (Err(_), _) => Err(ApiError::bare("SerializationException")),
        (Ok(_), Some(failure)) => Err(failure),
        (Ok(fields), None) => Ok(fields),
    }
}

/// What is known while a body is read.
struct Reading {
    /// The first value that does not fit.
    failure: Option<ApiError>,
    /// Room for blobs: one allocation for all of a body.
    blobs: BytesMut,
    /// All blobs of the body have fewer bytes.
    blob_bytes_max: usize,
}

impl Reading {
    fn note(&mut self, item: Result<Item, ApiError>) -> Option<Item> {
        item.map_err(|error| self.failure.get_or_insert(error)).ok()
    }

    fn blob(&mut self, text: &str) -> Result<Item, ApiError> {
        let bytes = base64::decoded_len_estimate(text.len());
        if self.blobs.capacity() < bytes {
            self.blobs = BytesMut::with_capacity(bytes.max(self.blob_bytes_max));
        }
        self.blobs.resize(bytes, 0);
        match STANDARD.decode_slice(text, &mut self.blobs) {
            Ok(length) => {
                self.blobs.truncate(length);
                Ok(Item::Blob(self.blobs.split().freeze()))
            }
            Err(_) => Err(no_base64(text)),
        }
    }
}

fn no_base64(text: &str) -> ApiError {
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
    ApiError::serialization(format!("'{text}' can not be converted to a Blob: {reason}"))
}

/// The fields of a structure.
struct Structure<'r> {
    shape: &'static [Field],
    reading: &'r RefCell<Reading>,
}

impl<'de> Visitor<'de> for Structure<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a structure")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut draft = Draft::new(self.shape);
        while let Some(index) = map.next_key_seed(Key(&draft))? {
            match index {
                None => map.next_value_seed(Skip)?,
                Some(index) => {
                    let kind = draft.field(index).kind;
                    let item = map.next_value_seed(Value {
                        kind,
                        reading: self.reading,
                    })?;
                    draft.put(index, item);
                }
            }
        }
        Ok(draft.finish())
    }
}

/// The name of a field: its place in the shape.
struct Key<'d>(&'d Draft);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.index(name))
    }
}

/// A value of a kind; `None` is null, or one that does not fit.
struct Value<'r> {
    kind: Kind,
    reading: &'r RefCell<Reading>,
}

impl Value<'_> {
    fn scalar<E>(self, value: Scalar<'_>) -> Result<Option<Item>, E> {
        let mut reading = self.reading.borrow_mut();
        let item = match (self.kind, value) {
            (Kind::Timestamp, Scalar::Whole(seconds)) => scalar::time(seconds as f64 * 1000.0),
            (Kind::Timestamp, Scalar::Real(seconds)) => scalar::time(seconds * 1000.0),
            (Kind::Blob, Scalar::Text(text)) => reading.blob(text),
            (kind, value) => scalar::item(value, kind),
        };
        Ok(reading.note(item))
    }

    fn unexpected(&self, container: Container) -> Option<Item> {
        self.reading.borrow_mut().note(Err(scalar::unexpected(container)))
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Option<Item>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Item>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Option<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Option<Item>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Option<Item>, E> {
        self.scalar(Scalar::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Option<Item>, E> {
        self.scalar(Scalar::Whole(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<Item>, E> {
        self.scalar(Scalar::Whole(number.min(i64::MAX as u64) as i64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Option<Item>, E> {
        self.scalar(Scalar::Real(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Item>, E> {
        self.scalar(Scalar::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Item>, A::Error> {
        let (kind, absent) = match self.kind {
            Kind::List(shape) => (Kind::Structure(shape), Item::Structure(Fields::new())),
            Kind::Texts(member) => (member.kind, Item::Text(String::new())),
            _ => {
                while items.next_element_seed(Skip)?.is_some() {}
                return Ok(self.unexpected(Container::List));
            }
        };
        let mut list = Vec::new();
        let reading = self.reading;
        while list.len() < LIST_ITEMS_KEPT {
            match items.next_element_seed(Value { kind, reading })? {
                Some(item) => list.push(item.unwrap_or_else(|| absent.clone())),
                None => return Ok(Some(Item::List(list))),
            }
        }
        while items.next_element_seed(Skip)?.is_some() {}
        Ok(Some(Item::List(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Item>, A::Error> {
        let reading = self.reading;
        match self.kind {
            Kind::Structure(shape) => Ok(Some(Structure { shape, reading }.visit_map(map)?.into())),
            Kind::Map => {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if entries.len() >= LIST_ITEMS_KEPT {
                        map.next_value_seed(Skip)?;
                        continue;
                    }
                    let kind = Kind::Text;
                    if let Some(text) = map.next_value_seed(Value { kind, reading })? {
                        entries.push((key, text));
                    }
                }
                Ok(Some(Item::Map(draft::entries(entries).0)))
            }
            _ => {
                while map.next_key_seed(Skip)?.is_some() {
                    map.next_value_seed(Skip)?;
                }
                Ok(self.unexpected(Container::Map))
            }
        }
    }
}

/// Reads over a value. Unlike serde's own it is held to the parser's limit of nesting.
struct Skip;

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Self)?.is_some() {
            map.next_value_seed(Self)?;
        }
        Ok(())
    }
}

/// Appends an item.
pub(super) fn encode(item: &Item, out: &mut Vec<u8>) {
    match item {
        Item::Text(text) => string(text, out),
        Item::Integer(number) => value(number, out),
        Item::Flag(flag) => value(flag, out),
        Item::Time(ms) => value(&(*ms as f64 / 1000.0), out),
        Item::Blob(bytes) => {
            out.push(b'"');
            let start = out.len();
            // Nothing in base64 is escaped.
            out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
            STANDARD
                .encode_slice(bytes, &mut out[start..])
                .expect("four characters for three bytes");
            out.push(b'"');
        }
        Item::List(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                comma(index, out);
                encode(item, out);
            }
            out.push(b']');
        }
        Item::Structure(Fields(fields)) => members(fields.iter().map(|(name, item)| (*name, item)), out),
        Item::Map(entries) => members(entries.iter().map(|(name, item)| (name.as_str(), item)), out),
    }
}

fn members<'a>(members: impl Iterator<Item = (&'a str, &'a Item)>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (name, item)) in members.enumerate() {
        comma(index, out);
        string(name, out);
        out.push(b':');
        encode(item, out);
    }
    out.push(b'}');
}

fn comma(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    value(text, out);
}

fn value(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("texts and numbers are written to memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinesis::shape::DATA;

    const SHAPE: &[Field] = &[
        Field::new("A", Kind::Text),
        Field::new("B", Kind::Integer),
        DATA,
        Field::new("Texts", Kind::Texts(&Field::new("Text", Kind::Text))),
        Field::new("List", Kind::List(&[Field::new("A", Kind::Text)])),
    ];

    fn fields(body: &str) -> Result<Fields, ApiError> {
        decode(body.as_bytes(), SHAPE)
    }

    #[test]
    fn fields_come_in_any_order_and_the_last_of_a_name_counts() {
        let expected = Fields::new().with("A", "y").with("B", 3);
        assert_eq!(
            fields(r#"{"B":2,"Other":[{"A":{}}],"A":"x","B":3.9,"A":"y","Data":null}"#).unwrap(),
            expected
        );
        assert_eq!(fields(r#"{"A":"x","A":null}"#).unwrap(), Fields::new());
        assert_eq!(fields(r#" {"A":"é\n"} "#).unwrap(), Fields::new().with("A", "é\n"));
    }

    #[test]
    fn numbers_beyond_32_bits_are_the_nearest_within() {
        for (text, number) in [
            ("99999999999", i32::MAX),
            ("18446744073709551615", i32::MAX),
            ("-1e300", i32::MIN),
        ] {
            let body = format!(r#"{{"B":{text}}}"#);
            assert_eq!(fields(&body).unwrap().integer("B"), Some(number.into()), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_before_what_does_not_fit() {
        for bad in [
            "",
            "{",
            r#"{"A":5"#,
            r#"{"A":5}}"#,
            "[]",
            "null",
            r#"{"A":"\ud800"}"#,
            "{\"A\":\"\u{1}\"}",
        ] {
            assert_eq!(fields(bad), Err(ApiError::bare("SerializationException")), "{bad}");
        }
        assert_ne!(fields(r#"{"A":5}"#), Err(ApiError::bare("SerializationException")));
    }

    #[test]
    fn nesting_has_a_limit_also_where_it_is_ignored() {
        let nested = |levels: usize| format!(r#"{{"Other":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        fields(&nested(100)).unwrap();
        for levels in [200, 100_000] {
            assert_eq!(fields(&nested(levels)), Err(ApiError::bare("SerializationException")));
        }
    }

    #[test]
    fn lists_keep_no_more_than_any_operation_allows() {
        let body = format!(r#"{{"List":[{}{{}}],"Texts":["a",null]}}"#, "{},".repeat(100_000));
        let fields = fields(&body).unwrap();
        assert_eq!(fields.structures("List").count(), LIST_ITEMS_KEPT);
        let texts = Item::List(vec!["a".into(), "".into()]);
        assert_eq!(fields.get("Texts"), Some(&texts));
    }

    #[test]
    fn blobs_of_a_body_share_one_allocation() {
        const LIST: &[Field] = &[Field::new("List", Kind::List(&[DATA]))];
        let body = r#"{"List":[{"Data":"YWJj"},{"Data":""},{"Data":"YWI="},{"Data":"YQ=="},{"Data":"Zm9v\/w=="}]}"#;
        let fields = decode(body.as_bytes(), LIST).unwrap();
        let blobs: Vec<_> = fields.structures("List").map(|record| record.blob("Data")).collect();
        assert_eq!(blobs, [&b"abc"[..], b"", b"ab", b"a", b"foo\xff"]);
        assert_eq!(blobs[0].as_ptr().wrapping_add(3), blobs[2].as_ptr());
    }
}
