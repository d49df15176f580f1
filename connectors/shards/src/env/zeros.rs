//! Zeros for a file of the file system, past the page cache.
//!
//! A segment is prepared with as many zeros as it will hold bytes. Through the page cache each of them costs what a record
//! costs, new pages above all; written directly they come from one small buffer, and the pages are made when the records
//! are. The blocks are written either way, so a sync behind a record changes nothing but the record's own blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::disk::ZEROS_BYTES;

/// Alignment of direct writes, in memory and in the file: no disk asks for more.
const ALIGNMENT: u64 = 4 << 10;

/// Writes zeros from `start` to `end` of a file that nobody else uses meanwhile: directly what is aligned, where the file
/// system can, and the rest through the page cache.
pub(super) fn write(file: &File, start: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES.min(end.saturating_sub(start) as usize) + ALIGNMENT as usize];
    // Where there is no such offset the direct write is refused, and it goes through the page cache.
    let zeros = &zeros[zeros.as_ptr().align_offset(ALIGNMENT as usize).min(ALIGNMENT as usize)..];
    let (first, last) = (start.next_multiple_of(ALIGNMENT), end / ALIGNMENT * ALIGNMENT);
    if last.saturating_sub(first) < ZEROS_BYTES as u64 {
        return fill(file, zeros, start, end);
    }
    fill(file, zeros, start, first)?;
    let reached = directly(file, zeros, first, last)?;
    fill(file, zeros, reached, end)
}

/// Writes directly as far as it can be done; returns how far that is.
fn directly(file: &File, zeros: &[u8], start: u64, end: u64) -> io::Result<u64> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    if fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_DIRECT)).is_err() {
        // The file system has no such writes.
        return Ok(start);
    }
    let mut at = start;
    let written = loop {
        let length = (end - at).min(ZEROS_BYTES as u64);
        if length == 0 {
            break Ok(());
        }
        match file.write_at(&zeros[..length as usize], at) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => at += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It has them, but asks for more than this alignment; or it wrote a part that is not aligned.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // What is written later is not aligned.
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    written.map(|()| at)
}

/// Writes through the page cache.
fn fill(file: &File, zeros: &[u8], start: u64, end: u64) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let length = (end - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_where_they_belong_and_the_file_takes_any_write_afterwards() {
        const LENGTH: usize = 4 * ZEROS_BYTES;
        for (start, end) in [
            (64, LENGTH),
            (0, LENGTH - 1),
            (4_097, 4_099),
            (5_000, 2 * ZEROS_BYTES + 77),
            (8_192, 8_192 + ZEROS_BYTES),
            (70, 70),
        ] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&vec![b'x'; LENGTH], 0).unwrap();
            write(&file, start as u64, end as u64).unwrap();
            let mut expected = vec![b'x'; LENGTH];
            expected[start..end].fill(0);
            file.write_all_at(b"odd", 3).unwrap();
            expected[3..6].copy_from_slice(b"odd");
            let mut bytes = vec![0; LENGTH + 1];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), LENGTH, "{start}..{end}");
            assert!(bytes[..LENGTH] == expected, "{start}..{end}");
        }
    }

    #[test]
    fn zeros_make_an_empty_file_as_long_as_they_reach() {
        let file = tempfile::tempfile().unwrap();
        write(&file, 64, 3 * ZEROS_BYTES as u64 + 5).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3 * ZEROS_BYTES as u64 + 5);
    }
}
