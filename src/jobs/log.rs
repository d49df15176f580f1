//! What a job's process prints: standard output into the job's log file, standard error on to the server's own.
//!
//! Standard output is where the `print` connector writes; it goes to `logs/<uid>.out` in the data directory, of which at
//! most [`LOG_BYTES_MAX`] bytes and one older file are kept. Standard error carries the process's log lines, which are
//! structured as the server's are; they pass through, and the last ones are kept for the job's status.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// The size at which a job's log file is put aside and begun anew, in bytes.
pub(crate) const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lines of standard error kept for the job's status.
pub(crate) const STDERR_LINES_MAX: usize = 20;
/// The longest line kept or passed on, in bytes; longer ones are cut in pieces.
pub(crate) const LINE_BYTES_MAX: usize = 8 * 1024;

/// The last lines of a process's standard error.
#[derive(Clone, Debug, Default)]
pub(crate) struct StderrTail(Arc<Mutex<VecDeque<String>>>);

impl StderrTail {
    /// Adds a line and forgets the oldest.
    fn push(&self, line: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == STDERR_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(line).trim_end().to_owned());
    }

    /// Returns the lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

/// Passes standard error on, line by line, until it ends.
pub(crate) async fn pass_stderr(stream: impl AsyncRead + Unpin, tail: StderrTail) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line).await {
        tail.push(&line);
        // Like the server's own log lines; a closed standard error is no reason to stop a job.
        let _ = std::io::stderr().write_all(&line);
    }
}

/// Writes standard output to the job's log file, until it ends. When the file cannot be written the output is dropped,
/// and that is logged: a job must not stand still because nobody can read what it prints.
pub(crate) async fn store_stdout(stream: impl AsyncRead + Unpin, path: PathBuf) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let mut log = None;
    while read_line(&mut reader, &mut line).await {
        // Most jobs print nothing, and a job that is refused never was: no file for these.
        let written = match &mut log {
            Some(log) => Log::write(log, &line).await,
            None => match Log::open(&path).await {
                Ok(opened) => log.insert(opened).write(&line).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = &written {
            tracing::warn!(path = %path.display(), %error, "cannot write what a job prints; the rest of it is dropped");
            let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
            return;
        }
    }
}

struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    async fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).await?;
        let bytes = file.metadata().await?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    async fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.bytes >= LOG_BYTES_MAX {
            tokio::fs::rename(&self.path, self.path.with_extension("out.1")).await?;
            *self = Self::open(&self.path).await?;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line).await?;
        self.file.flush().await
    }
}

/// Reads a line, its end included, or [`LINE_BYTES_MAX`] bytes of it. Returns false at the end of the stream.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> bool {
    line.clear();
    let read = reader.take(LINE_BYTES_MAX as u64).read_until(b'\n', line).await;
    matches!(read, Ok(bytes) if bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_is_kept_and_put_aside_when_it_grows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.out");
        store_stdout(&b"one\ntwo\n"[..], path.clone()).await;
        store_stdout(&b"three"[..], path.clone()).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree");
        std::fs::write(&path, vec![b'x'; LOG_BYTES_MAX as usize]).unwrap();
        store_stdout(&b"four\n"[..], path.clone()).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
        assert_eq!(
            std::fs::metadata(path.with_extension("out.1")).unwrap().len(),
            LOG_BYTES_MAX
        );
    }

    #[tokio::test]
    async fn a_job_that_prints_nothing_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.out");
        store_stdout(&b""[..], path.clone()).await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_tail_holds_the_last_lines_and_cuts_long_ones() {
        let tail = StderrTail::default();
        let mut text = Vec::new();
        for line in 0..100 {
            text.extend(format!("line {line}\n").bytes());
        }
        text.extend(vec![b'y'; LINE_BYTES_MAX + 1]);
        pass_stderr(text.as_slice(), tail.clone()).await;
        let lines = tail.lines();
        assert_eq!(lines.len(), STDERR_LINES_MAX);
        assert_eq!(lines[0], "line 82");
        assert_eq!((lines[18].len(), lines[19].len()), (LINE_BYTES_MAX, 1));
    }
}
