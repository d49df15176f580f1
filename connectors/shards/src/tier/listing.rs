//! The objects of a store as every snapshot lists them. There may be hundreds of thousands, and each segment of the log
//! begins with all of them, so they are packed: for each stream one text, the base64 of 28 bytes per object.
//!
//! | offset | bytes | field, little-endian |
//! |---|---|---|
//! | 0 | 4 | number of the segment |
//! | 4 | 8 | attempt |
//! | 12 | 8 | bytes of the object |
//! | 20 | 4 | bytes of its directory |
//! | 24 | 4 | CRC32C of the directory |

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ObjectKey, TieredObject};
use crate::ids::{SegmentNumber, Uuid};

const OBJECT_BYTES: usize = 28;

pub(crate) fn serialize<S: Serializer>(objects: &[TieredObject], serializer: S) -> Result<S::Ok, S::Error> {
    let mut streams: BTreeMap<Uuid, Vec<u8>> = BTreeMap::new();
    for object in objects {
        let bytes = streams.entry(object.key.stream).or_default();
        let directory_bytes = u32::try_from(object.directory_bytes).map_err(S::Error::custom)?;
        bytes.extend_from_slice(&object.key.segment.0.to_le_bytes());
        bytes.extend_from_slice(&object.key.attempt.to_le_bytes());
        bytes.extend_from_slice(&object.bytes.to_le_bytes());
        bytes.extend_from_slice(&directory_bytes.to_le_bytes());
        bytes.extend_from_slice(&object.directory_crc.to_le_bytes());
    }
    let texts = streams
        .into_iter()
        .map(|(stream, bytes)| (stream, STANDARD_NO_PAD.encode(bytes)));
    texts.collect::<Vec<_>>().serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TieredObject>, D::Error> {
    let mut objects = Vec::new();
    for (stream, text) in Vec::<(Uuid, String)>::deserialize(deserializer)? {
        let bytes = STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
        let (packed, rest) = bytes.as_chunks::<OBJECT_BYTES>();
        if !rest.is_empty() {
            return Err(D::Error::custom("a list of objects is cut short"));
        }
        objects.extend(packed.iter().map(|packed| object(stream, packed)));
    }
    objects.sort_unstable_by_key(|object| object.key);
    Ok(objects)
}

fn object(stream: Uuid, packed: &[u8; OBJECT_BYTES]) -> TieredObject {
    let number = |range: std::ops::Range<usize>| {
        let mut bytes = [0; 8];
        bytes[..range.len()].copy_from_slice(&packed[range]);
        u64::from_le_bytes(bytes)
    };
    TieredObject {
        key: ObjectKey {
            segment: SegmentNumber(number(0..4) as u32),
            attempt: number(4..12),
            stream,
        },
        bytes: number(12..20),
        directory_bytes: number(20..24),
        directory_crc: number(24..28) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Listing(#[serde(with = "super")] Vec<TieredObject>);

    fn sample(segment: u32, stream: u8) -> TieredObject {
        TieredObject {
            key: ObjectKey {
                segment: SegmentNumber(segment),
                attempt: u64::from(segment) + 1,
                stream: Uuid([stream; 16]),
            },
            bytes: 0x0102_0304_0506,
            directory_bytes: 0xfedc_ba98,
            directory_crc: 0xffff_fff0,
        }
    }

    #[test]
    fn listings_come_back_in_the_order_of_their_keys() {
        let listing = Listing(vec![sample(1, 2), sample(2, 1), sample(2, 2), sample(7, 1)]);
        let json = serde_json::to_string(&listing).unwrap();
        assert_eq!(serde_json::from_str::<Listing>(&json).unwrap(), listing);
        let cut = json.replacen("==", "", 1).replacen("AA", "", 1);
        assert!(serde_json::from_str::<Listing>(&cut).is_err(), "{cut}");
    }

    #[test]
    fn layout_is_the_table() {
        let json = serde_json::to_value(Listing(vec![sample(3, 9)])).unwrap();
        assert_eq!(json[0][0], Uuid([9; 16]).to_string());
        let bytes = STANDARD_NO_PAD.decode(json[0][1].as_str().unwrap()).unwrap();
        let expected = [
            &[3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0][..],
            &[6, 5, 4, 3, 2, 1, 0, 0],
            &[0x98, 0xba, 0xdc, 0xfe, 0xf0, 0xff, 0xff, 0xff],
        ];
        assert_eq!(bytes, expected.concat());
    }

    /// The figures of `docs/BENCHMARKS.md`. They are sizes, the same on every machine and in every build.
    #[test]
    fn what_a_tiered_segment_costs_is_what_the_documents_say() {
        const OBJECTS: u32 = 100_000;
        let listing = Listing((0..OBJECTS).map(|segment| sample(segment, 1)).collect());
        let snapshot = serde_json::to_string(&listing).unwrap().len();
        let in_snapshot = snapshot as f64 / f64::from(OBJECTS);
        assert!((37.0..38.0).contains(&in_snapshot), "{in_snapshot}");
        // In memory: in the state and in the view, whose map adds the key and what a tree of such entries leaves unused.
        assert_eq!(size_of::<TieredObject>(), 56);
        assert_eq!(size_of::<(SegmentNumber, Uuid)>(), 20);
        assert_eq!(size_of::<crate::index::IndexEntry>(), 48, "for each shard of it");
    }
}
