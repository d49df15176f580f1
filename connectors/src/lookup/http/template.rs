//! URLs with columns in them: `https://host/users/{id}?of={shop}`.

use crate::formats::time_text::TimestampStandard;
use crate::formats::values::TextColumn;
use arrow::array::RecordBatch;
use std::fmt::Write as _;

/// A URL with the names of columns in braces.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Column(String),
}

impl Template {
    /// Reads a URL. Columns may stand behind the host only, so that no key decides who is asked.
    ///
    /// # Errors
    /// When it is no URL of `http` or `https`, or a brace is alone.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = url;
        while let Some(open) = rest.find(['{', '}']) {
            let (text, behind) = rest.split_at(open);
            let name = behind.strip_prefix('{').and_then(|behind| behind.split_once('}'));
            let Some((name, after)) = name.filter(|(name, _)| !name.is_empty() && !name.contains('{')) else {
                return Err(
                    "a brace stands alone; write a column as {name}, and a brace itself as %7B or %7D".to_owned(),
                );
            };
            parts.push(Part::Text(text.to_owned()));
            parts.push(Part::Column(name.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self(parts);
        let with = |value: &str| {
            let text = template.fill(|_| value.to_owned());
            reqwest::Url::parse(&text).map_err(|error| format!("'{url}' is no URL: {error}"))
        };
        let (one, other) = (with("a")?, with("b")?);
        if !["http", "https"].contains(&one.scheme()) {
            return Err(format!(
                "the URL's scheme is {}; write http:// or https://",
                one.scheme()
            ));
        }
        if !one.username().is_empty() || one.password().is_some() {
            return Err("a URL holds no user and no password here; use the option 'header.Authorization'".to_owned());
        }
        if one.origin() != other.origin() || one.host_str().is_none() {
            return Err("a column stands in the URL's host; it may stand behind it only".to_owned());
        }
        Ok(template)
    }

    /// Returns the names of the columns, each as often as it stands there.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Makes the URL of each key.
    ///
    /// # Errors
    /// When a column cannot be written: it is checked before.
    pub(super) fn urls(&self, keys: &RecordBatch) -> Result<Vec<String>, String> {
        let mut columns = Vec::new();
        for (field, column) in keys.schema_ref().fields().iter().zip(keys.columns()) {
            columns.push((
                field.name(),
                TextColumn::new(column).map_err(|error| error.to_string())?,
            ));
        }
        let value = |name: &str, row: usize| {
            let mut text = Vec::new();
            if let Some((_, column)) = columns.iter().find(|(known, _)| *known == name) {
                column.write(row, TimestampStandard::Sql, &mut text);
            }
            encoded(&text)
        };
        Ok((0..keys.num_rows())
            .map(|row| self.fill(|name| value(name, row)))
            .collect())
    }

    fn fill(&self, value: impl Fn(&str) -> String) -> String {
        self.0.iter().fold(String::new(), |mut url, part| {
            match part {
                Part::Text(text) => url.push_str(text),
                Part::Column(name) => url.push_str(&value(name)),
            }
            url
        })
    }
}

/// Writes a value so that it is one part of a path or of a query, whatever it holds (RFC 3986: all that is reserved as
/// hexadecimal digits). Of `.` and `..`, which a path would lose, the dots, too.
fn encoded(bytes: &[u8]) -> String {
    let only_dots = matches!(bytes, b"." | b"..");
    bytes.iter().fold(String::new(), |mut text, byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-_~".contains(byte) || (*byte == b'.' && !only_dots);
        if plain {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn keys(values: &[&str]) -> RecordBatch {
        let column = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
        let numbers = (0..values.len() as i64).collect::<Vec<_>>();
        RecordBatch::try_from_iter([
            ("name", column(values.to_vec())),
            ("id", Arc::new(Int64Array::from(numbers)) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn columns_are_put_in_and_cannot_leave_their_place() {
        let template = Template::parse("http://h:1/a/{name}/x?i={id}&n={name}").unwrap();
        let urls = template.urls(&keys(&["é /?", ".."])).unwrap();
        assert_eq!(urls[0], "http://h:1/a/%C3%A9%20%2F%3F/x?i=0&n=%C3%A9%20%2F%3F");
        assert_eq!(urls[1], "http://h:1/a/%2E%2E/x?i=1&n=%2E%2E");
        assert_eq!(template.names().collect::<Vec<_>>(), ["name", "id", "name"]);
    }

    #[test]
    fn a_key_never_decides_who_is_asked() {
        for (url, said) in [
            ("http://{name}/x", "host"),
            ("http://h{name}:80/x", "host"),
            ("http://h:8{id}/", "is no URL"),
            ("{name}://h/", "scheme"),
            ("ftp://h/{id}", "scheme"),
            ("http://u:p@h/{id}", "no user"),
            ("http://h/{", "alone"),
            ("http://h/}x{id}", "alone"),
            ("http://h/{}", "alone"),
            ("h/{id}", "no URL"),
        ] {
            let refused = Template::parse(url).unwrap_err();
            assert!(refused.contains(said), "{url}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_key_holds_the_url_has_its_form(value: String) {
            let template = Template::parse("http://h:1/a/{name}/b?q={name}").unwrap();
            let url = reqwest::Url::parse(&template.urls(&keys(&[value.as_str()])).unwrap()[0]).unwrap();
            prop_assert_eq!(url.host_str(), Some("h"));
            prop_assert_eq!(url.query_pairs().next().map(|(_, found)| found.into_owned()), Some(value.clone()));
            if value != "." && value != ".." {
                prop_assert_eq!(url.path_segments().map(Iterator::count), Some(3));
            }
        }
    }
}
