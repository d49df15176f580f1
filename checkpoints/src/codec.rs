//! Typed values between our own processes, and typed operator state: bincode 1.3.3 behind a header of our own.
//!
//! bincode has no header, no version and no checksum, and the crate is no longer maintained; so it is used in this module only, and
//! only where writer and reader are both ours. Every value carries this header:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | magic `TM` |
//! | 2 | 4 | the schema's tag, four ASCII characters |
//! | 6 | 2 | the schema's version, little-endian |
//! | 8 | 4 | length of the payload in bytes, little-endian |
//! | 12 | 4 | CRC-32C of the payload, little-endian |
//! | 16 | | payload: bincode, little-endian, variable-length integers |
//!
//! The header tells the length, so a stream of values needs no other framing: read [`HEADER_BYTES`], [`Header::parse`] it, read
//! `length` more.
//!
//! ```
//! use tidemill_checkpoints::codec::{self, Schema};
//! const COUNTS: Schema = Schema::new(*b"CNTS", 1);
//! let bytes = codec::encode(COUNTS, &vec![1u64, 2, 3])?;
//! assert_eq!(codec::decode::<Vec<u64>>(COUNTS, &bytes)?, [1, 2, 3]);
//! # Ok::<(), tidemill_checkpoints::Error>(())
//! ```

use crate::ErrorKind;
use crate::limits::CODEC_BYTES_MAX;
use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

/// The length of the header in front of every value.
pub const HEADER_BYTES: usize = 16;

const MAGIC: [u8; 2] = *b"TM";

/// Identifies a type of value and the version of its shape. Change the version with every change of the type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Four ASCII characters, the same for all versions of the type.
    pub tag: [u8; 4],
    /// The version, from 1.
    pub version: u16,
}

impl Schema {
    /// Makes a schema from its tag and version.
    pub const fn new(tag: [u8; 4], version: u16) -> Self {
        Self { tag, version }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.tag.escape_ascii(), self.version)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({self})")
    }
}

/// Why a value could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes end before the value does.
    #[error("{expected}: {actual} bytes are too few, at least {needed} are needed")]
    Truncated {
        /// What was to be read.
        expected: Schema,
        /// How many bytes there are.
        actual: usize,
        /// How many there must be.
        needed: usize,
    },
    /// There are bytes behind the value.
    #[error("{expected}: {extra} bytes follow the value")]
    TrailingBytes {
        /// What was to be read.
        expected: Schema,
        /// How many bytes follow.
        extra: usize,
    },
    /// The bytes are not a value of ours.
    #[error("{expected}: the bytes do not begin with the magic of a tidemill value")]
    NotOurs {
        /// What was to be read.
        expected: Schema,
    },
    /// The bytes are a value of another type.
    #[error("expected {expected}, found {found}")]
    WrongTag {
        /// What was to be read.
        expected: Schema,
        /// What the header says.
        found: Schema,
    },
    /// The value has a version that this program does not read.
    #[error(
        "expected {expected}, found {found}; both processes, and the state, must be of the same version of the program"
    )]
    WrongVersion {
        /// What was to be read.
        expected: Schema,
        /// What the header says.
        found: Schema,
    },
    /// The value is larger than the limit.
    #[error("{expected}: {actual} bytes are more than the limit of {limit}")]
    TooLarge {
        /// What was to be read or written.
        expected: Schema,
        /// The payload's length in bytes.
        actual: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The payload is not what the header's checksum promises.
    #[error("{expected}: the checksum does not match, the bytes were damaged on the way")]
    Damaged {
        /// What was to be read.
        expected: Schema,
    },
    /// The payload is intact, but not a value of the type.
    #[error("{expected}: {source}")]
    Malformed {
        /// What was to be read or written.
        expected: Schema,
        /// What bincode says.
        #[source]
        source: bincode::Error,
    },
}

impl CodecError {
    /// Tells who must act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CodecError::WrongVersion { .. } => ErrorKind::User,
            CodecError::TooLarge { .. } | CodecError::WrongTag { .. } => ErrorKind::Internal,
            _ => ErrorKind::Corrupt,
        }
    }
}

/// The header of a value, checked against what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The value's schema as its writer knew it: the expected tag, and a version not above the expected one.
    pub schema: Schema,
    /// How many bytes of payload follow.
    pub length: usize,
    crc32c: u32,
}

impl Header {
    /// Reads the header at the beginning of `bytes`.
    ///
    /// # Errors
    /// When it is cut off, not ours, of another type, of a newer version, or names a length above `limit`.
    pub fn parse(expected: Schema, bytes: &[u8], limit: usize) -> Result<Self, CodecError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(CodecError::Truncated {
                expected,
                actual: bytes.len(),
                needed: HEADER_BYTES,
            });
        };
        let [m0, m1, t0, t1, t2, t3, v0, v1, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        if [m0, m1] != MAGIC {
            return Err(CodecError::NotOurs { expected });
        }
        let found = Schema::new([t0, t1, t2, t3], u16::from_le_bytes([v0, v1]));
        if found.tag != expected.tag {
            return Err(CodecError::WrongTag { expected, found });
        }
        if found.version > expected.version || found.version == 0 {
            return Err(CodecError::WrongVersion { expected, found });
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > limit {
            return Err(CodecError::TooLarge {
                expected,
                actual: length as u64,
                limit: limit as u64,
            });
        }
        Ok(Self {
            schema: found,
            length,
            crc32c: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    /// Decodes the payload that follows the header, as a `T` of the header's own version.
    ///
    /// # Errors
    /// When the payload has another length than the header says, is damaged, or is no `T`.
    pub fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, CodecError> {
        let expected = self.schema;
        if payload.len() < self.length {
            return Err(CodecError::Truncated {
                expected,
                actual: payload.len(),
                needed: self.length,
            });
        }
        if payload.len() > self.length {
            return Err(CodecError::TrailingBytes {
                expected,
                extra: payload.len() - self.length,
            });
        }
        if crc32c::crc32c(payload) != self.crc32c {
            return Err(CodecError::Damaged { expected });
        }
        bincode_options(self.length)
            .deserialize(payload)
            .map_err(|source| CodecError::Malformed { expected, source })
    }
}

/// Encodes a value behind a header.
///
/// # Errors
/// When the value has more than [`CODEC_BYTES_MAX`] bytes, or its `Serialize` fails.
pub fn encode<T: Serialize + ?Sized>(schema: Schema, value: &T) -> Result<Vec<u8>, CodecError> {
    let malformed = |source| CodecError::Malformed {
        expected: schema,
        source,
    };
    let length = bincode_options(usize::MAX).serialized_size(value).map_err(malformed)?;
    if length > CODEC_BYTES_MAX as u64 {
        return Err(CodecError::TooLarge {
            expected: schema,
            actual: length,
            limit: CODEC_BYTES_MAX as u64,
        });
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + length as usize);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&schema.tag);
    bytes.extend_from_slice(&schema.version.to_le_bytes());
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bincode_options(usize::MAX)
        .serialize_into(&mut bytes, value)
        .map_err(malformed)?;
    let crc = crc32c::crc32c(&bytes[HEADER_BYTES..]);
    bytes[12..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Decodes a value of exactly this schema, version included. To read older versions too, use [`Header`].
///
/// # Errors
/// When the bytes are not exactly one value of the schema, or are damaged.
pub fn decode<T: DeserializeOwned>(schema: Schema, bytes: &[u8]) -> Result<T, CodecError> {
    let header = Header::parse(schema, bytes, CODEC_BYTES_MAX)?;
    if header.schema != schema {
        return Err(CodecError::WrongVersion {
            expected: schema,
            found: header.schema,
        });
    }
    header.decode(&bytes[HEADER_BYTES..])
}

/// The limit guards allocation: bincode would believe any length it reads.
fn bincode_options(limit: usize) -> impl Options {
    bincode::DefaultOptions::new()
        .with_varint_encoding()
        .with_limit(limit as u64)
        .reject_trailing_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    const SCHEMA: Schema = Schema::new(*b"TEST", 2);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        counts: Vec<(u64, Option<i64>)>,
    }

    fn sample() -> Sample {
        Sample {
            name: "ab".into(),
            counts: vec![(7, Some(-1)), (300, None)],
        }
    }

    #[test]
    fn bytes_are_as_the_table_says() {
        let payload = [2, b'a', b'b', 2, 7, 1, 1, 251, 44, 1, 0];
        let mut fixture = b"TMTEST\x02\x00\x0b\x00\x00\x00".to_vec();
        fixture.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        fixture.extend_from_slice(&payload);
        assert_eq!(encode(SCHEMA, &sample()).unwrap(), fixture);
        assert_eq!(decode::<Sample>(SCHEMA, &fixture).unwrap(), sample());
    }

    #[test]
    fn each_mismatch_has_its_own_error() {
        let bytes = encode(SCHEMA, &sample()).unwrap();
        let decode = |schema, bytes: &[u8]| decode::<Sample>(schema, bytes).unwrap_err();
        assert!(matches!(
            decode(Schema::new(*b"ELSE", 2), &bytes),
            CodecError::WrongTag { .. }
        ));
        assert!(matches!(
            decode(Schema::new(*b"TEST", 1), &bytes),
            CodecError::WrongVersion { .. }
        ));
        assert!(matches!(
            decode(Schema::new(*b"TEST", 3), &bytes),
            CodecError::WrongVersion { .. }
        ));
        assert!(matches!(
            decode(SCHEMA, b"PK\x03\x04aaaaaaaaaaaaaaaaaaa"),
            CodecError::NotOurs { .. }
        ));
        assert!(matches!(
            decode(SCHEMA, &[&bytes[..], b"x"].concat()),
            CodecError::TrailingBytes { extra: 1, .. }
        ));
        let mut damaged = bytes.clone();
        damaged[HEADER_BYTES] ^= 1;
        assert!(matches!(decode(SCHEMA, &damaged), CodecError::Damaged { .. }));
        let mut long = bytes.clone();
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(SCHEMA, &long), CodecError::TooLarge { .. }));
        let other = encode(SCHEMA, &1u8).unwrap();
        assert!(matches!(decode(SCHEMA, &other), CodecError::Malformed { .. }));
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = encode(SCHEMA, &sample()).unwrap();
        for cut in 0..bytes.len() {
            assert!(
                matches!(
                    decode::<Sample>(SCHEMA, &bytes[..cut]),
                    Err(CodecError::Truncated { .. })
                ),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn an_older_version_can_be_read_through_the_header() {
        let old = encode(Schema::new(*b"TEST", 1), &5u32).unwrap();
        let header = Header::parse(SCHEMA, &old, 1024).unwrap();
        assert_eq!(header.schema.version, 1);
        assert_eq!(header.decode::<u32>(&old[HEADER_BYTES..]).unwrap(), 5);
    }

    #[test]
    fn a_lying_length_in_the_payload_does_not_allocate() {
        // A vector of 2^62 elements in 9 bytes.
        let mut payload = vec![253];
        payload.extend_from_slice(&(1u64 << 62).to_le_bytes());
        let mut bytes = b"TMTEST\x02\x00\x09\x00\x00\x00".to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        assert!(matches!(
            decode::<Vec<u64>>(SCHEMA, &bytes),
            Err(CodecError::Malformed { .. })
        ));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
            let mut bytes = Vec::new();
            if header {
                bytes.extend_from_slice(b"TMTEST\x02\x00");
                bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
                bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
            }
            bytes.extend_from_slice(&payload);
            let _ = decode::<Sample>(SCHEMA, &bytes);
        }
    }
}
