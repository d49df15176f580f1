//! Reads a file of records: chunks are read on the I/O runtime, one ahead, and decoded on the worker.
//!
//! A file is opened for each chunk, so that a thousand splits hold no thousand files open; a split that nobody reads
//! holds no memory either. What was read of a file is fixed by the size it had when it was found.

use super::framing::Framing;
use super::partition::Constants;
use super::position::{At, FilePosition};
use super::source_error;
use crate::formats::assembler::Layout;
use crate::formats::csv::CsvOptions;
use crate::formats::{ParseErrors, RecordDecoder, RecordFormat};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemill_engine::source::{ReadOutcome, SplitContext, SplitReader};
use tidemill_engine::{Error, Result};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 512 << 10;
/// The longest record; more than a stream's largest.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Rows of a batch.
const BATCH_ROWS_MAX: usize = 8_192;

/// Reads one file.
pub(super) struct LineReader {
    table: String,
    path: PathBuf,
    /// Where the next record begins.
    byte: u64,
    line: u64,
    size: u64,
    framing: Framing,
    /// Whether blank lines are records.
    blank_lines: BlankLines,
    comments: bool,
    parse_errors: ParseErrors,
    decoder: Box<dyn RecordDecoder>,
    layout: Arc<Layout>,
    constants: Constants,
    /// What was read and not decoded yet begins at `buffer[at]`.
    buffer: Vec<u8>,
    at: usize,
    pending: Option<oneshot::Receiver<Result<Vec<u8>, String>>>,
    /// There is no whole record in the buffer: a chunk is needed.
    starved: bool,
    failed: Option<Error>,
    context: SplitContext,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlankLines {
    Skip,
    Keep,
}

impl LineReader {
    /// Opens a file at a position; nothing is read until somebody asks.
    pub(super) fn open(
        path: PathBuf,
        position: FilePosition,
        format: &RecordFormat,
        decoder: Box<dyn RecordDecoder>,
        layout: Arc<Layout>,
        constants: Constants,
        context: SplitContext,
    ) -> Self {
        let (byte, line, failed) = match position.at {
            At::Line { byte, line } => (byte, line, None),
            At::Row(_) => {
                let message = format!("the position {position} is of a Parquet file: the table's format was changed");
                (0, 1, Some(source_error(&context.table, message)))
            }
        };
        let comments = matches!(format, RecordFormat::Csv(CsvOptions { allow_comments, .. }) if allow_comments.is_on());
        Self {
            table: context.table.clone(),
            path,
            byte,
            line,
            size: position.size,
            framing: Framing::of(format),
            blank_lines: if matches!(format, RecordFormat::Raw(_)) {
                BlankLines::Keep
            } else {
                BlankLines::Skip
            },
            comments,
            parse_errors: format.parse_errors(),
            decoder,
            layout,
            constants,
            buffer: Vec::new(),
            at: 0,
            pending: None,
            starved: false,
            failed,
            context,
        }
    }

    /// Returns the bytes that were read and not decoded.
    fn buffered(&self) -> usize {
        self.buffer.len() - self.at
    }

    /// Returns where the next chunk begins.
    fn read_to(&self) -> u64 {
        self.byte + self.buffered() as u64
    }

    /// Asks for the next chunk, unless one is on its way or there is none.
    fn request(&mut self) {
        let offset = self.read_to();
        if self.pending.is_some() || offset >= self.size {
            return;
        }
        let (reply, pending) = oneshot::channel();
        self.pending = Some(pending);
        let (path, size, wake) = (self.path.clone(), self.size, Arc::clone(&self.context.waker));
        self.context.runtime.spawn_blocking(move || {
            let _ = reply.send(read_chunk(&path, offset, size));
            wake();
        });
    }

    /// Takes the chunk that is on its way, if it has come.
    fn receive(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        let received = match pending.try_recv() {
            Ok(received) => received,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Closed) => Err(format!("the reading of {} ended by itself", self.path.display())),
        };
        self.pending = None;
        match received {
            Ok(chunk) => {
                self.buffer.drain(..self.at);
                self.at = 0;
                self.buffer.extend_from_slice(&chunk);
                self.starved = false;
            }
            Err(message) => self.failed = Some(source_error(&self.table, message)),
        }
    }

    /// Decodes whole records of the buffer within the budget.
    fn decode(&mut self, rows_max: usize, bytes_max: usize) -> Result<()> {
        let whole = self.read_to() >= self.size;
        let (mut bytes, mut dropped) = (0, 0);
        while self.decoder.rows() < rows_max && bytes < bytes_max {
            let rest = &self.buffer[self.at..];
            let (length, lines) = match self.framing.find(rest) {
                Some(frame) => (frame.bytes, frame.lines),
                // The last record may lack its line end.
                None if whole && !rest.is_empty() => (rest.len(), 1),
                None => {
                    self.starved = true;
                    break;
                }
            };
            let record = &rest[..length];
            let record = record.strip_suffix(b"\n").unwrap_or(record);
            let mut record = record.strip_suffix(b"\r").unwrap_or(record);
            if self.byte == 0 {
                record = record.strip_prefix(b"\xef\xbb\xbf").unwrap_or(record);
            }
            let blank = self.blank_lines == BlankLines::Skip && record.iter().all(u8::is_ascii_whitespace);
            let comment = self.comments && record.starts_with(b"#");
            if !blank && !comment {
                match self.decoder.decode(record) {
                    Ok(()) => {}
                    Err(error) => match self.parse_errors {
                        ParseErrors::Drop => dropped += 1,
                        ParseErrors::Fail { remedy } => {
                            let message = format!("{} line {}: {error}; {remedy}", self.path.display(), self.line);
                            return Err(source_error(&self.table, message));
                        }
                    },
                }
            }
            self.at += length;
            self.byte += length as u64;
            self.line += lines;
            bytes += length;
        }
        self.context.metrics.bytes_in.add(bytes as u64);
        self.context.metrics.rows_dropped.add(dropped);
        if self.starved && self.buffered() > RECORD_BYTES_MAX {
            let (path, limit) = (self.path.display(), RECORD_BYTES_MAX >> 20);
            let message = format!("{path} line {}: the record is longer than {limit} MiB", self.line);
            return Err(source_error(&self.table, message));
        }
        Ok(())
    }
}

impl SplitReader for LineReader {
    fn read(&mut self, rows_max: usize, bytes_max: usize) -> Result<ReadOutcome> {
        let rows_max = rows_max.clamp(1, BATCH_ROWS_MAX);
        loop {
            self.receive();
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            if let Err(error) = self.decode(rows_max, bytes_max.max(1)) {
                self.failed = Some(error.clone());
                return Err(error);
            }
            // While the worker is busy with these rows the next chunk is read.
            if self.buffered() < CHUNK_BYTES || self.starved {
                self.request();
            }
            let rows = self.decoder.rows();
            if rows > 0 {
                let columns = self.decoder.finish()?;
                let constants = &self.constants;
                let batch = self
                    .layout
                    .assemble(rows, &columns, |origin, field| constants.column(origin, field, rows))?;
                return Ok(ReadOutcome::Rows(batch));
            }
            if self.byte >= self.size {
                return Ok(ReadOutcome::Ended);
            }
            if self.starved {
                return Ok(ReadOutcome::Pending);
            }
        }
    }

    fn position(&self) -> String {
        FilePosition {
            at: At::Line {
                byte: self.byte,
                line: self.line,
            },
            size: self.size,
        }
        .to_string()
    }

    fn is_ready(&mut self) -> bool {
        self.receive();
        self.failed.is_some() || !self.starved || self.byte >= self.size
    }
}

/// Reads a chunk of a file, up to the size that the file had when it was found.
fn read_chunk(path: &Path, offset: u64, size: u64) -> Result<Vec<u8>, String> {
    let error = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let mut file = File::open(path).map_err(error)?;
    check_size(path, &file, size)?;
    file.seek(SeekFrom::Start(offset)).map_err(error)?;
    let wanted = (size - offset).min(CHUNK_BYTES as u64);
    let mut chunk = Vec::with_capacity(usize::try_from(wanted).unwrap_or(CHUNK_BYTES));
    file.take(wanted).read_to_end(&mut chunk).map_err(error)?;
    if (chunk.len() as u64) < wanted {
        return Err(format!("{} became shorter while it was read", path.display()));
    }
    Ok(chunk)
}

/// Checks that a file did not become shorter since it was found.
pub(super) fn check_size(path: &Path, file: &File, size: u64) -> Result<(), String> {
    let now = file
        .metadata()
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?
        .len();
    if now < size {
        return Err(format!(
            "{} had {size} bytes when it was found and has {now} now: files must not be rewritten while they are read; \
             write them elsewhere and move them in",
            path.display()
        ));
    }
    Ok(())
}
