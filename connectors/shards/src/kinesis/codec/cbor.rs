//! CBOR 1.1 (RFC 8949, as the service uses it).
//!
//! The reader is our own: it follows the shape, takes blobs as slices of the body where the crates at hand copy them, and
//! bounds what a body can cost. Numbers of any width, strings, maps and lists of definite and indefinite length are
//! accepted, and tags that say nothing here are passed over. The RFC counts the seconds of tag 1; the service and its
//! SDKs count milliseconds there, in both directions, and so does this codec: also for floats, so that 1 and 1.0 are the
//! same moment.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::error::ApiError;
use super::super::item::{Fields, Item};
use super::super::shape::{Field, Kind};
use super::draft::{self, Came, Draft};
use super::scalar::{self, Container, Scalar};
use crate::limits::{CBOR_DEPTH_MAX, LIST_ITEMS_KEPT};

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const FALSE: u8 = 20;
const TRUE: u8 = 21;
const NULL: u8 = 22;
const UNDEFINED: u8 = 23;
const INDEFINITE: u8 = 31;

const TAG_TIME: u8 = 1;
const BREAK: u8 = SIMPLE << 5 | INDEFINITE;

/// Decodes a request.
pub(super) fn decode(body: &Bytes, shape: &'static [Field]) -> Result<Fields, ApiError> {
    let mut reader = Reader { body, at: 0, depth: 0 };
    let head = reader.head_behind_tags()?;
    if head.major != MAP {
        return Err(reader.malformed("a request is a map"));
    }
    let fields = reader.structure(&head, shape)?;
    if reader.at < body.len() {
        return Err(reader.malformed("there are bytes behind the request"));
    }
    Ok(fields)
}

/// The first byte of a value with its argument.
struct Head {
    major: u8,
    /// The low five bits of the first byte.
    info: u8,
    /// Length, count, tag or number; the bits of a float.
    argument: u64,
}

impl Head {
    /// The number of items, or of bytes; `None`: until the break.
    fn count(&self) -> Option<u64> {
        (self.info != INDEFINITE).then_some(self.argument)
    }
}

struct Reader<'b> {
    body: &'b Bytes,
    at: usize,
    /// Values that the one being read lies in.
    depth: usize,
}

impl<'b> Reader<'b> {
    fn malformed(&self, reason: &str) -> ApiError {
        ApiError::serialization(format!("The body is not sound CBOR at byte {}: {reason}", self.at))
    }

    /// The next `count` bytes of the body.
    fn take(&mut self, count: u64) -> Result<std::ops::Range<usize>, ApiError> {
        let left = self.body.len() - self.at;
        if count > left as u64 {
            return Err(self.malformed("it ends too soon"));
        }
        let start = self.at;
        self.at += count as usize;
        Ok(start..self.at)
    }

    fn head(&mut self) -> Result<Head, ApiError> {
        let range = self.take(1)?;
        let first = self.body[range.start];
        let (major, info) = (first >> 5, first & 0x1f);
        let argument = match info {
            0..=23 => u64::from(info),
            24..=27 => {
                let range = self.take(1 << (info - 24))?;
                self.body[range]
                    .iter()
                    .fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
            INDEFINITE if matches!(major, BYTES | TEXT | LIST | MAP) => 0,
            _ => return Err(self.malformed("this byte cannot begin a value")),
        };
        Ok(Head { major, info, argument })
    }

    fn head_behind_tags(&mut self) -> Result<Head, ApiError> {
        for _ in 0..CBOR_DEPTH_MAX {
            let head = self.head()?;
            if head.major != TAG {
                return Ok(head);
            }
        }
        Err(self.malformed("it has too many tags"))
    }

    /// Whether a list, map or string goes on; takes the break where it ends.
    fn goes_on(&mut self, left: &mut Option<u64>) -> Result<bool, ApiError> {
        match left {
            Some(0) => Ok(false),
            Some(count) => {
                *count -= 1;
                Ok(true)
            }
            None if self.body.get(self.at) == Some(&BREAK) => {
                self.at += 1;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn enter<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, ApiError>) -> Result<T, ApiError> {
        if self.depth >= CBOR_DEPTH_MAX {
            return Err(self.malformed("it is nested too deep"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// The chunks of a string of indefinite length.
    fn chunks(&mut self, major: u8) -> Result<Vec<u8>, ApiError> {
        let mut all = Vec::new();
        while self.goes_on(&mut None)? {
            let head = self.head()?;
            if head.major != major || head.info == INDEFINITE {
                return Err(self.malformed("a chunk of a string is something else"));
            }
            let range = self.take(head.argument)?;
            all.extend_from_slice(&self.body[range]);
        }
        Ok(all)
    }

    fn bytes(&mut self, head: &Head) -> Result<Bytes, ApiError> {
        match head.count() {
            Some(count) => self.take(count).map(|range| self.body.slice(range)),
            None => self.chunks(BYTES).map(Bytes::from),
        }
    }

    fn text(&mut self, head: &Head) -> Result<Cow<'b, str>, ApiError> {
        let body: &'b Bytes = self.body;
        let text = match head.count() {
            Some(count) => std::str::from_utf8(&body[self.take(count)?]).map(Cow::Borrowed).ok(),
            None => String::from_utf8(self.chunks(TEXT)?).map(Cow::Owned).ok(),
        };
        text.ok_or_else(|| self.malformed("a text is not UTF-8"))
    }

    fn key(&mut self) -> Result<Cow<'b, str>, ApiError> {
        let head = self.head_behind_tags()?;
        if head.major != TEXT {
            return Err(self.malformed("the key of a map is no text"));
        }
        self.text(&head)
    }

    fn structure(&mut self, head: &Head, shape: &'static [Field]) -> Result<Fields, ApiError> {
        let mut draft = Draft::new(shape);
        let mut left = head.count();
        while self.goes_on(&mut left)? {
            let key = self.key()?;
            match draft.index(&key) {
                None => self.enter(Self::skip)?,
                Some(index) => {
                    let kind = draft.field(index).kind;
                    let item = self.enter(|reader| reader.value(kind))?;
                    if draft.put(index, item) == Came::Again {
                        return Err(self.malformed(&format!("{key} comes twice")));
                    }
                }
            }
        }
        Ok(draft.finish())
    }

    /// A value of a kind; `None` is null.
    fn value(&mut self, kind: Kind) -> Result<Option<Item>, ApiError> {
        let head = self.head_behind_tags()?;
        let item = match head.major {
            UNSIGNED => number(Scalar::Whole(head.argument.min(i64::MAX as u64) as i64), kind),
            NEGATIVE => number(Scalar::Whole(-1 - head.argument.min(i64::MAX as u64) as i64), kind),
            BYTES => {
                let bytes = self.bytes(&head)?;
                match kind {
                    Kind::Blob => Ok(Item::Blob(bytes)),
                    _ => scalar::item(Scalar::Bytes, kind),
                }
            }
            TEXT => match (self.text(&head)?, kind) {
                (Cow::Owned(text), Kind::Text) => Ok(Item::Text(text)),
                (text, kind) => scalar::item(Scalar::Text(&text), kind),
            },
            LIST => self.list(&head, kind),
            MAP => match kind {
                Kind::Structure(shape) => self.structure(&head, shape).map(Item::from),
                Kind::Map => self.map(&head),
                _ => Err(scalar::unexpected(Container::Map)),
            },
            _ => match head.info {
                FALSE => scalar::item(Scalar::Flag(false), kind),
                TRUE => scalar::item(Scalar::Flag(true), kind),
                NULL | UNDEFINED => return Ok(None),
                25 => number(Scalar::Real(half(head.argument as u16)), kind),
                26 => number(Scalar::Real(f32::from_bits(head.argument as u32).into()), kind),
                27 => number(Scalar::Real(f64::from_bits(head.argument)), kind),
                _ => Err(self.malformed("this simple value has no meaning")),
            },
        };
        item.map(Some)
    }

    fn list(&mut self, head: &Head, kind: Kind) -> Result<Item, ApiError> {
        let (kind, absent) = match kind {
            Kind::List(shape) => (Kind::Structure(shape), Item::Structure(Fields::new())),
            Kind::Texts(member) => (member.kind, Item::Text(String::new())),
            _ => return Err(scalar::unexpected(Container::List)),
        };
        let mut list = Vec::new();
        let mut left = head.count();
        while self.goes_on(&mut left)? {
            if list.len() < LIST_ITEMS_KEPT {
                let item = self.enter(|reader| reader.value(kind))?;
                list.push(item.unwrap_or_else(|| absent.clone()));
            } else {
                self.enter(Self::skip)?;
            }
        }
        Ok(Item::List(list))
    }

    fn map(&mut self, head: &Head) -> Result<Item, ApiError> {
        let mut entries = Vec::new();
        let mut left = head.count();
        while self.goes_on(&mut left)? {
            let key = self.key()?;
            if entries.len() >= LIST_ITEMS_KEPT {
                self.enter(Self::skip)?;
            } else if let Some(text) = self.enter(|reader| reader.value(Kind::Text))? {
                entries.push((key.into_owned(), text));
            }
        }
        match draft::entries(entries) {
            (entries, Came::First) => Ok(Item::Map(entries)),
            (_, Came::Again) => Err(self.malformed("a key comes twice in a map")),
        }
    }

    /// Reads over a value.
    fn skip(&mut self) -> Result<(), ApiError> {
        let head = self.head_behind_tags()?;
        match head.major {
            UNSIGNED | NEGATIVE | SIMPLE => Ok(()),
            BYTES | TEXT => {
                let mut left = head.count();
                if let Some(count) = left {
                    return self.take(count).map(|_| ());
                }
                while self.goes_on(&mut left)? {
                    let chunk = self.head()?;
                    if chunk.major != head.major || chunk.info == INDEFINITE {
                        return Err(self.malformed("a chunk of a string is something else"));
                    }
                    self.take(chunk.argument)?;
                }
                Ok(())
            }
            _ => {
                let mut left = head.count();
                while self.goes_on(&mut left)? {
                    self.enter(Self::skip)?;
                    if head.major == MAP {
                        self.enter(Self::skip)?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn number(value: Scalar<'_>, kind: Kind) -> Result<Item, ApiError> {
    match (kind, value) {
        (Kind::Timestamp, Scalar::Whole(ms)) => Ok(Item::Time(ms)),
        (Kind::Timestamp, Scalar::Real(ms)) => scalar::time(ms),
        (kind, value) => scalar::item(value, kind),
    }
}

/// A float of 16 bits.
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { size } else { -size }
}

/// Appends an item.
pub(super) fn encode(item: &Item, out: &mut Vec<u8>) {
    match item {
        Item::Text(text) => string(TEXT, text.as_bytes(), out),
        Item::Integer(number) => integer(*number, out),
        Item::Flag(flag) => out.push(SIMPLE << 5 | if *flag { TRUE } else { FALSE }),
        Item::Time(ms) => {
            out.push(TAG << 5 | TAG_TIME);
            integer(*ms, out);
        }
        Item::Blob(bytes) => string(BYTES, bytes, out),
        Item::List(items) => {
            out.push(LIST << 5 | INDEFINITE);
            items.iter().for_each(|item| encode(item, out));
            out.push(BREAK);
        }
        Item::Structure(Fields(fields)) => members(fields.iter().map(|(name, item)| (*name, item)), out),
        Item::Map(entries) => members(entries.iter().map(|(name, item)| (name.as_str(), item)), out),
    }
}

fn members<'a>(members: impl Iterator<Item = (&'a str, &'a Item)>, out: &mut Vec<u8>) {
    out.push(MAP << 5 | INDEFINITE);
    for (name, item) in members {
        string(TEXT, name.as_bytes(), out);
        encode(item, out);
    }
    out.push(BREAK);
}

fn string(major: u8, bytes: &[u8], out: &mut Vec<u8>) {
    head(major, bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn integer(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        head(NEGATIVE, !number as u64, out);
    } else {
        head(UNSIGNED, number as u64, out);
    }
}

/// The first byte and the argument, as short as it can be.
fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(argument.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinesis::shape::DATA;

    const SHAPE: &[Field] = &[
        Field::new("A", Kind::Text),
        Field::new("B", Kind::Integer),
        Field::new("C", Kind::Boolean),
        Field::new("T", Kind::Timestamp),
        DATA,
        Field::new("L", Kind::List(&[DATA])),
        Field::new("M", Kind::Map),
    ];

    fn fields(body: &[u8]) -> Result<Fields, ApiError> {
        decode(&Bytes::copy_from_slice(body), SHAPE)
    }

    /// `{name: value}` of definite length.
    fn one(name: u8, value: &[u8]) -> Vec<u8> {
        [&[0xa1, 0x61, name], value].concat()
    }

    #[test]
    fn answers_are_written_as_the_service_does() {
        let answer = Fields::new()
            .with("T", Item::Time(1_800_000_000_000))
            .with("L", vec![Item::Blob(Bytes::from_static(b"ab")), Item::Flag(true)])
            .with("B", -25);
        let mut out = Vec::new();
        encode(&answer.into(), &mut out);
        let expected = b"\xbf\x61T\xc1\x1b\x00\x00\x01\xa3\x18\x5c\x50\x00\x61L\x9f\x42ab\xf5\xff\x61B\x38\x18\xff";
        assert_eq!(out, expected);
    }

    #[test]
    fn definite_and_indefinite_lengths_are_the_same() {
        let expected = Fields::new()
            .with("A", "xy")
            .with("Data", Item::Blob(Bytes::from_static(b"abc")));
        for body in [
            &b"\xa2\x61A\x62xy\x64Data\x43abc"[..],
            b"\xbf\x61A\x62xy\x64Data\x43abc\xff",
            b"\xbf\x7f\x61A\xff\x7f\x61x\x60\x61y\xff\x64Data\x5f\x41a\x42bc\xff\xff",
            // Lengths wider than they need be, a tag that says that this is CBOR, and fields that nobody knows.
            b"\xd9\xd9\xf7\xba\x00\x00\x00\x03\x61A\x78\x02xy\x61Z\x9f\x01\xbf\x61a\xf6\xff\xff\x64Data\x5b\0\0\0\0\0\0\0\x03abc",
        ] {
            assert_eq!(fields(body).unwrap(), expected, "{body:x?}");
        }
    }

    #[test]
    fn blobs_are_slices_of_the_body() {
        let body = Bytes::from_static(b"\xa1\x61L\x82\xa1\x64Data\x43abc\xa1\x64Data\x41d");
        let fields = decode(&body, SHAPE).unwrap();
        let blobs: Vec<Bytes> = fields.structures("L").map(|record| record.blob("Data")).collect();
        assert_eq!(blobs, [&b"abc"[..], b"d"]);
        for blob in blobs {
            assert!(body.as_ptr_range().contains(&blob.as_ptr()));
        }
    }

    #[test]
    fn numbers_of_every_width() {
        for (value, number) in [
            (&b"\x05"[..], 5),
            (b"\x18\xff", 255),
            (b"\x19\x01\x00", 256),
            (b"\x1a\x00\x01\x00\x00", 65_536),
            (b"\x1b\0\0\0\0\0\0\0\x07", 7),
            (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", i64::from(i32::MAX)),
            (b"\x20", -1),
            (b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", i64::from(i32::MIN)),
            (b"\xf9\x42\x00", 3),
            (b"\xfa\x40\x60\x00\x00", 3),
            (b"\xfb\x40\x0c\0\0\0\0\0\0", 3),
        ] {
            assert_eq!(
                fields(&one(b'B', value)).unwrap().integer("B"),
                Some(number),
                "{value:x?}"
            );
        }
    }

    #[test]
    fn timestamps_are_milliseconds_with_or_without_the_tag() {
        for value in [
            &b"\xc1\x1b\x00\x00\x01\xa3\x18\x5c\x50\x00"[..],
            b"\x1b\x00\x00\x01\xa3\x18\x5c\x50\x00",
            b"\xc1\xfb\x42\x7a\x31\x85\xc5\x00\x00\x00",
        ] {
            assert_eq!(
                fields(&one(b'T', value)).unwrap().time("T"),
                Some(1_800_000_000_000),
                "{value:x?}"
            );
        }
        for value in [&b"\xf9\x7e\x00"[..], b"\xf9\x7c\x00", b"\x61x", b"\x40", b"\xf4"] {
            assert!(fields(&one(b'T', value)).is_err(), "{value:x?}");
        }
        let halves = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x7bff, 65_504.0),
        ];
        for (bits, value) in halves {
            assert_eq!(half(bits), value);
        }
    }

    #[test]
    fn what_does_not_fit_is_told_in_the_words_of_the_service() {
        for (body, expected) in [
            (
                one(b'A', b"\x01"),
                "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String",
            ),
            (
                one(b'A', b"\x40"),
                "class java.nio.HeapByteBuffer can not be converted to an String",
            ),
            (
                one(b'B', b"\x61x"),
                "class java.lang.String can not be converted to an Integer",
            ),
            (one(b'A', b"\x80"), "Start of list found where not expected"),
            (
                one(b'A', b"\xa0"),
                "Start of structure or map found where not expected.",
            ),
            (one(b'L', b"\x01"), "Expected list or null"),
            (one(b'M', b"\x01"), "Expected map or null"),
        ] {
            assert_eq!(fields(&body), Err(ApiError::serialization(expected)), "{body:x?}");
        }
        assert_eq!(fields(&one(b'A', b"\xf6")).unwrap(), Fields::new());
        assert_eq!(fields(&one(b'A', b"\xf7")).unwrap(), Fields::new());
    }

    #[test]
    fn malformed_bodies_are_refused_with_the_place() {
        for (body, reason) in [
            (&b""[..], "ends too soon"),
            (b"\x80", "is a map"),
            (b"\xa0\x00", "behind the request"),
            (b"\xa1\x61A", "ends too soon"),
            (b"\xbf\x61A\x61x", "ends too soon"),
            (b"\xa1\x01\x02", "no text"),
            (b"\xa1\x61A\x61\xff", "not UTF-8"),
            (b"\xa1\x61A\xff", "cannot begin"),
            (b"\xa1\x61A\x1c", "cannot begin"),
            (b"\xa1\x61A\x1f", "cannot begin"),
            (b"\xa1\x61A\xe0", "no meaning"),
            (b"\xa1\x61A\x7f\x41x\xff", "a chunk"),
            (b"\xa2\x61A\x61x\x61A\x61y", "A comes twice"),
            (b"\xa1\x61M\xa2\x61k\x61x\x61k\x61y", "a key comes twice"),
            // Lengths that nothing stands behind.
            (b"\xa1\x61A\x7b\xff\xff\xff\xff\xff\xff\xff\xff", "ends too soon"),
            (b"\xa1\x64Data\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "ends too soon"),
            (b"\xa1\x61L\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "ends too soon"),
            (b"\xa1\x61M\xbb\xff\xff\xff\xff\xff\xff\xff\xff", "ends too soon"),
            (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", "ends too soon"),
            (b"\xa1\x61Z\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "ends too soon"),
        ] {
            let error = fields(body).unwrap_err();
            assert_eq!(error.name(), "SerializationException");
            let text = format!("{error:?}");
            assert!(text.contains(reason), "{body:x?}: {text}");
        }
    }

    #[test]
    fn nesting_and_tags_have_a_limit() {
        let nested = |byte: u8, levels: usize| one(b'Z', &[&vec![byte; levels][..], &[0x00]].concat());
        fields(&nested(0x81, 100)).unwrap();
        fields(&nested(0xc1, 100)).unwrap();
        for byte in [0x81, 0x9f, 0xc1, 0xa1, 0xbf] {
            for levels in [200, 1 << 20] {
                assert!(fields(&nested(byte, levels)).is_err(), "{byte:x}");
            }
        }
    }

    #[test]
    fn lists_keep_no_more_than_any_operation_allows() {
        let body = one(b'L', &[&[0x9f][..], &vec![0xa0; 1 << 20], &[0xff]].concat());
        assert_eq!(fields(&body).unwrap().structures("L").count(), LIST_ITEMS_KEPT);
    }
}
