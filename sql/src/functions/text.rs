//! Text functions with Flink's meaning.

use super::native::{Args, Gives, Native, REPEATED, Takes};
use super::regexp_extract::Compiled;
use arrow::array::ArrayRef;
use datafusion_common::Result;
use std::sync::LazyLock;

use Takes::{Integer, Text};

pub(super) const FUNCTIONS: &[Native] = &[
    Native {
        name: "left",
        takes: &[Text, Integer],
        needed: 2,
        gives: Gives::Text,
        eval: left,
    },
    Native {
        name: "right",
        takes: &[Text, Integer],
        needed: 2,
        gives: Gives::Text,
        eval: right,
    },
    Native {
        name: "substr",
        takes: &[Text, Integer, Integer],
        needed: 2,
        gives: Gives::Text,
        eval: substring,
    },
    Native {
        name: "locate",
        takes: &[Text, Text, Integer],
        needed: 2,
        gives: Gives::Int,
        eval: locate,
    },
    Native {
        name: "split_index",
        takes: &[Text, Text, Integer],
        needed: 3,
        gives: Gives::Text,
        eval: split_index,
    },
    Native {
        name: "startswith",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Boolean,
        eval: |args| both(args, |a, b| a.starts_with(b)),
    },
    Native {
        name: "endswith",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Boolean,
        eval: |args| both(args, |a, b| a.ends_with(b)),
    },
    Native {
        name: "is_alpha",
        takes: &[Text],
        needed: 1,
        gives: Gives::Boolean,
        eval: |args| is(args, |text| !text.is_empty() && text.chars().all(char::is_alphabetic)),
    },
    Native {
        name: "is_digit",
        takes: &[Text],
        needed: 1,
        gives: Gives::Boolean,
        eval: |args| is(args, |text| !text.is_empty() && text.chars().all(char::is_numeric)),
    },
    Native {
        name: "is_decimal",
        takes: &[Text],
        needed: 1,
        gives: Gives::Boolean,
        eval: |args| is(args, is_decimal),
    },
    Native {
        name: "elt",
        takes: &[Integer, Text],
        needed: REPEATED,
        gives: Gives::Text,
        eval: elt,
    },
    Native {
        name: "regexp",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Boolean,
        eval: regexp,
    },
    Native {
        name: "regexp_substr",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Text,
        eval: regexp_substr,
    },
    Native {
        name: "regexp_extract_all",
        takes: &[Text, Text, Integer],
        needed: 2,
        gives: Gives::Texts,
        eval: regexp_extract_all,
    },
    Native {
        name: "split",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Texts,
        eval: split,
    },
    Native {
        name: "parse_url",
        takes: &[Text, Text, Text],
        needed: 2,
        gives: Gives::Text,
        eval: parse_url,
    },
];

static PATTERNS: LazyLock<Compiled> = LazyLock::new(Compiled::default);

fn both(args: &Args<'_>, test: fn(&str, &str) -> bool) -> Result<ArrayRef> {
    let (a, b) = (args.text(0), args.text(1));
    args.booleans(|row| Some(test(a.get(row)?, b.get(row)?)))
}

/// Tests a text; as in Flink, a null is not alphabetic, no digit and no decimal.
fn is(args: &Args<'_>, test: fn(&str) -> bool) -> Result<ArrayRef> {
    let text = args.text(0);
    args.booleans(|row| Some(text.get(row).is_some_and(test)))
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.trim().parse::<f64>().is_ok_and(f64::is_finite)
}

/// Returns where a character begins, counted from 0; the end of the text behind the last one.
fn offset(text: &str, characters: usize) -> usize {
    if text.is_ascii() {
        return characters.min(text.len());
    }
    text.char_indices()
        .nth(characters)
        .map_or(text.len(), |(offset, _)| offset)
}

fn count(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.chars().count()
    }
}

fn to_size(number: i64) -> usize {
    usize::try_from(number.max(0)).unwrap_or(usize::MAX)
}

fn left(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, length) = (args.text(0), args.integer(1));
    args.texts(|row| {
        let text = text.get(row)?;
        Some(&text[..offset(text, to_size(length.get(row)?))])
    })
}

fn right(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, length) = (args.text(0), args.integer(1));
    args.texts(|row| {
        let text = text.get(row)?;
        let length = to_size(length.get(row)?);
        Some(&text[offset(text, count(text).saturating_sub(length))..])
    })
}

/// Counts from 1, from the end for a negative start, and takes 0 for 1; null for a negative length.
fn substring(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, start, length) = (args.text(0), args.integer(1), args.integer(2));
    let bounded = args.len() == 3;
    args.texts(|row| {
        let (text, start) = (text.get(row)?, start.get(row)?);
        let length = if bounded { length.get(row)? } else { i64::MAX };
        if length < 0 {
            return None;
        }
        let first = match start {
            1.. => to_size(start - 1),
            0 => 0,
            _ => match i64::try_from(count(text)).unwrap_or(i64::MAX).checked_add(start) {
                Some(first) if first >= 0 => to_size(first),
                _ => return Some(""),
            },
        };
        let rest = &text[offset(text, first)..];
        Some(&rest[..offset(rest, to_size(length))])
    })
}

/// Finds a text in another from a place on, counted from 1; 0 where it is not.
fn locate(args: &Args<'_>) -> Result<ArrayRef> {
    let (part, text, from) = (args.text(0), args.text(1), args.integer(2));
    let bounded = args.len() == 3;
    args.ints(|row| {
        let (part, text) = (part.get(row)?, text.get(row)?);
        let from = if bounded { from.get(row)? } else { 1 };
        if from < 1 {
            return Some(0);
        }
        let start = offset(text, to_size(from - 1));
        let found = text[start..].find(part).map(|found| count(&text[..start + found]) + 1);
        Some(i32::try_from(found.unwrap_or(0)).unwrap_or(i32::MAX))
    })
}

/// Returns the part at an index from 0; null beyond the last one.
fn split_index(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, delimiter, index) = (args.text(0), args.text(1), args.integer(2));
    args.texts(|row| {
        let (text, delimiter) = (text.get(row)?, delimiter.get(row)?);
        let index = usize::try_from(index.get(row)?).ok()?;
        if delimiter.is_empty() {
            return (index == 0).then_some(text);
        }
        text.split(delimiter).nth(index)
    })
}

fn split(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, delimiter) = (args.text(0), args.text(1));
    args.lists(|row| {
        let (text, delimiter) = (text.get(row)?, delimiter.get(row)?);
        Some(match delimiter {
            "" => text.chars().map(String::from).collect(),
            delimiter => text.split(delimiter).map(str::to_owned).collect(),
        })
    })
}

fn elt(args: &Args<'_>) -> Result<ArrayRef> {
    let index = args.integer(0);
    let texts: Vec<_> = (1..args.len()).map(|place| args.text(place)).collect();
    args.texts(|row| {
        let index = usize::try_from(index.get(row)?).ok()?.checked_sub(1)?;
        texts.get(index)?.get(row)
    })
}

fn regexp(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, pattern) = (args.text(0), args.text(1));
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        values.push(match (text.get(row), pattern.get(row)) {
            (Some(text), Some(pattern)) => Some(PATTERNS.get(pattern)?.is_match(text)),
            _ => None,
        });
    }
    args.booleans(|row| values[row])
}

fn regexp_substr(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, pattern) = (args.text(0), args.text(1));
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        values.push(match (text.get(row), pattern.get(row)) {
            (Some(text), Some(pattern)) => PATTERNS.get(pattern)?.find(text).map(|found| found.as_str()),
            _ => None,
        });
    }
    args.texts(|row| values[row])
}

/// Returns a group of each match, the first one unless said otherwise; group 0 is the whole match.
fn regexp_extract_all(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, pattern, group) = (args.text(0), args.text(1), args.integer(2));
    let grouped = args.len() == 3;
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let group = if grouped { group.get(row) } else { Some(1) };
        let (Some(text), Some(pattern), Some(group)) = (text.get(row), pattern.get(row), group) else {
            values.push(None);
            continue;
        };
        let regex = PATTERNS.get(pattern)?;
        let group = usize::try_from(group)
            .ok()
            .filter(|group| *group < regex.captures_len());
        values.push(group.map(|group| {
            let all = regex.captures_iter(text);
            all.map(|found| found.get(group).map_or("", |part| part.as_str()).to_owned())
                .collect::<Vec<String>>()
        }));
    }
    args.lists(|row| values[row].clone())
}

/// Returns a part of a URL by Flink's names; the third argument is a key of the query.
fn parse_url(args: &Args<'_>) -> Result<ArrayRef> {
    let (url, part, key) = (args.text(0), args.text(1), args.text(2));
    let keyed = args.len() == 3;
    args.texts(|row| {
        let parsed = Url::parse(url.get(row)?)?;
        let part = part.get(row)?;
        if keyed {
            let key = key.get(row)?;
            if part != "QUERY" {
                return None;
            }
            let pairs = parsed.query?.split('&').filter_map(|pair| pair.split_once('='));
            return pairs
                .into_iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.to_owned());
        }
        let found = match part {
            "PROTOCOL" => Some(parsed.protocol),
            "HOST" => parsed.host,
            "PATH" => Some(parsed.path),
            "QUERY" => parsed.query,
            "REF" => parsed.reference,
            "AUTHORITY" => parsed.authority,
            "USERINFO" => parsed.userinfo,
            "FILE" => {
                return Some(match parsed.query {
                    Some(query) => format!("{}?{query}", parsed.path),
                    None => parsed.path.to_owned(),
                });
            }
            _ => None,
        };
        found.map(str::to_owned)
    })
}

struct Url<'a> {
    protocol: &'a str,
    authority: Option<&'a str>,
    userinfo: Option<&'a str>,
    host: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    reference: Option<&'a str>,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (protocol, rest) = url.split_once(':')?;
        let is_protocol = protocol.starts_with(|c: char| c.is_ascii_alphabetic())
            && protocol.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !is_protocol {
            return None;
        }
        let (rest, reference) = split_off(rest, '#');
        let (rest, query) = split_off(rest, '?');
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, rest),
        };
        let userinfo = authority.and_then(|authority| Some(authority.rsplit_once('@')?.0));
        let host = authority.map(|authority| {
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            match host.find(']') {
                Some(end) => &host[..=end],
                None => host.split(':').next().unwrap_or(host),
            }
        });
        Some(Self {
            protocol,
            authority,
            userinfo,
            host,
            path,
            query,
            reference,
        })
    }
}

fn split_off(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    }
}
