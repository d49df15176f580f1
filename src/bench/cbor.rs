//! As much of CBOR (RFC 8949) as the load needs: a PutRecords request, and the number of failed records in its answer.

const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
/// Nesting of an answer.
const DEPTH_MAX: u32 = 16;

fn head(major: u8, argument: usize, out: &mut Vec<u8>) {
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        _ => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    head(TEXT, text.len(), out);
    out.extend(text.as_bytes());
}

/// Writes a PutRecords request; each record is a partition key and its data.
pub(super) fn put_records<'a>(stream: &str, records: impl ExactSizeIterator<Item = (String, &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    head(MAP, 2, &mut out);
    text("StreamName", &mut out);
    text(stream, &mut out);
    text("Records", &mut out);
    head(ARRAY, records.len(), &mut out);
    for (key, data) in records {
        head(MAP, 2, &mut out);
        text("PartitionKey", &mut out);
        text(&key, &mut out);
        text("Data", &mut out);
        head(BYTES, data.len(), &mut out);
        out.extend(data);
    }
    out
}

/// Reads `FailedRecordCount` of an answer; `None` when it has none, or is no CBOR.
pub(super) fn failed_record_count(answer: &[u8]) -> Option<u64> {
    let mut reader = Reader(answer);
    let (major, length) = reader.head()?;
    if major != MAP {
        return None;
    }
    let mut left = length;
    while reader.goes_on(&mut left)? {
        let (major, length) = reader.head()?;
        let length = usize::try_from(length?).ok()?;
        let name = reader.take(length)?;
        if major == TEXT && name == b"FailedRecordCount" {
            return match reader.head()? {
                (0, number) => number,
                _ => None,
            };
        }
        reader.skip(DEPTH_MAX)?;
    }
    None
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// The major type in place, and the argument; no argument is an indefinite length.
    fn head(&mut self) -> Option<(u8, Option<u64>)> {
        let first = self.take(1)?[0];
        let argument = match first & 31 {
            small @ 0..=23 => Some(u64::from(small)),
            size @ 24..=27 => {
                let bytes = self.take(1 << (size - 24))?;
                Some(bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
            }
            31 => None,
            _ => return None,
        };
        Some((first & 0xe0, argument))
    }

    /// Says whether another member follows.
    fn goes_on(&mut self, left: &mut Option<u64>) -> Option<bool> {
        match left {
            Some(0) => Some(false),
            Some(left) => {
                *left -= 1;
                Some(true)
            }
            None if *self.0.first()? == 0xff => {
                self.take(1)?;
                Some(false)
            }
            None => Some(true),
        }
    }

    fn skip(&mut self, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let (major, length) = self.head()?;
        match (major >> 5, length) {
            (2 | 3, Some(length)) => self.take(usize::try_from(length).ok()?).map(|_| ()),
            (2..=5, _) => {
                let mut left = length;
                while self.goes_on(&mut left)? {
                    self.skip(depth)?;
                    if major == MAP {
                        self.skip(depth)?;
                    }
                }
                Some(())
            }
            (6, _) => self.skip(depth),
            _ => Some(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_rfc_8949_has_it() {
        let request = put_records("s", [("k".to_owned(), &[1u8, 2][..])].into_iter());
        let mut expected = vec![0xa2, 0x6a];
        expected.extend(b"StreamName\x61s\x67Records\x81\xa2\x6cPartitionKey\x61k\x64Data\x42\x01\x02");
        assert_eq!(request, expected);
        let large = vec![0; 70_000];
        let request = put_records("s", [("k".to_owned(), &large[..])].into_iter());
        assert!(request.windows(5).any(|bytes| bytes == [0x5a, 0, 1, 0x11, 0x70]));
    }

    #[test]
    fn the_count_is_found_behind_anything() {
        // {_ "Records": [_ {_ "a": 1, "b": h'00'}], "x": 1(-5), "FailedRecordCount": 300}
        let mut answer =
            b"\xbf\x67Records\x9f\xbf\x61a\x01\x61b\x41\x00\xff\xff\x61x\xc1\x24\x71FailedRecordCount".to_vec();
        answer.extend([0x19, 1, 44, 0xff]);
        assert_eq!(failed_record_count(&answer), Some(300));
        assert_eq!(failed_record_count(b"\xa1\x71FailedRecordCount\x00"), Some(0));
        for broken in [
            &b""[..],
            b"\xa0",
            b"\x80",
            b"{\"FailedRecordCount\":0}",
            b"\xa1\x71FailedRecordCount",
            b"\xbf\x61",
        ] {
            assert_eq!(failed_record_count(broken), None, "{broken:?}");
        }
        assert_eq!(
            failed_record_count(&[&b"\xa1\x61a"[..], &[0x81; 100]].concat()),
            None,
            "too deep"
        );
        for end in 0..answer.len() - 1 {
            let _ = failed_record_count(&answer[..end]);
        }
    }
}
