//! Finds where the records of a file end.

use crate::formats::RecordFormat;
use crate::formats::csv::CsvOptions;

/// How records of a file are told apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Framing {
    /// A record is a line.
    Lines,
    /// A record is a line, but line ends between quotation marks belong to it.
    QuotedLines {
        delimiter: u8,
        quote: u8,
        escape: Option<u8>,
    },
}

/// Where a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The bytes up to and with the line end.
    pub(super) bytes: usize,
    /// The lines.
    pub(super) lines: u64,
}

impl Framing {
    /// Returns the framing of a format.
    pub(super) fn of(format: &RecordFormat) -> Self {
        let byte = |c: char| u8::try_from(c).unwrap_or(0);
        match format {
            RecordFormat::Csv(CsvOptions {
                quote: Some(quote),
                delimiter,
                escape,
                ..
            }) => Self::QuotedLines {
                delimiter: byte(*delimiter),
                quote: byte(*quote),
                escape: escape.map(byte),
            },
            _ => Self::Lines,
        }
    }

    /// Finds the end of the record at the beginning of `bytes`; `None` when it is not among them.
    pub(super) fn find(self, bytes: &[u8]) -> Option<Frame> {
        match self {
            Self::Lines => bytes.iter().position(|&b| b == b'\n').map(|end| Frame {
                bytes: end + 1,
                lines: 1,
            }),
            Self::QuotedLines {
                delimiter,
                quote,
                escape,
            } => {
                let (mut at, mut lines) = (0, 1);
                let (mut field_start, mut quoted) = (true, false);
                while let Some(&b) = bytes.get(at) {
                    if Some(b) == escape && b != quote {
                        at += 2;
                        field_start = false;
                        continue;
                    }
                    match b {
                        b'\n' if !quoted => return Some(Frame { bytes: at + 1, lines }),
                        b'\n' => lines += 1,
                        // A quotation mark written twice closes the field and opens it again.
                        b if b == quote && (field_start || quoted) => quoted = !quoted,
                        b if b == quote && at > 0 && bytes[at - 1] == quote => quoted = true,
                        _ => {}
                    }
                    field_start = !quoted && b == delimiter;
                    at += 1;
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_line_ends_belong_to_their_record() {
        let framing = Framing::QuotedLines {
            delimiter: b',',
            quote: b'"',
            escape: Some(b'\\'),
        };
        let find = |text: &str| framing.find(text.as_bytes()).map(|frame| (frame.bytes, frame.lines));
        assert_eq!(find("a,b\nc"), Some((4, 1)));
        assert_eq!(find("a,\"x\ny\"\nc"), Some((8, 2)));
        assert_eq!(find("a,\"x\"\"\ny\"\nc"), Some((10, 2)));
        assert_eq!(
            find("a,5\" pipe\nc"),
            Some((10, 1)),
            "a quote within a field quotes nothing"
        );
        assert_eq!(find("a,\"x\\\"\ny\"\n"), Some((10, 2)));
        assert_eq!(find("a,\"x\n"), None);
        assert_eq!(Framing::Lines.find(b"ab\ncd"), Some(Frame { bytes: 3, lines: 1 }));
    }
}
