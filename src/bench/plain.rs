//! A plain sequential writer: what the disk gives to whoever writes so much and syncs so often.

#![allow(
    clippy::disallowed_methods,
    reason = "it writes one file of its own, in the benchmark's directory"
)]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of the file, written beforehand so that writing changes no metadata, as with the log's segments. The writer
/// begins anew at its end.
const FILE_BYTES: u64 = 256 << 20;
/// Bytes of one write that prepares the file.
const PREPARE_BYTES: usize = 1 << 20;

/// A prepared file.
#[derive(Debug)]
pub(super) struct PlainFile {
    file: File,
    offset: u64,
}

impl PlainFile {
    /// Prepares a file.
    pub(super) fn prepare(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create_new(true).write(true).open(path)?;
        let zeros = vec![0; PREPARE_BYTES];
        for offset in (0..FILE_BYTES).step_by(PREPARE_BYTES) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        Ok(Self { file, offset: 0 })
    }

    /// Writes `bytes` at a time, each with an fdatasync, for `duration`; returns bytes a second.
    pub(super) fn write_for(&mut self, bytes: usize, duration: Duration) -> std::io::Result<f64> {
        let bytes = bytes.clamp(1, PREPARE_BYTES * 64);
        let content = vec![b'x'; bytes];
        let (started, mut written) = (Instant::now(), 0u64);
        while started.elapsed() < duration {
            if self.offset + bytes as u64 > FILE_BYTES {
                self.offset = 0;
            }
            self.file.write_all_at(&content, self.offset)?;
            self.file.sync_data()?;
            self.offset += bytes as u64;
            written += bytes as u64;
        }
        Ok(written as f64 / started.elapsed().as_secs_f64())
    }
}
