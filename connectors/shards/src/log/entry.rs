//! Records inside the payload of a frame, one behind the other without padding.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | length of what follows this field |
//! | 4 | 2 | length of the partition key in bytes |
//! | 6 | 1 | flags: 1 = an explicit hash key follows |
//! | 7 | 1 | zero |
//! | 8 | 0 or 16 | explicit hash key, big-endian |
//! | | | partition key, UTF-8 |
//! | | | data |

use bytes::Bytes;

use crate::hashkey::HashKey;

const FIXED_BYTES: usize = 8;
const HAS_HASH_KEY: u8 = 1;

/// Bytes that a record takes in a payload.
pub(crate) fn encoded_len(key: &str, hash_key: Option<HashKey>, data: &[u8]) -> usize {
    FIXED_BYTES + if hash_key.is_some() { 16 } else { 0 } + key.len() + data.len()
}

/// Appends a record to `payload`. The key has at most 1,024 bytes and the data at most 10 MiB.
pub(crate) fn encode(payload: &mut Vec<u8>, key: &str, hash_key: Option<HashKey>, data: &[u8]) {
    let length = encoded_len(key, hash_key, data) - 4;
    payload.extend_from_slice(&(length as u32).to_le_bytes());
    payload.extend_from_slice(&(key.len() as u16).to_le_bytes());
    payload.push(if hash_key.is_some() { HAS_HASH_KEY } else { 0 });
    payload.push(0);
    if let Some(hash_key) = hash_key {
        payload.extend_from_slice(&hash_key.0.to_be_bytes());
    }
    payload.extend_from_slice(key.as_bytes());
    payload.extend_from_slice(data);
}

/// A record that shares the buffer it was read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) hash_key: Option<HashKey>,
    pub(crate) data: Bytes,
}

/// Length of the record at `offset` of `payload`.
pub(crate) fn length_at(payload: &[u8], offset: usize) -> Option<usize> {
    let length = u32::from_le_bytes(payload.get(offset..offset + 4)?.try_into().ok()?) as usize + 4;
    (length >= FIXED_BYTES && payload.len() - offset >= length).then_some(length)
}

/// Reads the record at `offset` of `payload`, and the offset behind it. `None` when the bytes are no record.
pub(crate) fn decode(payload: &Bytes, offset: usize) -> Option<(Entry, usize)> {
    let end = offset + length_at(payload, offset)?;
    let key_len = u16::from_le_bytes([payload[offset + 4], payload[offset + 5]]) as usize;
    let mut at = offset + FIXED_BYTES;
    let hash_key = match payload[offset + 6] {
        0 => None,
        HAS_HASH_KEY => {
            let bytes = payload.get(at..at + 16).filter(|_| at + 16 <= end)?;
            at += 16;
            Some(HashKey(u128::from_be_bytes(bytes.try_into().ok()?)))
        }
        _ => return None,
    };
    if at + key_len > end || std::str::from_utf8(&payload[at..at + key_len]).is_err() {
        return None;
    }
    Some((
        Entry {
            key: payload.slice(at..at + key_len),
            hash_key,
            data: payload.slice(at + key_len..end),
        },
        end,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_the_table() {
        let mut payload = Vec::new();
        encode(&mut payload, "k", None, b"ab");
        assert_eq!(payload, [7, 0, 0, 0, 1, 0, 0, 0, b'k', b'a', b'b']);
    }

    proptest! {
        #[test]
        fn records_round_trip(records in prop::collection::vec((".{0,20}", any::<Option<u128>>(), prop::collection::vec(any::<u8>(), 0..50)), 0..8)) {
            let mut payload = Vec::new();
            for (key, hash_key, data) in &records {
                let before = payload.len();
                encode(&mut payload, key, hash_key.map(HashKey), data);
                prop_assert_eq!(payload.len() - before, encoded_len(key, hash_key.map(HashKey), data));
            }
            let payload = Bytes::from(payload);
            let mut offset = 0;
            for (key, hash_key, data) in &records {
                let (entry, next) = decode(&payload, offset).unwrap();
                prop_assert_eq!(&entry.key[..], key.as_bytes());
                prop_assert_eq!(entry.hash_key, hash_key.map(HashKey));
                prop_assert_eq!(&entry.data[..], &data[..]);
                offset = next;
            }
            prop_assert_eq!(offset, payload.len());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), offset in 0usize..100) {
            let bytes = Bytes::from(bytes);
            if offset <= bytes.len() {
                let _ = decode(&bytes, offset);
            }
        }
    }
}
