//! Segment files: preallocated, zero-filled, with a header that names them.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TMLOGSEG` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | number of the segment |
//! | 16 | 16 | uuid of the segment |
//! | 32 | 16 | uuid of the store |
//! | 48 | 8 | creation, milliseconds since 1970 |
//! | 56 | 4 | zero |
//! | 60 | 4 | CRC32C of bytes 0..60 |
//!
//! Frames follow. All numbers are little-endian.

use std::io::ErrorKind;
use std::sync::Arc;

use super::names;
use crate::env::{Disk, DiskFile, Environment};
use crate::error::{Corruption, StoreError};
use crate::ids::{SegmentNumber, Uuid};

/// Bytes of a segment's header, and the offset of its first frame.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;

const MAGIC: [u8; 8] = *b"TMLOGSEG";
const VERSION: u32 = 1;
const ZEROS: usize = 1 << 20;

/// Who a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: SegmentNumber,
    pub(crate) uuid: Uuid,
    pub(crate) store: Uuid,
    pub(crate) created_ms: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.number.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.uuid.0);
        bytes[32..48].copy_from_slice(&self.store.0);
        bytes[48..56].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the file called `file`.
    pub(crate) fn decode(file: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |reason: &str| {
            StoreError::Corrupt(Corruption {
                file: file.to_owned(),
                offset: 0,
                len: SEGMENT_HEADER_BYTES,
                shards: Vec::new(),
                reason: reason.to_owned(),
            })
        };
        let bytes: &[u8; SEGMENT_HEADER_BYTES as usize] = bytes
            .get(..SEGMENT_HEADER_BYTES as usize)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| damaged("the file is shorter than a segment's header"))?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[0..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(60) {
            return Err(damaged("the segment's header is damaged"));
        }
        if u32_at(8) > VERSION {
            return Err(StoreError::NewerFormat {
                file: file.to_owned(),
                found: u32_at(8),
                supported: VERSION,
            });
        }
        let header = Self {
            number: SegmentNumber(u32_at(12)),
            uuid: Uuid(bytes[16..32].try_into().expect("sixteen bytes")),
            store: Uuid(bytes[32..48].try_into().expect("sixteen bytes")),
            created_ms: u64::from_le_bytes(bytes[48..56].try_into().expect("eight bytes")),
        };
        if names::segment(header.number) != file {
            return Err(damaged(
                "the header names another segment: the file was renamed or swapped",
            ));
        }
        Ok(header)
    }

    /// Reads the header of an open file.
    pub(crate) fn read(name: &str, file: &dyn DiskFile) -> Result<Self, StoreError> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        match file.read_at(&mut bytes, 0) {
            Ok(length) => Self::decode(name, &bytes[..length]),
            Err(error) => Err(match unreadable(&error) {
                Some(reason) => StoreError::Corrupt(Corruption {
                    file: name.to_owned(),
                    offset: 0,
                    len: SEGMENT_HEADER_BYTES,
                    shards: Vec::new(),
                    reason,
                }),
                None => StoreError::io("read the header of", name, &error),
            }),
        }
    }
}

/// Says that the disk has lost what it should read, when that is what an error means: as good as damaged bytes.
pub(crate) fn unreadable(error: &std::io::Error) -> Option<String> {
    (error.raw_os_error() == Some(nix::errno::Errno::EIO as i32)).then(|| format!("the disk cannot read them: {error}"))
}

/// A segment that can be appended to.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Bytes that are zero-filled and synced.
    pub(crate) capacity: u64,
}

impl Segment {
    /// Creates a segment of `capacity` bytes so that appends need neither more room nor a change of the directory.
    pub(crate) fn prepare(
        environment: &Environment,
        store: Uuid,
        number: SegmentNumber,
        capacity: u64,
    ) -> Result<Self, StoreError> {
        let disk: &dyn Disk = &*environment.disk;
        let name = names::segment(number);
        let unfinished = names::unfinished(&name);
        let failed = |error: std::io::Error| no_room(disk, "prepare log segment", &name, &error);
        let mut uuid = [0; 16];
        environment.entropy.fill(&mut uuid).map_err(failed)?;
        let header = SegmentHeader {
            number,
            uuid: Uuid(uuid),
            store,
            created_ms: environment.clock.now_ms(),
        };
        let file = disk.create(&unfinished).map_err(failed)?;
        file.write_at(&header.encode(), 0).map_err(failed)?;
        fill_with_zeros(&*file, SEGMENT_HEADER_BYTES, capacity).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        disk.rename(&unfinished, &name).map_err(failed)?;
        disk.sync_dir().map_err(failed)?;
        Ok(Self { header, file, capacity })
    }

    /// Makes room for a batch that is larger than usual.
    pub(crate) fn extend(&mut self, disk: &dyn Disk, capacity: u64) -> Result<(), StoreError> {
        if capacity > self.capacity {
            let extended = fill_with_zeros(&*self.file, self.capacity, capacity).and_then(|()| self.file.sync_data());
            let name = names::segment(self.header.number);
            extended.map_err(|error| no_room(disk, "extend log segment", &name, &error))?;
            self.capacity = capacity;
        }
        Ok(())
    }
}

/// The error of a segment that cannot be had.
fn no_room(disk: &dyn Disk, action: &str, name: &str, error: &std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::NoSpace {
            directory: disk.describe(),
        },
        _ => StoreError::io(action, format!("{name} in {}", disk.describe()), error),
    }
}

/// Writes zeros from `start` to `end`.
pub(crate) fn fill_with_zeros(file: &dyn DiskFile, start: u64, end: u64) -> std::io::Result<()> {
    let zeros = vec![0; ZEROS.min((end.saturating_sub(start)) as usize)];
    let mut at = start;
    while at < end {
        let length = (end - at).min(zeros.len() as u64);
        file.write_at(&zeros[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            number: SegmentNumber(5),
            uuid: Uuid([1; 16]),
            store: Uuid([2; 16]),
            created_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn layout_is_the_table() {
        let bytes = header().encode();
        assert_eq!(&bytes[0..8], b"TMLOGSEG");
        assert_eq!(bytes[8..16], [1, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(bytes[48..56], 1_700_000_000_000u64.to_le_bytes());
        assert_eq!(SegmentHeader::decode("0000000005.log", &bytes).unwrap(), header());
    }

    #[test]
    fn swapped_flipped_short_and_newer_files_are_refused() {
        let bytes = header().encode();
        assert!(matches!(
            SegmentHeader::decode("0000000006.log", &bytes),
            Err(StoreError::Corrupt(_))
        ));
        for at in 0..bytes.len() {
            let mut flipped = bytes;
            flipped[at] ^= 0x10;
            assert!(SegmentHeader::decode("0000000005.log", &flipped).is_err(), "byte {at}");
            assert!(
                SegmentHeader::decode("0000000005.log", &bytes[..at]).is_err(),
                "cut at {at}"
            );
        }
        let mut newer = bytes;
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..60]);
        newer[60..64].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(
            SegmentHeader::decode("0000000005.log", &newer),
            Err(StoreError::NewerFormat { .. })
        ));
    }
}
