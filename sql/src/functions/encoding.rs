//! Encodings and hashes.

use super::native::{Args, Gives, Native, Takes};
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion_common::{Result, exec_err};
use md5::Md5;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use std::fmt::Write as _;

use Takes::{Any, Bytes, Integer, Text};

pub(super) const FUNCTIONS: &[Native] = &[
    Native {
        name: "to_base64",
        takes: &[Bytes],
        needed: 1,
        gives: Gives::Text,
        eval: |args| of_bytes(args, |bytes| STANDARD.encode(bytes)),
    },
    Native {
        name: "from_base64",
        takes: &[Text],
        needed: 1,
        gives: Gives::Text,
        eval: from_base64,
    },
    Native {
        name: "hex",
        takes: &[Any],
        needed: 1,
        gives: Gives::Text,
        eval: hex,
    },
    Native {
        name: "unhex",
        takes: &[Text],
        needed: 1,
        gives: Gives::Bytes,
        eval: unhex,
    },
    Native {
        name: "bin",
        takes: &[Integer],
        needed: 1,
        gives: Gives::Text,
        eval: bin,
    },
    Native {
        name: "url_encode",
        takes: &[Text],
        needed: 1,
        gives: Gives::Text,
        eval: url_encode,
    },
    Native {
        name: "url_decode",
        takes: &[Text],
        needed: 1,
        gives: Gives::Text,
        eval: url_decode,
    },
    Native {
        name: "md5",
        takes: &[Bytes],
        needed: 1,
        gives: Gives::Text,
        eval: |args| of_bytes(args, |bytes| lower_hex(&Md5::digest(bytes))),
    },
    Native {
        name: "sha1",
        takes: &[Bytes],
        needed: 1,
        gives: Gives::Text,
        eval: |args| of_bytes(args, |bytes| lower_hex(&sha1(bytes))),
    },
    Native {
        name: "sha224",
        takes: &[Bytes],
        needed: 1,
        gives: Gives::Text,
        eval: |args| of_bytes(args, |bytes| lower_hex(&Sha224::digest(bytes))),
    },
    Native {
        name: "sha256",
        takes: &[Bytes],
        needed: 1,
        gives: Gives::Text,
        eval: |args| of_bytes(args, |bytes| lower_hex(&Sha256::digest(bytes))),
    },
    Native {
        name: "sha384",
        takes: &[Bytes],
        needed: 1,
        gives: Gives::Text,
        eval: |args| of_bytes(args, |bytes| lower_hex(&Sha384::digest(bytes))),
    },
    Native {
        name: "sha512",
        takes: &[Bytes],
        needed: 1,
        gives: Gives::Text,
        eval: |args| of_bytes(args, |bytes| lower_hex(&Sha512::digest(bytes))),
    },
    Native {
        name: "sha2",
        takes: &[Bytes, Integer],
        needed: 2,
        gives: Gives::Text,
        eval: sha2_of,
    },
    Native {
        name: "encode_text",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Bytes,
        eval: encode,
    },
    Native {
        name: "decode_text",
        takes: &[Bytes, Text],
        needed: 2,
        gives: Gives::Text,
        eval: decode,
    },
];

fn of_bytes(args: &Args<'_>, of: fn(&[u8]) -> String) -> Result<ArrayRef> {
    let bytes = args.bytes(0);
    args.texts(|row| bytes.get(row).map(of))
}

fn lower_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Null for what is not base64 of text.
fn from_base64(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0);
    args.texts(|row| String::from_utf8(STANDARD.decode(text.get(row)?).ok()?).ok())
}

/// Writes an integer, or the bytes of a text, in capital hexadecimal digits.
fn hex(args: &Args<'_>) -> Result<ArrayRef> {
    let values = args.array(0)?;
    if values.data_type().is_integer() {
        let values = arrow::compute::cast(&values, &DataType::Int64)?;
        let values = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&values).clone();
        return args.texts(|row| {
            let is_valid = arrow::array::Array::is_valid(&values, row);
            is_valid.then(|| format!("{:X}", values.value(row)))
        });
    }
    if !(values.data_type().is_string() || values.data_type().is_binary() || values.data_type().is_null()) {
        return exec_err!(
            "HEX takes an integer, STRING or BYTES, not {}",
            crate::types::sql_name(values.data_type())
        );
    }
    let values = arrow::compute::cast(&values, &DataType::Binary)?;
    let values = arrow::array::AsArray::as_binary::<i32>(&values).clone();
    args.texts(|row| {
        let is_valid = arrow::array::Array::is_valid(&values, row);
        is_valid.then(|| lower_hex(values.value(row)).to_uppercase())
    })
}

fn unhex(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0);
    args.all_bytes(|row| {
        let digits = text.get(row)?;
        // An odd number of digits begins with a half byte.
        let digits = if digits.len() % 2 == 0 {
            digits.to_owned()
        } else {
            format!("0{digits}")
        };
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let pairs = digits.as_bytes().chunks_exact(2);
        pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
    })
}

fn bin(args: &Args<'_>) -> Result<ArrayRef> {
    let number = args.integer(0);
    args.texts(|row| number.get(row).map(|number| format!("{number:b}")))
}

/// As forms are sent: letters, digits and `*-._` stay, a space becomes `+`.
fn url_encode(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0);
    args.texts(|row| {
        let mut encoded = String::new();
        for byte in text.get(row)?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
                b' ' => encoded.push('+'),
                _ => {
                    let _ = write!(encoded, "%{byte:02X}");
                }
            }
        }
        Some(encoded)
    })
}

/// Null for what is not encoded so.
fn url_decode(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0);
    args.texts(|row| {
        let mut bytes = text.get(row)?.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            decoded.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let mut digit = || Some(char::from(bytes.next()?).to_digit(16)? as u8);
                    digit()? << 4 | digit()?
                }
                other => other,
            });
        }
        String::from_utf8(decoded).ok()
    })
}

fn sha2_of(args: &Args<'_>) -> Result<ArrayRef> {
    let (bytes, bits) = (args.bytes(0), args.integer(1));
    if let Some(bits) = (0..args.rows)
        .filter_map(|row| bits.get(row))
        .find(|bits| ![224, 256, 384, 512].contains(bits))
    {
        return exec_err!("SHA2 has no length of {bits} bits; use 224, 256, 384 or 512");
    }
    args.texts(|row| {
        let bytes = bytes.get(row)?;
        Some(match bits.get(row)? {
            224 => lower_hex(&Sha224::digest(bytes)),
            256 => lower_hex(&Sha256::digest(bytes)),
            384 => lower_hex(&Sha384::digest(bytes)),
            _ => lower_hex(&Sha512::digest(bytes)),
        })
    })
}

fn charset_error<T>(name: &str) -> Result<T> {
    exec_err!(
        "the character set {name} is not supported; use UTF-8, US-ASCII, ISO-8859-1, UTF-16BE, UTF-16LE or UTF-16"
    )
}

fn encode(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, charset) = (args.text(0), args.text(1));
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        values.push(match (text.get(row), charset.get(row)) {
            (Some(text), Some(charset)) => Some(encoded(text, charset)?),
            _ => None,
        });
    }
    args.all_bytes(|row| values[row].take())
}

fn encoded(text: &str, charset: &str) -> Result<Vec<u8>> {
    let single = |last: u32| {
        text.chars()
            .map(|c| if u32::from(c) <= last { c as u8 } else { b'?' })
            .collect()
    };
    Ok(match charset.to_ascii_uppercase().as_str() {
        "UTF-8" | "UTF8" => text.as_bytes().to_vec(),
        "US-ASCII" => single(0x7f),
        "ISO-8859-1" => single(0xff),
        "UTF-16BE" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        "UTF-16LE" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "UTF-16" => [0xfe, 0xff]
            .into_iter()
            .chain(text.encode_utf16().flat_map(u16::to_be_bytes))
            .collect(),
        _ => return charset_error(charset),
    })
}

fn decode(args: &Args<'_>) -> Result<ArrayRef> {
    let (bytes, charset) = (args.bytes(0), args.text(1));
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        values.push(match (bytes.get(row), charset.get(row)) {
            (Some(bytes), Some(charset)) => Some(decoded(bytes, charset)?),
            _ => None,
        });
    }
    args.texts(|row| values[row].as_deref())
}

fn decoded(bytes: &[u8], charset: &str) -> Result<String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    Ok(match charset.to_ascii_uppercase().as_str() {
        "UTF-8" | "UTF8" => String::from_utf8_lossy(bytes).into_owned(),
        "US-ASCII" => bytes
            .iter()
            .map(|byte| {
                if byte.is_ascii() {
                    char::from(*byte)
                } else {
                    char::REPLACEMENT_CHARACTER
                }
            })
            .collect(),
        "ISO-8859-1" => bytes.iter().map(|byte| char::from(*byte)).collect(),
        "UTF-16BE" => wide(bytes, u16::from_be_bytes),
        "UTF-16LE" => wide(bytes, u16::from_le_bytes),
        "UTF-16" => match bytes {
            [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
            [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
            _ => wide(bytes, u16::from_be_bytes),
        },
        _ => return charset_error(charset),
    })
}

/// SHA-1 (FIPS 180-4, section 6.1): no crate of the tree has it, and it is broken for anything but comparing.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() < message.len() + 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(message.len() as u64).wrapping_mul(8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut w = [0u32; 80];
        for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for t in 16..80 {
            w[t] = (w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in w.iter().enumerate() {
            let (f, k) = match t {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(f)
                .wrapping_add(e)
                .wrapping_add(k)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, word) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(word);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_of_known_messages() {
        for (message, digest) in [
            (String::new(), "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("abc".into(), "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".into(),
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            ),
            ("a".repeat(1_000_000), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
        ] {
            assert_eq!(lower_hex(&sha1(message.as_bytes())), digest);
        }
    }
}
