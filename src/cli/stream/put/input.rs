//! From bytes to records.

use super::key::KeyChoice;
use super::queue::{Entry, Place};
use crate::cli::stream::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::BufRead;
use tokio::sync::mpsc;

/// Lines that are handed on together, at most.
const CHUNK_LINES_MAX: usize = 500;
/// Their bytes, at most, one line apart.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// How records lie in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Each line is one.
    Lines,
    /// Each line is one, in base64.
    Base64Lines,
    /// All of it is one.
    Whole,
}

/// What the stream takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of a record, data and key.
    pub(super) record_bytes: usize,
}

/// Why the input ends early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// What is there cannot be a record.
    Refused(String),
    /// It cannot be read.
    Failed(String),
}

impl Read {
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Refused(text) => Failure::Refused(text),
            Self::Failed(text) => Failure::Failed(text),
        }
    }
}

/// Reads records.
pub(super) struct Input<R> {
    reader: std::io::BufReader<R>,
    form: Form,
    keys: KeyChoice,
    limits: Limits,
    line: u64,
}

impl<R: std::io::Read> Input<R> {
    pub(super) fn new(reader: R, form: Form, keys: KeyChoice, limits: Limits) -> Self {
        Self {
            reader: std::io::BufReader::with_capacity(256 << 10, reader),
            form,
            keys,
            limits,
            line: 0,
        }
    }

    /// Reads to the end, or until nobody takes the records. What is bad comes behind all that is good.
    pub(super) fn send_to(mut self, chunks: &mpsc::Sender<Result<Vec<Entry>, Read>>) {
        loop {
            let (chunk, end) = self.chunk();
            if !chunk.is_empty() && chunks.blocking_send(Ok(chunk)).is_err() {
                return;
            }
            match end {
                None => {}
                Some(Ok(())) => return,
                Some(Err(read)) => {
                    let _ = chunks.blocking_send(Err(read));
                    return;
                }
            }
        }
    }

    /// Reads the records that are there; waits only for the first one.
    fn chunk(&mut self) -> (Vec<Entry>, Option<Result<(), Read>>) {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        loop {
            match self.record() {
                Ok(None) => return (chunk, Some(Ok(()))),
                Err(read) => return (chunk, Some(Err(read))),
                Ok(Some(entry)) => {
                    bytes += entry.data.len();
                    chunk.push(entry);
                }
            }
            let is_full = chunk.len() >= CHUNK_LINES_MAX || bytes >= CHUNK_BYTES_MAX;
            // The next line is not complete yet: whoever types it may take a while.
            if is_full || !self.reader.buffer().contains(&b'\n') {
                return (chunk, None);
            }
        }
    }

    fn record(&mut self) -> Result<Option<Entry>, Read> {
        if self.form == Form::Whole && self.line > 0 {
            return Ok(None);
        }
        self.line += 1;
        let place = if self.form == Form::Whole {
            Place::Whole
        } else {
            Place::Line(self.line)
        };
        let Some(data) = self.bytes(place)? else {
            return Ok(None);
        };
        let refused = |reason: String| Read::Refused(format!("{place}: {reason}; nothing from here on is stored"));
        let data = if self.form == Form::Base64Lines {
            BASE64
                .decode(data.trim_ascii())
                .map_err(|error| refused(format!("this is not base64: {error}")))?
        } else {
            data
        };
        let key = self.keys.of(&data).map_err(refused)?;
        let bytes = data.len() + key.len();
        if bytes > self.limits.record_bytes {
            return Err(refused(format!(
                "the record has {bytes} bytes with its key, and the stream takes up to {}",
                self.limits.record_bytes
            )));
        }
        Ok(Some(Entry { place, key, data }))
    }

    /// Reads a line without its line feed, or everything; `None` at the end.
    fn bytes(&mut self, place: Place) -> Result<Option<Vec<u8>>, Read> {
        // A line without end does not fill the memory.
        let most = match self.form {
            Form::Base64Lines => self.limits.record_bytes / 3 * 4 + 1_024,
            _ => self.limits.record_bytes,
        };
        let mut data = Vec::new();
        let mut limited = std::io::Read::take(&mut self.reader, most as u64 + 2);
        let read = match self.form {
            Form::Whole => std::io::Read::read_to_end(&mut limited, &mut data),
            _ => limited.read_until(b'\n', &mut data),
        };
        let count = read.map_err(|error| Read::Failed(format!("cannot read standard input: {error}")))?;
        if self.form != Form::Whole {
            if count == 0 {
                return Ok(None);
            }
            if data.last() == Some(&b'\n') {
                data.pop();
            }
        }
        if data.len() > most {
            return Err(Read::Refused(format!(
                "{place}: it has more than the {} bytes that a record of the stream can have; nothing from here on is \
                 stored",
                self.limits.record_bytes
            )));
        }
        Ok(Some(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], form: Form, field: Option<&str>) -> (Vec<Entry>, Option<Read>) {
        let keys = KeyChoice::new(field.is_none().then(|| "k".into()), field).unwrap();
        let limits = Limits { record_bytes: 64 };
        let mut input = Input::new(text, form, keys, limits);
        let mut all = Vec::new();
        loop {
            let (chunk, end) = input.chunk();
            all.extend(chunk);
            match end {
                None => {}
                Some(Ok(())) => return (all, None),
                Some(Err(read)) => return (all, Some(read)),
            }
        }
    }

    fn data(entries: &[Entry]) -> Vec<&[u8]> {
        entries.iter().map(|entry| &entry.data[..]).collect()
    }

    #[test]
    fn every_line_is_a_record_with_all_its_bytes() {
        let (entries, end) = read(b"a\n\n\xff\x00\r\nlast", Form::Lines, None);
        assert_eq!(data(&entries), [&b"a"[..], b"", b"\xff\x00\r", b"last"]);
        assert_eq!(entries[3].place, Place::Line(4));
        assert_eq!(end, None);
        assert_eq!(read(b"", Form::Lines, None).0, []);
    }

    #[test]
    fn base64_lines_and_the_whole_input() {
        let (entries, end) = read(b"aGk=\r\nAAE=\n", Form::Base64Lines, None);
        assert_eq!((data(&entries), end), (vec![&b"hi"[..], b"\x00\x01"], None));
        let (entries, end) = read(b"a\nb\n", Form::Whole, None);
        assert_eq!((data(&entries), end), (vec![&b"a\nb\n"[..]], None));
        assert_eq!(data(&read(b"", Form::Whole, None).0), [b""]);
    }

    #[test]
    fn the_first_bad_line_is_named_and_the_ones_before_it_are_kept() {
        for (text, form, field, words) in [
            (
                &b"{\"u\":1}\nx\n{\"u\":2}\n"[..],
                Form::Lines,
                Some("u"),
                "line 2: this is not JSON",
            ),
            (b"aGk=\n???\n", Form::Base64Lines, None, "line 2: this is not base64"),
            (
                &[&b"ok\n"[..], &[b'x'; 64], b"\n"].concat(),
                Form::Lines,
                None,
                "line 2: the record has 65 bytes",
            ),
            (
                &[&b"ok\n"[..], &[b'x'; 9_999]].concat(),
                Form::Lines,
                None,
                "line 2: it has more than the 64 bytes",
            ),
        ] {
            let (entries, end) = read(text, form, field);
            assert_eq!(entries.len(), 1, "{words}");
            let Some(Read::Refused(message)) = end else {
                panic!("{words}: {end:?}")
            };
            assert!(message.contains(words), "{message}");
        }
        let (entries, end) = read(&[b'x'; 9_999], Form::Whole, None);
        assert!(entries.is_empty() && matches!(end, Some(Read::Refused(text)) if text.starts_with("standard input: ")));
    }
}
