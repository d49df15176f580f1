//! Several user records in one record of a stream: the aggregated format of the Kinesis Producer Library.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `F3 89 9A C2` |
//! | n | protobuf, see below |
//! | 16 | MD5 of the protobuf |
//!
//! ```text
//! AggregatedRecord { repeated string partition_key_table = 1; repeated string explicit_hash_key_table = 2;
//!                    repeated Record records = 3; }
//! Record           { required uint64 partition_key_index = 1; optional uint64 explicit_hash_key_index = 2;
//!                    required bytes data = 3; repeated Tag tags = 4; }
//! ```
//! The format has no version; its fixtures in the tests come from another implementation. A record that is not sound
//! to its last byte (checksum, lengths, indexes, keys) is a plain record, as for the Kinesis Client Library: somebody's
//! data may begin with these four bytes. Nothing is allocated from a length that the bytes claim: user records are
//! slices of the record that holds them, and the tables grow with the bytes that were read.
//!
//! The producer library puts records together whose hash keys belong to one shard, by the shards it knows. After a split
//! its record lands in one of the children with user records of the other in it. The producer is told the shard, sees
//! that those user records are in a wrong one, and sends them again; so the client library, and Flink with it, drop a
//! user record whose hash key is not in the range of the shard it was found in. [`UserRecord::belongs`] says which.

use bytes::Bytes;
use md5::{Digest, Md5};
use tidemill_shards::limits::PARTITION_KEY_CHARS_MAX;
use tidemill_shards::{HashKey, HashRange};

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const DIGEST_BYTES: usize = 16;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Says whether a record may be an aggregated one: it is cheap, and says yes too often.
pub(super) fn looks_aggregated(record: &[u8]) -> bool {
    record.len() >= MAGIC.len() + DIGEST_BYTES && record[..MAGIC.len()] == MAGIC
}

/// A user record within an aggregated one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserRecord {
    /// Its own partition key, UTF-8.
    pub(super) partition_key: Bytes,
    /// Its data.
    pub(super) data: Bytes,
    /// Its hash key is in the range that was asked about.
    pub(super) belongs: bool,
}

/// The user records of an aggregated record, in their order: the n-th has the sub-sequence number n, from 0.
#[derive(Debug)]
pub(super) struct UserRecords {
    message: Bytes,
    at: usize,
    keys: Vec<Key>,
    hash_keys: Vec<HashKey>,
    range: Option<HashRange>,
}

/// An entry of the table of partition keys.
#[derive(Debug)]
struct Key {
    start: u32,
    end: u32,
    belongs: bool,
}

impl UserRecords {
    /// Opens an aggregated record; `None` when it is none. With `range`, user records are told apart by their hash keys.
    pub(super) fn open(record: &Bytes, range: Option<HashRange>) -> Option<Self> {
        if !looks_aggregated(record) || u32::try_from(record.len()).is_err() {
            return None;
        }
        let end = record.len() - DIGEST_BYTES;
        let message = record.slice(MAGIC.len()..end);
        if Md5::digest(&message)[..] != record[end..] {
            return None;
        }
        let (keys, hash_keys) = tables(&message, range)?;
        let mut fields = Fields::new(&message);
        while let Some(field) = fields.step() {
            if let (3, Value::Bytes { start, end }) = field? {
                Entry::parse(&message[start..end], &keys, &hash_keys)?;
            }
        }
        Some(Self {
            message,
            at: 0,
            keys,
            hash_keys,
            range,
        })
    }
}

impl Iterator for UserRecords {
    type Item = UserRecord;

    fn next(&mut self) -> Option<UserRecord> {
        let mut fields = Fields {
            bytes: &self.message,
            at: self.at,
        };
        loop {
            // All of it was checked when it was opened.
            let field = fields.step()??;
            self.at = fields.at;
            if let (3, Value::Bytes { start, end }) = field {
                let entry = Entry::parse(&self.message[start..end], &self.keys, &self.hash_keys)?;
                let key = &self.keys[entry.key];
                let in_range = |hash_key| self.range.is_none_or(|range| range.contains(hash_key));
                return Some(UserRecord {
                    partition_key: self.message.slice(key.start as usize..key.end as usize),
                    data: self.message.slice(start + entry.data.0..start + entry.data.1),
                    belongs: entry.hash_key.map_or(key.belongs, |at| in_range(self.hash_keys[at])),
                });
            }
        }
    }
}

/// Reads the tables of keys, which may stand anywhere in the message.
fn tables(message: &[u8], range: Option<HashRange>) -> Option<(Vec<Key>, Vec<HashKey>)> {
    let (mut keys, mut hash_keys) = (Vec::new(), Vec::new());
    let mut fields = Fields::new(message);
    while let Some(field) = fields.step() {
        match field? {
            (1, Value::Bytes { start, end }) => {
                let text = std::str::from_utf8(&message[start..end]).ok()?;
                keys.push(Key {
                    start: u32::try_from(start).ok()?,
                    end: u32::try_from(end).ok()?,
                    belongs: range.is_none_or(|range| range.contains(HashKey::of(text))),
                });
            }
            (2, Value::Bytes { start, end }) => {
                hash_keys.push(std::str::from_utf8(&message[start..end]).ok()?.parse().ok()?);
            }
            // A field of ours with another type than ours.
            (1..=3, Value::Number(_) | Value::Skipped) => return None,
            _ => {}
        }
    }
    Some((keys, hash_keys))
}

/// One `Record`: indexes that are in their tables, and where its data lies in it.
struct Entry {
    key: usize,
    hash_key: Option<usize>,
    data: (usize, usize),
}

impl Entry {
    fn parse(record: &[u8], keys: &[Key], hash_keys: &[HashKey]) -> Option<Self> {
        let (mut key, mut hash_key, mut data) = (None, None, None);
        let mut fields = Fields::new(record);
        while let Some(field) = fields.step() {
            match field? {
                (1, Value::Number(index)) => key = Some(usize::try_from(index).ok()?),
                (2, Value::Number(index)) => hash_key = Some(usize::try_from(index).ok()?),
                (3, Value::Bytes { start, end }) => data = Some((start, end)),
                (1..=3, _) => return None,
                _ => {}
            }
        }
        let sound = key? < keys.len() && hash_key.is_none_or(|at| at < hash_keys.len());
        sound.then_some(Self {
            key: key?,
            hash_key,
            data: data?,
        })
    }
}

/// The value of a field.
enum Value {
    Number(u64),
    /// Where the bytes lie.
    Bytes {
        start: usize,
        end: usize,
    },
    /// Of a type that none of the fields here has.
    Skipped,
}

/// The fields of a protobuf message; `Some(None)` where it is malformed.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads the next field.
    fn step(&mut self) -> Option<Option<(u64, Value)>> {
        (self.at < self.bytes.len()).then(|| self.field())
    }

    fn field(&mut self) -> Option<(u64, Value)> {
        let tag = self.varint()?;
        let number = tag >> 3;
        let value = match tag & 7 {
            VARINT => Value::Number(self.varint()?),
            FIXED64 => self.skip(8)?,
            FIXED32 => self.skip(4)?,
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                let start = self.at;
                self.skip(length)?;
                Value::Bytes { start, end: self.at }
            }
            _ => return None,
        };
        (number > 0).then_some((number, value))
    }

    fn skip(&mut self, length: usize) -> Option<Value> {
        self.at = self.at.checked_add(length).filter(|&end| end <= self.bytes.len())?;
        Some(Value::Skipped)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

/// Puts user records of one partition key together.
///
/// Of one key only: whatever becomes of the shards meanwhile, all of them belong where the record goes, so that no
/// reader drops one.
#[derive(Debug)]
pub(super) struct Aggregator {
    message: Vec<u8>,
    records: usize,
}

impl Aggregator {
    /// Begins a record.
    pub(super) fn new(partition_key: &str) -> Self {
        debug_assert!(partition_key.chars().count() <= PARTITION_KEY_CHARS_MAX);
        let mut message = Vec::new();
        put_bytes(&mut message, 1, partition_key.as_bytes());
        Self { message, records: 0 }
    }

    /// Returns the user records in it.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Returns the bytes that the record would have with one more user record of so many bytes.
    pub(super) fn size_with(&self, data_bytes: usize) -> usize {
        let entry = entry_bytes(data_bytes);
        MAGIC.len() + self.message.len() + 1 + varint_bytes(entry) + entry + DIGEST_BYTES
    }

    /// Adds a user record.
    pub(super) fn push(&mut self, data: &[u8]) {
        put_varint(&mut self.message, 3 << 3 | BYTES);
        put_varint(&mut self.message, entry_bytes(data.len()) as u64);
        put_varint(&mut self.message, 1 << 3 | VARINT);
        put_varint(&mut self.message, 0);
        put_bytes(&mut self.message, 3, data);
        self.records += 1;
    }

    /// Returns the record.
    pub(super) fn finish(self) -> Bytes {
        let digest = Md5::digest(&self.message);
        let mut record = Vec::with_capacity(MAGIC.len() + self.message.len() + DIGEST_BYTES);
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(&self.message);
        record.extend_from_slice(&digest);
        record.into()
    }
}

/// Returns the bytes of a `Record` with the first partition key and so many bytes of data.
fn entry_bytes(data_bytes: usize) -> usize {
    2 + 1 + varint_bytes(data_bytes) + data_bytes
}

fn varint_bytes(value: usize) -> usize {
    (usize::BITS - value.max(1).leading_zeros()).div_ceil(7) as usize
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `aws-kinesis-agg` 1.2.3 of PyPI made: a name, then hexadecimal digits; `#` begins a remark.
    const FIXTURES: &str = include_str!("aggregation.fixture");

    fn fixture(name: &str) -> Bytes {
        let line = FIXTURES
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let digits: Vec<char> = line.unwrap().trim().chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn texts(record: &Bytes, range: Option<HashRange>) -> Vec<(String, String, bool)> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        UserRecords::open(record, range)
            .unwrap()
            .map(|record| (text(&record.partition_key), text(&record.data), record.belongs))
            .collect()
    }

    fn sealed(message: &[u8]) -> Bytes {
        let mut record = MAGIC.to_vec();
        record.extend_from_slice(message);
        record.extend_from_slice(&Md5::digest(message));
        record.into()
    }

    #[test]
    fn records_of_another_implementation_are_understood() {
        let row = |key: &str, data: &str| (key.to_owned(), data.to_owned(), true);
        assert_eq!(
            texts(&fixture("one-key"), None),
            [
                row("ann", r#"{"id":1}"#),
                row("ann", r#"{"id":2}"#),
                row("ann", r#"{"id":3}"#)
            ]
        );
        assert_eq!(
            texts(&fixture("keys"), None),
            [row("ann", "a1"), row("bob", "b1"), row("ann", "a2"), row("zoë", "z1")]
        );
        let large: Vec<UserRecord> = UserRecords::open(&fixture("large"), None).unwrap().collect();
        for (number, record) in large.iter().enumerate() {
            assert_eq!(record.data, vec![number as u8; 300]);
        }
        assert_eq!(large.len(), 3);
    }

    #[test]
    fn user_records_of_other_shards_are_told_apart() {
        let mut halves = HashRange::tiles(2);
        let belongs = |range| -> Vec<bool> {
            UserRecords::open(&fixture("hash-keys"), range)
                .unwrap()
                .map(|record| record.belongs)
                .collect()
        };
        assert_eq!(belongs(None), [true, true, true]);
        assert_eq!(belongs(halves.next()), [true, false, false]);
        assert_eq!(belongs(halves.next()), [false, true, true]);
        // Without hash keys of their own the MD5 of the partition key counts.
        let message = [
            &[0x0a, 3][..],
            b"ann",
            &[0x0a, 3],
            b"bob",
            &[0x1a, 4, 8, 0, 0x1a, 0, 0x1a, 4, 8, 1, 0x1a, 0],
        ];
        let record = sealed(&message.concat());
        let low = HashRange {
            start: HashKey(0),
            end: HashKey::of("ann"),
        };
        let found: Vec<bool> = UserRecords::open(&record, Some(low))
            .unwrap()
            .map(|record| record.belongs)
            .collect();
        assert_eq!(found, [true, HashKey::of("bob") <= HashKey::of("ann")]);
    }

    #[test]
    fn what_is_not_sound_is_a_plain_record() {
        let sound = fixture("keys");
        for at in 0..sound.len() {
            let mut broken = sound.to_vec();
            broken[at] ^= 1;
            assert!(UserRecords::open(&broken.into(), None).is_none(), "byte {at}");
            assert!(UserRecords::open(&sound.slice(..at), None).is_none(), "cut at {at}");
        }
        for (message, why) in [
            (&[0x1a, 4, 8, 0, 0x1a, 0][..], "no such partition key"),
            (&[0x0a, 1, b'k', 0x1a, 6, 8, 0, 0x10, 0, 0x1a, 0], "no such hash key"),
            (&[0x0a, 1, b'k', 0x1a, 2, 8, 0], "no data"),
            (&[0x0a, 1, b'k', 0x1a, 2, 0x1a, 0], "no partition key"),
            (&[0x0a, 1, 0xff], "a key that is not UTF-8"),
            (&[0x12, 2, b'-', b'1'], "a hash key that is no number"),
            (
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                "a length beyond everything",
            ),
            (&[0x0a, 5, b'k'], "a length beyond the message"),
            (&[8, 1], "another type"),
            (&[0x0b, 0x0c], "a group"),
        ] {
            assert!(UserRecords::open(&sealed(message), None).is_none(), "{why}");
        }
    }

    #[test]
    fn fields_of_the_future_are_skipped_and_tables_may_come_last() {
        // A tag in the record; then fixed64, fixed32, varint and bytes of unknown fields; then the table.
        let message = [
            &[0x1a, 7, 8, 0, 0x1a, 1, b'x', 0x22, 0][..],
            &[0x4a, 1, 0],
            &[0x51, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x5d, 1, 2, 3, 4],
            &[0x60, 0x80, 1],
            &[0x0a, 1, b'k'],
        ];
        assert_eq!(
            texts(&sealed(&message.concat()), None),
            [("k".to_owned(), "x".to_owned(), true)]
        );
        assert_eq!(UserRecords::open(&sealed(&[]), None).unwrap().count(), 0);
    }

    #[test]
    fn written_record_is_the_same_as_that_of_another_implementation() {
        let mut aggregator = Aggregator::new("ann");
        for id in 1..=3 {
            aggregator.push(format!(r#"{{"id":{id}}}"#).as_bytes());
        }
        assert_eq!(aggregator.records(), 3);
        assert_eq!(aggregator.finish(), fixture("one-key"));
    }

    proptest! {
        #[test]
        fn written_records_are_read_back(
            key in "[a-zé]{1,40}",
            data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..20),
        ) {
            let mut aggregator = Aggregator::new(&key);
            for data in &data {
                let size = aggregator.size_with(data.len());
                aggregator.push(data);
                prop_assert_eq!(MAGIC.len() + aggregator.message.len() + DIGEST_BYTES, size);
            }
            let read: Vec<_> = UserRecords::open(&aggregator.finish(), Some(HashRange {
                start: HashKey::of(&key),
                end: HashKey::of(&key),
            })).unwrap().collect();
            prop_assert_eq!(read.len(), data.len());
            for (read, data) in read.iter().zip(&data) {
                prop_assert_eq!(&read.data, data);
                prop_assert_eq!(&read.partition_key, key.as_bytes());
                prop_assert!(read.belongs);
            }
        }

        #[test]
        fn any_message_is_read_or_refused(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(records) = UserRecords::open(&sealed(&message), None) {
                prop_assert!(records.count() <= message.len());
            }
        }
    }
}
