//! How far a file was read, as checkpoints hold it.
//!
//! `byte=120 line=7 size=4096` for files of lines: the next record begins at byte 120, in line 7 (from 1). `row=500
//! size=4096` for Parquet: 500 rows were read. The size is the file's when it was found: so much of it is read. The
//! form is durable.

use std::fmt;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilePosition {
    pub(super) at: At,
    /// The file's size in bytes when it was found.
    pub(super) size: u64,
}

/// A place in a file, counted as its format is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Line { byte: u64, line: u64 },
    Row(u64),
}

impl fmt::Display for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Line { byte, line } => write!(f, "byte={byte} line={line} size={}", self.size),
            At::Row(row) => write!(f, "row={row} size={}", self.size),
        }
    }
}

impl FilePosition {
    /// Reads a position.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let number = |key: &str| {
            let value = text
                .split(' ')
                .find_map(|part| part.strip_prefix(key)?.strip_prefix('='))?;
            value.parse::<u64>().ok()
        };
        let parsed = match (number("byte"), number("line"), number("row"), number("size")) {
            (Some(byte), Some(line), None, Some(size)) => Some(Self {
                at: At::Line { byte, line },
                size,
            }),
            (None, None, Some(row), Some(size)) => Some(Self { at: At::Row(row), size }),
            _ => None,
        };
        parsed.ok_or_else(|| format!("'{text}' is not a position in a file; the checkpoint is of another connector"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_their_form() {
        for (at, text) in [
            (At::Line { byte: 120, line: 7 }, "byte=120 line=7 size=4096"),
            (At::Row(500), "row=500 size=4096"),
        ] {
            let position = FilePosition { at, size: 4096 };
            assert_eq!(position.to_string(), text);
            assert_eq!(FilePosition::parse(text), Ok(position));
        }
        for wrong in ["", "17@4", "byte=1 size=2", "row=x size=2", "row=1"] {
            assert!(FilePosition::parse(wrong).is_err());
        }
    }
}
