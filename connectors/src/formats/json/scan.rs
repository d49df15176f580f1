//! Walks JSON text: finds where strings, numbers and whole values end, and checks them on the way.

use super::DEPTH_MAX;
use crate::formats::record_error::RecordError;

/// A place in a JSON text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// A string as it stands in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawString<'a> {
    /// What stands between the quotation marks.
    pub(super) raw: &'a str,
    /// Whether there are escapes in it.
    pub(super) escaped: bool,
}

/// How a value begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    /// Returns the place, in bytes.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Returns the text since a place.
    pub(super) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    #[inline]
    pub(super) fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Goes over `byte` if it is next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    /// Goes over `bytes` if they are next.
    #[inline]
    pub(super) fn take_all(&mut self, bytes: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(bytes);
        self.at += if found { bytes.len() } else { 0 };
        found
    }

    /// Goes over `byte`, after whitespace.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), RecordError> {
        self.skip_whitespace();
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.expected(&format!("'{}'", char::from(byte))))
        }
    }

    /// Checks that nothing but whitespace is left.
    pub(super) fn end(&mut self) -> Result<(), RecordError> {
        self.skip_whitespace();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.expected("the end of the record"))
        }
    }

    /// Says how the next value begins, after whitespace.
    #[inline]
    pub(super) fn peek(&mut self) -> Result<Token, RecordError> {
        self.skip_whitespace();
        match self.bytes.get(self.at) {
            Some(b'"') => Ok(Token::String),
            Some(b'-' | b'0'..=b'9') => Ok(Token::Number),
            Some(b'{') => Ok(Token::Object),
            Some(b'[') => Ok(Token::Array),
            Some(b't') => Ok(Token::True),
            Some(b'f') => Ok(Token::False),
            Some(b'n') => Ok(Token::Null),
            _ => Err(self.expected("a value")),
        }
    }

    /// Goes over a string.
    #[inline]
    pub(super) fn string(&mut self) -> Result<RawString<'a>, RecordError> {
        if !self.take(b'"') {
            return Err(self.expected("a string"));
        }
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = find_special(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(RawString { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.expected("the end of a string")),
            }
        }
    }

    /// Goes over an escape and checks it.
    fn escape(&mut self) -> Result<(), RecordError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.expected("four hexadecimal digits after \\u"));
                }
                self.at += 6;
            }
            _ => return Err(self.expected("an escape that JSON knows")),
        }
        Ok(())
    }

    /// Goes over a number.
    #[inline]
    pub(super) fn number(&mut self) -> Result<&'a str, RecordError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    #[inline]
    fn digits(&mut self) -> Result<(), RecordError> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(self.expected("a digit"))
        }
    }

    /// Goes over `true`, `false` or `null`.
    pub(super) fn word(&mut self, word: &str) -> Result<(), RecordError> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.expected(word))
        }
    }

    /// Goes over a whole value, checking it.
    pub(super) fn skip_value(&mut self, depth: usize) -> Result<(), RecordError> {
        match self.peek()? {
            Token::String => self.string().map(|_| ()),
            Token::Number => self.number().map(|_| ()),
            Token::True => self.word("true"),
            Token::False => self.word("false"),
            Token::Null => self.word("null"),
            Token::Object | Token::Array => self.skip_container(depth),
        }
    }

    /// Goes over an object or an array without recursion: what is open is a stack of bits, 1 for an object.
    fn skip_container(&mut self, depth: usize) -> Result<(), RecordError> {
        let mut open: Vec<Token> = Vec::new();
        loop {
            // At the beginning of a value.
            let token = self.peek()?;
            match token {
                Token::Object | Token::Array => {
                    if depth + open.len() >= DEPTH_MAX {
                        return Err(too_deep());
                    }
                    self.at += 1;
                    self.skip_whitespace();
                    if self.take(if token == Token::Object { b'}' } else { b']' }) {
                        if open.is_empty() {
                            return Ok(());
                        }
                    } else {
                        open.push(token);
                        if token == Token::Object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                _ => self.skip_value(depth)?,
            }
            // Behind a value: close what ends here, or go to the next one.
            loop {
                let Some(container) = open.last() else { return Ok(()) };
                let object = *container == Token::Object;
                self.skip_whitespace();
                if self.take(b',') {
                    if object {
                        self.skip_whitespace();
                        self.key()?;
                    }
                    break;
                }
                if !self.take(if object { b'}' } else { b']' }) {
                    return Err(self.expected(if object { "',' or '}'" } else { "',' or ']'" }));
                }
                open.pop();
            }
        }
    }

    /// Goes over a key and its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<RawString<'a>, RecordError> {
        let key = self.string()?;
        if !self.take(b':') {
            self.expect(b':')?;
        }
        Ok(key)
    }

    /// Makes the error for something else than what was expected.
    #[cold]
    pub(super) fn expected(&self, what: &str) -> RecordError {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("{c:?}"),
            None => "the end of the record".to_owned(),
        };
        RecordError::new(format!(
            "not valid JSON at byte {}: expected {what}, found {found}",
            self.at
        ))
    }
}

pub(super) fn too_deep() -> RecordError {
    RecordError::new(format!("the JSON is nested deeper than {DEPTH_MAX}"))
}

/// Returns the place of the first quotation mark, backslash or control character from `at` on, or the end.
///
/// Eight bytes are looked at together: in `x - 0x01..` a byte's high bit is set where the byte was zero (and possibly
/// above one that was, which does not matter for the first).
#[inline]
fn find_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(word) = bytes.get(at..at + 8) {
        let Ok(word) = word.try_into().map(u64::from_le_bytes) else {
            break;
        };
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let special = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let special = special & HIGHS;
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&b| b != b'"' && b != b'\\' && b >= 0x20) {
        at += 1;
    }
    at
}

/// Writes what an escaped string means.
pub(super) fn unescape(raw: &str, out: &mut String) -> Result<(), RecordError> {
    out.clear();
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let kind = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or("");
        match kind {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let first = take_hex(&mut rest)?;
                let code = if (0xd800..0xdc00).contains(&first) && rest.starts_with("\\u") {
                    rest = &rest[2..];
                    let second = take_hex(&mut rest)?;
                    if !(0xdc00..0xe000).contains(&second) {
                        return Err(lone_surrogate());
                    }
                    0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                out.push(char::from_u32(code).ok_or_else(lone_surrogate)?);
            }
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
    Ok(())
}

fn take_hex(rest: &mut &str) -> Result<u32, RecordError> {
    let digits = rest.get(..4).ok_or_else(lone_surrogate)?;
    let value = u32::from_str_radix(digits, 16).map_err(|_| lone_surrogate())?;
    *rest = &rest[4..];
    Ok(value)
}

fn lone_surrogate() -> RecordError {
    RecordError::new("a string has half of a surrogate pair, which no text can hold")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn valid(text: &str) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.skip_value(0).and_then(|()| scanner.end()).is_ok()
    }

    #[test]
    fn the_grammar_is_kept() {
        for text in [
            "{}",
            "[]",
            "[1,2]",
            r#"{"a":[{"b":null},true],"c":"\u00e9\n"}"#,
            "-0.5e+3",
            " [ ] ",
            "[[],{}]",
        ] {
            assert!(valid(text), "{text}");
        }
        for text in [
            "",
            "{",
            "[1,]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            "01",
            "1.",
            "-",
            "[1 2]",
            "nul",
            "\"\n\"",
            r#""\x""#,
            "{]",
        ] {
            assert!(!valid(text), "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit_and_no_recursion() {
        assert!(valid(&format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX))));
        assert!(!valid(&format!(
            "{}{}",
            "[".repeat(DEPTH_MAX + 1),
            "]".repeat(DEPTH_MAX + 1)
        )));
        assert!(!valid(&"[{\"a\":".repeat(1_000_000)));
    }

    #[test]
    fn escapes_mean_what_they_say() {
        let mut out = String::new();
        unescape(r#"a\n\"\\\/\u00e9\ud83d\ude00"#, &mut out).unwrap();
        assert_eq!(out, "a\n\"\\/\u{e9}\u{1f600}");
        assert!(unescape(r"\ud83d", &mut out).is_err());
        assert!(unescape(r"\ud83dA", &mut out).is_err());
    }

    proptest! {
        #[test]
        fn specials_are_found_where_a_plain_search_finds_them(bytes: Vec<u8>, from in 0..40_usize) {
            let from = from.min(bytes.len());
            let plain = bytes[from..].iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20);
            prop_assert_eq!(find_special(&bytes, from), plain.map_or(bytes.len(), |i| from + i));
        }

        #[test]
        fn agrees_with_another_parser(text in r#"[\[\]{}:,"\\a1.e \-tn]{0,12}"#) {
            prop_assert_eq!(valid(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok()
                || too_large_for_the_other(&text), "{}", text);
        }
    }

    /// The other parser refuses numbers that no double can hold; as text they are valid.
    fn too_large_for_the_other(text: &str) -> bool {
        serde_json::from_str::<serde_json::Value>(text).is_err_and(|e| e.to_string().contains("number out of range"))
            && valid(text)
    }
}
