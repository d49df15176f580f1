//! Takes a JSON array apart.

use super::scan::Scanner;
use crate::formats::record_error::RecordError;

/// Returns the elements of a JSON array as they stand in the text; of any other value the value itself, and of `null`
/// nothing.
///
/// # Errors
/// When the text is no JSON.
pub(crate) fn elements(text: &str) -> Result<Vec<&str>, RecordError> {
    let mut scanner = Scanner::new(text);
    let mut found = Vec::new();
    let element = |scanner: &mut Scanner<'_>| -> Result<std::ops::Range<usize>, RecordError> {
        scanner.skip_whitespace();
        let start = scanner.position();
        scanner.skip_value(1)?;
        Ok(start..scanner.position())
    };
    scanner.skip_whitespace();
    if !scanner.take(b'[') {
        let only = element(&mut scanner)?;
        scanner.end()?;
        let only = text[only].trim();
        return Ok(if only == "null" { Vec::new() } else { vec![only] });
    }
    scanner.skip_whitespace();
    if !scanner.take(b']') {
        loop {
            found.push(text[element(&mut scanner)?].trim());
            scanner.skip_whitespace();
            if scanner.take(b']') {
                break;
            }
            if !scanner.take(b',') {
                return Err(scanner.expected("',' or ']'"));
            }
        }
    }
    scanner.end()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrays_are_taken_apart_and_other_values_are_one_element() {
        assert_eq!(elements(" [ ] ").unwrap(), Vec::<&str>::new());
        assert_eq!(elements("null").unwrap(), Vec::<&str>::new());
        assert_eq!(elements(" {\"a\":[1,2]} ").unwrap(), ["{\"a\":[1,2]}"]);
        let text = "[{\"a\":\"],[\"} , [1,[2]],3 ,null]";
        assert_eq!(elements(text).unwrap(), ["{\"a\":\"],[\"}", "[1,[2]]", "3", "null"]);
        for wrong in ["", "[", "[1", "[1,]", "[1 2]", "[1]]", "{", "[1] x"] {
            assert!(elements(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in "[\\[\\]{},:\"a1 nul\\\\é-]{0,40}") {
            let _ = elements(&text);
        }
    }
}
