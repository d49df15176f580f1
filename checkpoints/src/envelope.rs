//! The wrapping of every JSON object: kind, format version and checksum.
//!
//! The bytes are exactly `{"tidemill":"KIND","format":N,"crc32c":"XXXXXXXX","body":` followed by the body's JSON and `}` with a line
//! feed: one JSON document that any tool reads, whose checksum (CRC-32C of the body's bytes, eight hexadecimal digits) can be
//! verified without parsing the body. The version comes first so that a newer body is refused, not misread.

use crate::{Error, Result};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// The format version that this program writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

/// What the body of an envelope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Generation,
    Manifest,
    Committed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Generation => "generation",
            Kind::Manifest => "manifest",
            Kind::Committed => "committed",
        }
    }
}

#[derive(Deserialize)]
struct Head {
    tidemill: String,
    format: u32,
    crc32c: String,
    #[serde(rename = "body")]
    _body: IgnoredAny,
}

fn head(kind: Kind, format: u32, crc32c: &str) -> String {
    format!(
        "{{\"tidemill\":\"{}\",\"format\":{format},\"crc32c\":\"{crc32c}\",\"body\":",
        kind.name()
    )
}

const TAIL: &[u8] = b"}\n";

/// Wraps a body for the object of this name.
pub(crate) fn wrap<T: Serialize>(kind: Kind, object: &str, body: &T) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(body).map_err(|error| Error::Encode {
        what: object.to_owned(),
        detail: error.to_string(),
    })?;
    let mut bytes = head(kind, FORMAT, &format!("{:08x}", crc32c::crc32c(&body))).into_bytes();
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(TAIL);
    Ok(bytes)
}

/// Verifies the object of this name and returns its body.
pub(crate) fn unwrap<T: DeserializeOwned>(kind: Kind, object: &str, bytes: &[u8]) -> Result<T> {
    let corrupt = |detail: String| Error::Corrupt {
        object: object.to_owned(),
        detail,
    };
    let found: Head = serde_json::from_slice(bytes).map_err(|error| corrupt(format!("it is no envelope: {error}")))?;
    if found.tidemill != kind.name() {
        return Err(corrupt(format!(
            "it is a {:?}, not a {:?}",
            found.tidemill,
            kind.name()
        )));
    }
    if found.format == 0 {
        return Err(corrupt("its format version is 0".to_owned()));
    }
    if found.format > FORMAT {
        return Err(Error::UnsupportedVersion {
            object: object.to_owned(),
            found: found.format,
            supported: FORMAT,
        });
    }
    let body = bytes
        .strip_prefix(head(kind, found.format, &found.crc32c).as_bytes())
        .and_then(|rest| rest.strip_suffix(TAIL))
        .ok_or_else(|| corrupt("the envelope was written by another program".to_owned()))?;
    let actual = format!("{:08x}", crc32c::crc32c(body));
    if actual != found.crc32c {
        return Err(corrupt(format!("its checksum is {actual}, expected {}", found.crc32c)));
    }
    serde_json::from_slice(body).map_err(|error| corrupt(format!("its body cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    const FIXTURE: &[u8] = b"{\"tidemill\":\"committed\",\"format\":1,\"crc32c\":\"5d9c1c85\",\"body\":[1,2]}\n";

    #[test]
    fn bytes_are_as_the_header_says() {
        let written = wrap(Kind::Committed, "x", &[1, 2]).unwrap();
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(FIXTURE));
        assert_eq!(unwrap::<Vec<i32>>(Kind::Committed, "x", FIXTURE).unwrap(), [1, 2]);
        serde_json::from_slice::<serde_json::Value>(FIXTURE).unwrap();
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found_and_names_the_object() {
        for at in 0..FIXTURE.len() {
            for bit in 0..8 {
                let mut bytes = FIXTURE.to_vec();
                bytes[at] ^= 1 << bit;
                let error = unwrap::<Vec<i32>>(Kind::Committed, "the/object", &bytes).unwrap_err();
                assert!(error.to_string().contains("the/object"), "{error}");
            }
            assert!(unwrap::<Vec<i32>>(Kind::Committed, "x", &FIXTURE[..at]).is_err());
        }
    }

    #[test]
    fn a_newer_format_is_refused_before_its_body_is_read() {
        let newer = String::from_utf8_lossy(FIXTURE).replace("\"format\":1", "\"format\":2");
        let error = unwrap::<Vec<i32>>(Kind::Committed, "x", newer.as_bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::UnsupportedVersion {
                    found: 2,
                    supported: 1,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::User);
    }

    #[test]
    fn another_kind_is_refused() {
        assert!(matches!(
            unwrap::<Vec<i32>>(Kind::Manifest, "x", FIXTURE),
            Err(Error::Corrupt { .. })
        ));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(unwrap::<Vec<i32>>(Kind::Manifest, "x", &bytes).is_err());
        }
    }
}
