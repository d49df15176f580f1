//! JSON for people: spread over lines and coloured. Its fields keep their order and its numbers their digits.

use serde::de::IgnoredAny;

/// Nesting that is shown: what is deeper would be mostly indentation.
const DEPTH_MAX: usize = 64;
const KEY: &str = "\x1b[36m";
const TEXT: &str = "\x1b[32m";
const NUMBER: &str = "\x1b[33m";
const WORD: &str = "\x1b[35m";
const NORMAL: &str = "\x1b[0m";

/// Spreads a JSON object or array over lines; `None` when the text is none, or too deep to be read by people.
pub(super) fn spread(text: &str, has_colour: bool) -> Option<String> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return None;
    }
    let mut spreader = Spreader {
        out: String::with_capacity(text.len() * 2),
        depth: 0,
        has_colour,
    };
    let mut rest = text;
    // Where a name is expected in an object; one answer for each level.
    let mut names = Vec::new();
    let mut is_name = false;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '{' | '[' => {
                let closing = if first == '{' { '}' } else { ']' };
                let inner = rest[1..].trim_start();
                if inner.starts_with(closing) {
                    spreader.out.extend([first, closing]);
                    rest.len() - inner.len() + 1
                } else {
                    names.push(first == '{');
                    if names.len() > DEPTH_MAX {
                        return None;
                    }
                    is_name = first == '{';
                    spreader.out.push(first);
                    spreader.depth += 1;
                    spreader.line();
                    1
                }
            }
            '}' | ']' => {
                names.pop();
                spreader.depth -= 1;
                spreader.line();
                spreader.out.push(first);
                1
            }
            ',' => {
                spreader.out.push(',');
                spreader.line();
                is_name = names.last() == Some(&true);
                1
            }
            ':' => {
                spreader.out.push_str(": ");
                is_name = false;
                1
            }
            '"' => {
                let length = string_length(rest);
                spreader.token(&rest[..length], if is_name { KEY } else { TEXT });
                length
            }
            c if c.is_ascii_whitespace() => 1,
            c => {
                let length = rest
                    .find(|c: char| matches!(c, ',' | '}' | ']') || c.is_ascii_whitespace())
                    .unwrap_or(rest.len());
                let is_number = c == '-' || c.is_ascii_digit();
                spreader.token(&rest[..length], if is_number { NUMBER } else { WORD });
                length
            }
        };
        rest = &rest[length..];
    }
    Some(spreader.out)
}

/// The length of the string that a valid JSON text begins with.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

struct Spreader {
    out: String,
    depth: usize,
    has_colour: bool,
}

impl Spreader {
    fn line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", self.depth));
    }

    fn token(&mut self, text: &str, colour: &str) {
        if self.has_colour {
            self.out.push_str(colour);
        }
        // JSON escapes the controls of ASCII, but not those above it.
        for c in text.chars() {
            if c.is_control() {
                self.out.extend(c.escape_unicode());
            } else {
                self.out.push(c);
            }
        }
        if self.has_colour {
            self.out.push_str(NORMAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn fields_keep_their_order_and_numbers_their_digits() {
        let text = r#" {"b":1.10,"a":[1e400,{"x" : "}\",\\"}],"e":{},"f":[ ],"t":true,"n":null} "#;
        let expected = r#"{
  "b": 1.10,
  "a": [
    1e400,
    {
      "x": "}\",\\"
    }
  ],
  "e": {},
  "f": [],
  "t": true,
  "n": null
}"#;
        assert_eq!(spread(text, false), Some(expected.into()));
    }

    #[test]
    fn what_is_no_object_or_array_stays_as_it_is() {
        for text in ["", "x", "12", "\"a\"", "{", "{]", "[1,]", "{\"a\":1} x"] {
            assert_eq!(spread(text, false), None, "{text}");
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(spread(&nested(DEPTH_MAX), false).is_some());
        assert!(spread(&nested(100_000), false).is_none(), "too deep");
    }

    #[test]
    fn names_and_values_have_colours() {
        let text = spread(r#"{"a":["b",1,null]}"#, true).unwrap();
        for part in [
            "\x1b[36m\"a\"\x1b[0m: ",
            "\x1b[32m\"b\"\x1b[0m",
            "\x1b[33m1\x1b[0m",
            "\x1b[35mnull\x1b[0m",
        ] {
            assert!(text.contains(part), "{part:?} in {text:?}");
        }
    }

    #[test]
    fn controls_are_shown_and_not_obeyed() {
        assert_eq!(spread("[\"\u{9b}2J\"]", false).unwrap(), "[\n  \"\\u{9b}2J\"\n]");
    }

    #[test]
    fn what_was_spread_means_the_same() {
        let texts = [
            r#"[[],[[1]],{"a":{"b":{}}}]"#,
            r#"{"ä":"ü\u0041\n","":[0,-1.5e3,false]}"#,
        ];
        for text in texts {
            let spread = spread(text, false).unwrap();
            let (a, b): (Value, Value) = (
                serde_json::from_str(text).unwrap(),
                serde_json::from_str(&spread).unwrap(),
            );
            assert_eq!(a, b);
        }
    }
}
