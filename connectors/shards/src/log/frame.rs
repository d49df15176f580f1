//! Frames: the unit of checksumming in a segment.
//!
//! All numbers are little-endian. A frame starts at a multiple of 8 and is padded with zeros to one.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `TMF1` |
//! | 4 | 1 | format version, 1 |
//! | 5 | 1 | kind: 1 records, 2 staged, 3 control, 4 snapshot, 5 producers |
//! | 6 | 1 | flags: 1 = the frame is one piece with the next |
//! | 7 | 1 | zero |
//! | 8 | 4 | length of the payload, without padding |
//! | 12 | 4 | records, producers: how many; snapshot: number of chunks |
//! | 16 | 8 | shard key; control 0; snapshot `u64::MAX`; producers `i64::MAX` |
//! | 24 | 8 | records: counter of the first; staged: checkpoint; snapshot: index of the chunk |
//! | 32 | 8 | milliseconds since 1970: arrival of the records, or when the frame was written |
//! | 40 | 8 | records: last counter of the shard before this frame; staged: xxh3-64 of job, 0, sink |
//! | 48 | 4 | length of the frame before this one with header and padding; 0 for the first of a segment |
//! | 52 | 4 | offset in the segment where this frame's batch starts |
//! | 56 | 8 | shard key of the frame before this one; bit 63 is set when that was staged |
//! | 64 | 4 | CRC32C of the seed and bytes 0..64 |
//! | 68 | 4 | CRC32C of the seed, bytes 0..68 and the payload |
//! | 72 | | payload |
//!
//! The seed is the uuid of the segment and the frame's offset in it (8 bytes), so neither a block of an older file nor
//! a frame at a wrong place, or inside a record, passes. The header has a checksum of its own: damage in a payload
//! still tells whose it is. The fields about the frame before tell whose a damaged header was.
//!
//! Frames with the flag and the first one behind them without it are one piece: when a crash left only some of them, recovery
//! cuts them all. A producers frame closes such a piece: it tells which requests of producers the records before it are.
//!
//! All records of a frame have the same arrival time and consecutive counters.

use crate::ids::{ShardKey, Uuid};

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 72;
/// Shard key in the header of a snapshot frame.
pub(crate) const SNAPSHOT_KEY: ShardKey = ShardKey(u64::MAX);
/// Shard key in the header of a producers frame.
pub(crate) const PRODUCERS_KEY: ShardKey = ShardKey(u64::MAX >> 1);
/// Set in `previous_shard` when the frame before is staged.
pub(crate) const STAGED_BIT: u64 = 1 << 63;
/// Shard key in the header of a control frame.
pub(crate) const CONTROL_KEY: ShardKey = ShardKey(0);

const ONE_PIECE: u8 = 1;
const MAGIC: [u8; 4] = *b"TMF1";
const VERSION: u8 = 1;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// Visible records of one shard.
    Records = 1,
    /// Records of one shard that wait for their publish.
    Staged = 2,
    /// A change of the metadata, or a publish.
    Control = 3,
    /// A piece of the metadata as a whole.
    Snapshot = 4,
    /// What became of requests of producers, whose records are the frames before it.
    Producers = 5,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Records,
            Self::Staged,
            Self::Control,
            Self::Snapshot,
            Self::Producers,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// The header of a frame, without checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// It is one piece with the next one.
    pub(crate) joined: bool,
    pub(crate) payload_len: u32,
    pub(crate) count: u32,
    pub(crate) shard: ShardKey,
    /// Counter of the first record, checkpoint or chunk.
    pub(crate) first: u64,
    pub(crate) time_ms: u64,
    /// Last counter before, or the sink's hash.
    pub(crate) before: u64,
    pub(crate) previous_len: u32,
    pub(crate) batch_start: u32,
    pub(crate) previous_shard: ShardKey,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// Not even the header is sound.
    Header,
    /// The header is sound, the payload is not, or is cut off.
    Payload,
}

impl FrameFault {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Header => "the header of a frame is damaged",
            Self::Payload => "the payload of a frame does not match its checksum",
        }
    }
}

/// Bytes of a frame with `payload_len` bytes of payload.
pub(crate) fn frame_len(payload_len: usize) -> usize {
    (HEADER_BYTES + payload_len).next_multiple_of(8)
}

impl FrameHeader {
    /// Bytes of the frame with header and padding.
    pub(crate) fn frame_len(&self) -> usize {
        frame_len(self.payload_len as usize)
    }

    /// Counter of the last record.
    pub(crate) fn last(&self) -> u64 {
        self.first + u64::from(self.count).saturating_sub(1)
    }

    /// Writes the header and its checksums in front of the payload that `frame` already holds behind it.
    pub(crate) fn seal(&self, frame: &mut [u8], uuid: Uuid, offset: u64) {
        frame[0..4].copy_from_slice(&MAGIC);
        frame[4] = VERSION;
        frame[5] = self.kind as u8;
        frame[6] = if self.joined { ONE_PIECE } else { 0 };
        frame[7] = 0;
        frame[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        frame[12..16].copy_from_slice(&self.count.to_le_bytes());
        frame[16..24].copy_from_slice(&self.shard.0.to_le_bytes());
        frame[24..32].copy_from_slice(&self.first.to_le_bytes());
        frame[32..40].copy_from_slice(&self.time_ms.to_le_bytes());
        frame[40..48].copy_from_slice(&self.before.to_le_bytes());
        frame[48..52].copy_from_slice(&self.previous_len.to_le_bytes());
        frame[52..56].copy_from_slice(&self.batch_start.to_le_bytes());
        frame[56..64].copy_from_slice(&self.previous_shard.0.to_le_bytes());
        let seed = seed(uuid, offset);
        let header_crc = crc32c::crc32c_append(seed, &frame[..64]);
        frame[64..68].copy_from_slice(&header_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &frame[..68]);
        let crc = crc32c::crc32c_append(crc, &frame[HEADER_BYTES..HEADER_BYTES + self.payload_len as usize]);
        frame[68..72].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads and checks the header alone.
    pub(crate) fn parse(bytes: &[u8], uuid: Uuid, offset: u64) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        if bytes[0..4] != MAGIC || bytes[4] != VERSION {
            return None;
        }
        if crc32c::crc32c_append(seed(uuid, offset), &bytes[..64]) != u32_at(bytes, 64) {
            return None;
        }
        Some(Self {
            kind: FrameKind::from_byte(bytes[5])?,
            joined: bytes[6] & ONE_PIECE != 0,
            payload_len: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            shard: ShardKey(u64_at(bytes, 16)),
            first: u64_at(bytes, 24),
            time_ms: u64_at(bytes, 32),
            before: u64_at(bytes, 40),
            previous_len: u32_at(bytes, 48),
            batch_start: u32_at(bytes, 52),
            previous_shard: ShardKey(u64_at(bytes, 56)),
        })
    }

    /// Reads and checks a whole frame at the start of `bytes`.
    pub(crate) fn open(bytes: &[u8], uuid: Uuid, offset: u64) -> Result<(Self, &[u8]), FrameFault> {
        let header = Self::parse(bytes, uuid, offset).ok_or(FrameFault::Header)?;
        let payload = bytes
            .get(HEADER_BYTES..HEADER_BYTES + header.payload_len as usize)
            .ok_or(FrameFault::Payload)?;
        let crc = crc32c::crc32c_append(seed(uuid, offset), &bytes[..68]);
        if crc32c::crc32c_append(crc, payload) != u32_at(bytes, 68) {
            return Err(FrameFault::Payload);
        }
        Ok((header, payload))
    }
}

fn seed(uuid: Uuid, offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&uuid.0), &offset.to_le_bytes())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Records,
            joined: false,
            payload_len: 5,
            count: 2,
            shard: ShardKey(3),
            first: 17,
            time_ms: 1_700_000_000_123,
            before: 16,
            previous_len: 96,
            batch_start: 64,
            previous_shard: ShardKey(9),
        }
    }

    fn sealed(header: &FrameHeader, payload: &[u8], uuid: Uuid, offset: u64) -> Vec<u8> {
        let mut frame = vec![0; header.frame_len()];
        frame[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        header.seal(&mut frame, uuid, offset);
        frame
    }

    #[test]
    fn layout_is_the_table() {
        let hex: String = sealed(&sample(), b"hello", Uuid([7; 16]), 160)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, include_str!("frame.fixture").trim());
    }

    #[test]
    fn frame_of_another_segment_or_place_is_refused() {
        let frame = sealed(&sample(), b"hello", Uuid([7; 16]), 160);
        assert_eq!(
            FrameHeader::open(&frame, Uuid([7; 16]), 160),
            Ok((sample(), &b"hello"[..]))
        );
        assert_eq!(FrameHeader::open(&frame, Uuid([8; 16]), 160), Err(FrameFault::Header));
        assert_eq!(FrameHeader::open(&frame, Uuid([7; 16]), 168), Err(FrameFault::Header));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen(payload in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8) {
            let header = FrameHeader { payload_len: payload.len() as u32, ..sample() };
            let mut frame = sealed(&header, &payload, Uuid([1; 16]), 8);
            prop_assert_eq!(FrameHeader::open(&frame, Uuid([1; 16]), 8), Ok((header, &payload[..])));
            let at = at.index(HEADER_BYTES + payload.len());
            frame[at] ^= 1u8 << bit;
            prop_assert!(FrameHeader::open(&frame, Uuid([1; 16]), 8).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = FrameHeader::open(&bytes, Uuid([1; 16]), 0);
        }
    }
}
