//! Plain sequential writers: what the disk gives to whoever writes so much and syncs so often.
//!
//! One appends to a new file, as the log in effect does, which keeps what it has. The other overwrites a file that was
//! prepared: on a disk that is as fast as memory it shows the price of new blocks and pages, which no log that keeps its
//! records can avoid.

#![allow(
    clippy::disallowed_methods,
    reason = "it writes files of its own, in the benchmark's directory"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of the file; the writer begins anew at its end.
const FILE_BYTES: u64 = 256 << 20;
/// Bytes of an appending writer's file: then it begins another.
const APPENDED_BYTES: u64 = 4 << 30;
/// Bytes of one write that prepares the file.
const PREPARE_BYTES: usize = 1 << 20;

/// A file that was written before, so that writing it again takes no new blocks and no new pages of the cache: the most that
/// the disk gives to anybody who overwrites.
#[derive(Debug)]
pub(super) struct PreparedFile {
    file: File,
    offset: u64,
}

impl PreparedFile {
    /// Prepares a file.
    pub(super) fn prepare(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create_new(true).write(true).open(path)?;
        let zeros = vec![0; PREPARE_BYTES];
        for offset in (0..FILE_BYTES).step_by(PREPARE_BYTES) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        Ok(Self { file, offset: 0 })
    }

    /// Writes `bytes` at a time, each with an fdatasync, for `duration`; returns bytes a second.
    pub(super) fn overwrite_for(&mut self, bytes: usize, duration: Duration) -> io::Result<f64> {
        let content = content(bytes);
        let (started, mut written) = (Instant::now(), 0u64);
        while started.elapsed() < duration {
            if self.offset + content.len() as u64 > FILE_BYTES {
                self.offset = 0;
            }
            self.file.write_all_at(&content, self.offset)?;
            self.file.sync_data()?;
            self.offset += content.len() as u64;
            written += content.len() as u64;
        }
        Ok(written as f64 / started.elapsed().as_secs_f64())
    }
}

/// Appends `bytes` at a time to a new file, each with an fdatasync, for `duration`; returns bytes a second. The file is
/// gone afterwards.
pub(super) fn append_for(path: &Path, bytes: usize, duration: Duration) -> io::Result<f64> {
    let content = content(bytes);
    let (started, mut written) = (Instant::now(), 0u64);
    let create = || OpenOptions::new().create_new(true).append(true).open(path);
    let mut file = create()?;
    let mut length = 0;
    while started.elapsed() < duration {
        if length + content.len() as u64 > APPENDED_BYTES {
            std::fs::remove_file(path)?;
            (file, length) = (create()?, 0);
        }
        file.write_all(&content)?;
        file.sync_data()?;
        length += content.len() as u64;
        written += content.len() as u64;
    }
    let speed = written as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(speed)
}

fn content(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes.clamp(1, PREPARE_BYTES * 64)]
}
