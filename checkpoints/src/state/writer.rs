//! Builds and takes apart state objects. The byte table stands in [`crate::state`].

use super::{FORMAT, HEADER_BYTES, MAGIC, SECTION_HEADER_BYTES};
use crate::limits::{SECTION_NAME_BYTES_MAX, STATE_OBJECT_BYTES_MAX};
use crate::{Error, KeyGroup, KeyGroupRange, OperatorUid, Result, SectionRef};
use bytes::Bytes;

/// Builds the state object of one worker.
#[derive(Debug)]
pub struct StateWriter {
    parts: Vec<Bytes>,
    length: usize,
    crc32c: u32,
    sections: Vec<SectionRef>,
}

/// A finished state object, ready for upload.
///
/// It is kept in parts, so that state of gigabytes is not copied once more to lie in one piece.
#[derive(Clone, Debug)]
pub struct StateObject {
    /// The object's bytes, one part after the other.
    pub parts: Vec<Bytes>,
    /// Its sections, in order.
    pub sections: Vec<SectionRef>,
    /// The CRC-32C of the whole object.
    pub crc32c: u32,
}

impl Default for StateWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl StateWriter {
    /// Starts an empty object.
    pub fn new() -> Self {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.resize(HEADER_BYTES, 0);
        Self {
            crc32c: crc32c::crc32c(&header),
            length: header.len(),
            parts: vec![header.into()],
            sections: Vec::new(),
        }
    }

    /// Appends a section. `key_groups` is none for state that belongs to no key. An operator may append several sections of one
    /// name; they are read in the order in which they were appended.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the object would have more than [`STATE_OBJECT_BYTES_MAX`] bytes, or the uid or the name more than
    /// [`SECTION_NAME_BYTES_MAX`].
    pub fn append(
        &mut self,
        operator: &OperatorUid,
        name: &str,
        key_groups: Option<KeyGroupRange>,
        content: impl Into<Bytes>,
    ) -> Result<()> {
        let content = content.into();
        for (what, text) in [("operator uid", operator.0.as_str()), ("section name", name)] {
            if text.len() > SECTION_NAME_BYTES_MAX {
                let limit = SECTION_NAME_BYTES_MAX as u64;
                return Err(Error::TooLarge {
                    what: format!("{what} {text:.40}"),
                    actual: text.len() as u64,
                    limit,
                });
            }
        }
        let added = SECTION_HEADER_BYTES + operator.0.len() + name.len() + content.len();
        let actual = (self.length + added) as u64;
        if actual > STATE_OBJECT_BYTES_MAX {
            let what = format!("the state of one worker (at operator {operator}, section {name})");
            return Err(Error::TooLarge {
                what,
                actual,
                limit: STATE_OBJECT_BYTES_MAX,
            });
        }

        let crc32c = crc32c::crc32c(&content);
        let (first, last) = key_groups.map_or((0, 0), |groups| (groups.first.0, groups.last.0));
        let mut header = Vec::with_capacity(added - content.len());
        for field in [
            operator.0.len() as u16,
            name.len() as u16,
            u16::from(key_groups.is_some()),
            first,
            last,
            0,
        ] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        header.extend_from_slice(&(content.len() as u64).to_le_bytes());
        header.extend_from_slice(&crc32c.to_le_bytes());
        let header_crc = header_crc(&header, operator.0.as_bytes(), name.as_bytes());
        header.extend_from_slice(&header_crc.to_le_bytes());
        header.extend_from_slice(operator.0.as_bytes());
        header.extend_from_slice(name.as_bytes());
        let offset = (self.length + header.len()) as u64;
        let length = content.len() as u64;
        self.length += added;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &header);
        self.crc32c = crc32c::crc32c_combine(self.crc32c, crc32c, content.len());
        self.parts.push(header.into());
        if !content.is_empty() {
            self.parts.push(content);
        }
        self.sections.push(SectionRef {
            operator: operator.clone(),
            name: name.to_owned(),
            key_groups,
            offset,
            length,
            crc32c,
        });
        Ok(())
    }

    /// Returns whether nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Returns the length of the object so far, in bytes.
    pub fn bytes_len(&self) -> usize {
        self.length
    }

    /// Takes what was appended since the last call: the object's bytes up to here, for whoever uploads them while others are made.
    /// [`StateWriter::finish`] then gives an object without them.
    pub(crate) fn take_parts(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.parts)
    }

    /// Ends the object.
    pub fn finish(self) -> StateObject {
        StateObject {
            parts: self.parts,
            sections: self.sections,
            crc32c: self.crc32c,
        }
    }
}

impl PartialEq for StateObject {
    /// Where one part ends and the next begins does not matter.
    fn eq(&self, other: &Self) -> bool {
        (self.crc32c, &self.sections) == (other.crc32c, &other.sections) && self.is(&other.bytes())
    }
}

impl Eq for StateObject {}

impl StateObject {
    /// Returns the object's length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// Returns the object in one piece; copies it.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.parts.concat().into()
    }

    /// Says whether the object has these bytes.
    #[must_use]
    pub fn is(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let is_next = |part: &Bytes| match rest.split_at_checked(part.len()) {
            Some((start, behind)) => {
                rest = behind;
                start == part
            }
            None => false,
        };
        self.length() == bytes.len() as u64 && self.parts.iter().all(is_next)
    }

    /// Takes an object apart by its own section headers and verifies all checksums.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::UnsupportedVersion`], naming `object`.
    pub fn parse(object: &str, bytes: Bytes) -> Result<Self> {
        let corrupt = |detail: String| Error::Corrupt {
            object: object.to_owned(),
            detail,
        };
        match bytes.first_chunk::<HEADER_BYTES>() {
            Some([m0, m1, m2, m3, v0, v1, zero @ ..]) if [*m0, *m1, *m2, *m3] == *MAGIC => {
                let found = u16::from_le_bytes([*v0, *v1]);
                if found > FORMAT {
                    let (found, supported) = (found.into(), FORMAT.into());
                    return Err(Error::UnsupportedVersion {
                        object: object.to_owned(),
                        found,
                        supported,
                    });
                }
                if found == 0 || zero.iter().any(|&byte| byte != 0) {
                    return Err(corrupt("its header is not one of ours".to_owned()));
                }
            }
            _ => return Err(corrupt("it does not begin with the magic of a state object".to_owned())),
        }
        let mut sections = Vec::new();
        let mut at = HEADER_BYTES;
        while at < bytes.len() {
            let section = parse_section(&bytes, at).map_err(|detail| corrupt(format!("at offset {at}: {detail}")))?;
            at = (section.offset + section.length) as usize;
            sections.push(section);
        }
        let crc32c = crc32c::crc32c(&bytes);
        Ok(Self {
            parts: vec![bytes],
            sections,
            crc32c,
        })
    }
}

/// Reads and verifies the section whose header begins at `at`.
fn parse_section(bytes: &[u8], at: usize) -> Result<SectionRef, String> {
    let rest = &bytes[at..];
    let header = rest
        .first_chunk::<SECTION_HEADER_BYTES>()
        .ok_or("a section header is cut off")?;
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (uid_len, name_len) = (usize::from(u16_at(0)), usize::from(u16_at(2)));
    let rest = &rest[SECTION_HEADER_BYTES..];
    let uid = rest.get(..uid_len).ok_or("an operator uid is cut off")?;
    let name = rest
        .get(uid_len..uid_len + name_len)
        .ok_or("a section name is cut off")?;
    if header_crc(&header[..24], uid, name) != u32_at(24) {
        return Err("the checksum of a section header does not match".to_owned());
    }
    let key_groups = match (u16_at(4), u16_at(6), u16_at(8)) {
        (0, 0, 0) => None,
        (1, first, last) if first <= last => Some(KeyGroupRange {
            first: KeyGroup(first),
            last: KeyGroup(last),
        }),
        _ => return Err("a section's key groups are impossible".to_owned()),
    };
    let length = u64::from(u32_at(12)) | u64::from(u32_at(16)) << 32;
    let offset = at + SECTION_HEADER_BYTES + uid_len + name_len;
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| offset.checked_add(length));
    let content = end
        .and_then(|end| bytes.get(offset..end))
        .ok_or("a section's content is cut off")?;
    let crc32c = u32_at(20);
    if crc32c::crc32c(content) != crc32c {
        return Err("the checksum of a section's content does not match".to_owned());
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "a name is not UTF-8".to_owned());
    Ok(SectionRef {
        operator: OperatorUid(text(uid)?),
        name: text(name)?,
        key_groups,
        offset: offset as u64,
        length,
        crc32c,
    })
}

fn header_crc(fields: &[u8], uid: &[u8], name: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(fields), uid), name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> StateObject {
        let mut writer = StateWriter::new();
        assert!(writer.is_empty());
        let groups = KeyGroupRange::new(KeyGroup(1), KeyGroup(258));
        writer
            .append(&"op".into(), "t", Some(groups), b"abc".as_slice())
            .unwrap();
        writer.append(&"op".into(), "", None, b"".as_slice()).unwrap();
        writer.finish()
    }

    #[test]
    fn bytes_are_as_the_table_says() {
        #[rustfmt::skip]
        let mut fixture = vec![
            b'T', b'M', b'S', b'T', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 1, 0, 1, 0, 1, 0, 2, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0xb7, 0x3f, 0x4b, 0x36,
        ];
        let crc = crc32c::crc32c(&[&fixture[16..40], b"opt"].concat());
        fixture.extend_from_slice(&crc.to_le_bytes());
        fixture.extend_from_slice(b"optabc");
        let second = fixture.len();
        fixture.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let crc = crc32c::crc32c(&[&fixture[second..], b"op"].concat());
        fixture.extend_from_slice(&crc.to_le_bytes());
        fixture.extend_from_slice(b"op");

        let object = sample();
        assert_eq!(object.bytes(), fixture);
        assert!(object.is(&fixture) && !object.is(&fixture[1..]) && !object.is(&[&fixture[..], &[0]].concat()));
        assert_eq!(
            (object.length(), object.crc32c),
            (fixture.len() as u64, crc32c::crc32c(&fixture))
        );
        assert_eq!(object.sections[0].offset, 47);
        assert_eq!(StateObject::parse("x", object.bytes()).unwrap(), object);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let object = sample();
        for at in 0..object.bytes().len() {
            for bit in 0..8 {
                let mut bytes = object.bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let error = StateObject::parse("the/object", bytes.into()).unwrap_err();
                assert!(error.to_string().contains("the/object"), "{error}");
            }
            // A cut between two sections leaves a shorter valid object; the manifest's length and checksum tell.
            let cut = StateObject::parse("x", object.bytes().slice(..at));
            assert!(cut.is_err() || at == HEADER_BYTES || at as u64 == object.sections[0].offset + 3);
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut bytes = sample().bytes().to_vec();
        bytes[4] = 2;
        let error = StateObject::parse("x", bytes.into()).unwrap_err();
        assert!(matches!(
            error,
            Error::UnsupportedVersion {
                found: 2,
                supported: 1,
                ..
            }
        ));
    }

    #[test]
    fn names_over_the_limit_are_refused() {
        let long = "x".repeat(SECTION_NAME_BYTES_MAX + 1);
        let mut writer = StateWriter::new();
        assert!(matches!(
            writer.append(&"op".into(), &long, None, b"".as_slice()),
            Err(Error::TooLarge { .. })
        ));
        assert!(matches!(
            writer.append(&OperatorUid(long), "n", None, b"".as_slice()),
            Err(Error::TooLarge { .. })
        ));
        assert!(writer.is_empty());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            let mut bytes = if magic { StateWriter::new().finish().bytes().to_vec() } else { Vec::new() };
            bytes.extend_from_slice(&tail);
            let _ = StateObject::parse("x", bytes.into());
        }

        #[test]
        fn sections_round_trip(sections in proptest::collection::vec(
            (".{0,20}", ".{0,20}", proptest::option::of((0u16..300, 0u16..300)), proptest::collection::vec(any::<u8>(), 0..100)), 0..10,
        )) {
            let mut writer = StateWriter::new();
            for (uid, name, groups, content) in &sections {
                let groups = groups.map(|(a, b)| KeyGroupRange::new(KeyGroup(a.min(b)), KeyGroup(a.max(b))));
                writer.append(&uid.as_str().into(), name, groups, content.clone()).unwrap();
            }
            let object = writer.finish();
            let parsed = StateObject::parse("x", object.bytes()).unwrap();
            prop_assert_eq!(&parsed, &object);
            for (section, (_, _, _, content)) in parsed.sections.iter().zip(&sections) {
                let range = section.offset as usize..(section.offset + section.length) as usize;
                prop_assert_eq!(&object.bytes()[range], content.as_slice());
            }
        }
    }
}
