//! How a record is printed.

use super::{Record, json_text};
use crate::timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use std::borrow::Cow;
use std::io::{self, Write};

/// Dim, and back to normal.
const DIM: (&str, &str) = ("\x1b[2m", "\x1b[0m");

/// The form of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The data, and a line feed.
    Lines,
    /// The same, but JSON over several lines.
    Pretty,
    /// A JSON object with everything.
    Json,
    /// The bytes of the data.
    Raw,
}

/// Prints records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    /// In which form.
    pub(super) form: Form,
    /// With shard, sequence number, arrival and key.
    pub(super) is_verbose: bool,
    /// Somebody looks at it: what would move the cursor is shown instead.
    pub(super) is_terminal: bool,
    /// In colours.
    pub(super) has_colour: bool,
}

impl Printer {
    /// Prints a record.
    pub(super) fn print(&self, out: &mut dyn Write, record: &Record) -> io::Result<()> {
        let arrival = record.arrival_ms.map(timestamp::rfc3339);
        match self.form {
            Form::Raw => return out.write_all(&record.data),
            Form::Json => {
                let mut object = json!({
                    "shard_id": record.shard, "sequence_number": record.sequence, "arrival": arrival,
                    "partition_key": record.key,
                });
                match std::str::from_utf8(&record.data) {
                    Ok(text) => object["data"] = text.into(),
                    Err(_) => object["data_base64"] = BASE64.encode(&record.data).into(),
                }
                return writeln!(out, "{object}");
            }
            Form::Lines | Form::Pretty => {}
        }
        let text = std::str::from_utf8(&record.data).ok();
        let pretty = text
            .filter(|_| self.form == Form::Pretty)
            .and_then(|text| json_text::spread(text, self.has_colour));
        if self.is_verbose {
            let prefix = [
                record.shard.as_str(),
                &record.sequence,
                arrival.as_deref().unwrap_or("-"),
                &self.shown(&record.key),
            ]
            .join("\t");
            if self.has_colour {
                write!(out, "{}{prefix}{}", DIM.0, DIM.1)?;
            } else {
                out.write_all(prefix.as_bytes())?;
            }
            let is_spread = pretty.as_ref().is_some_and(|pretty| pretty.contains('\n'));
            out.write_all(if is_spread { b"\n" } else { b"\t" })?;
        }
        match (pretty, text) {
            (Some(pretty), _) => out.write_all(pretty.as_bytes())?,
            (None, Some(text)) => out.write_all(self.shown(text).as_bytes())?,
            (None, None) if self.is_terminal => {
                write!(out, "({} bytes) {}", record.data.len(), record.data.escape_ascii())?;
            }
            (None, None) => out.write_all(&record.data)?,
        }
        out.write_all(b"\n")
    }

    /// A text as a terminal may see it.
    fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let is_unsafe = |c: char| c.is_control() && c != '\t';
        if !self.is_terminal || !text.contains(is_unsafe) {
            return Cow::Borrowed(text);
        }
        let mut safe = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            if is_unsafe(c) {
                safe.extend(c.escape_default());
            } else {
                safe.push(c);
            }
        }
        Cow::Owned(safe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Printer = Printer {
        form: Form::Lines,
        is_verbose: false,
        is_terminal: false,
        has_colour: false,
    };

    fn printed(printer: Printer, data: &[u8]) -> String {
        let record = Record {
            shard: "shardId-000000000000".into(),
            sequence: "7".into(),
            arrival_ms: Some(1_795_414_233_007),
            key: "ann".into(),
            data: data.to_vec(),
        };
        let mut out = Vec::new();
        printer.print(&mut out, &record).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_line_is_the_data_and_nothing_else() {
        assert_eq!(printed(PLAIN, b"a\x1b[2Jb"), "a\x1b[2Jb\n");
        assert_eq!(
            printed(
                Printer {
                    form: Form::Raw,
                    ..PLAIN
                },
                b"ab"
            ),
            "ab"
        );
        assert_eq!(printed(PLAIN, b"{\"a\":1}"), "{\"a\":1}\n");
    }

    #[test]
    fn a_terminal_is_not_given_orders() {
        let terminal = Printer {
            form: Form::Pretty,
            is_terminal: true,
            ..PLAIN
        };
        assert_eq!(printed(terminal, b"a\x1b[2Jb\r"), "a\\u{1b}[2Jb\\r\n");
        assert_eq!(printed(terminal, b"\xff\x1b"), "(2 bytes) \\xff\\x1b\n");
    }

    #[test]
    fn json_has_everything_on_a_line() {
        let printer = Printer {
            form: Form::Json,
            ..PLAIN
        };
        let object: serde_json::Value = serde_json::from_str(&printed(printer, b"{}")).unwrap();
        let expected = json!({
            "shard_id": "shardId-000000000000", "sequence_number": "7", "arrival": "2026-11-23T06:10:33.007Z",
            "partition_key": "ann", "data": "{}",
        });
        assert_eq!(object, expected);
        let object: serde_json::Value = serde_json::from_str(&printed(printer, b"\xff")).unwrap();
        assert_eq!(object["data_base64"], "/w==");
        assert_eq!(object.get("data"), None);
    }

    #[test]
    fn the_prefix_stands_in_front_or_above() {
        let verbose = Printer {
            is_verbose: true,
            ..PLAIN
        };
        let prefix = "shardId-000000000000\t7\t2026-11-23T06:10:33.007Z\tann";
        assert_eq!(printed(verbose, b"x"), format!("{prefix}\tx\n"));
        let pretty = Printer {
            form: Form::Pretty,
            ..verbose
        };
        assert_eq!(printed(pretty, b"{\"a\":1}"), format!("{prefix}\n{{\n  \"a\": 1\n}}\n"));
    }
}
