//! Reads the options of a table, each once, with its type, and knows at the end whether one was left over.
//!
//! A connector asks for every option it understands, present or not. [`Options::finish`] then refuses what nobody
//! asked for, and names the option that was probably meant.

mod suggestion;
mod units;

pub(crate) use suggestion::closest;

use crate::error::ConnectorError;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

/// The options of one table.
pub(crate) struct Options<'a> {
    table: &'a str,
    values: &'a BTreeMap<String, String>,
    known: RefCell<BTreeSet<String>>,
}

impl<'a> Options<'a> {
    /// Begins to read a table's options. `connector` is known from the start.
    pub(crate) fn new(table: &'a str, values: &'a BTreeMap<String, String>) -> Self {
        Self {
            table,
            values,
            known: RefCell::new(BTreeSet::from(["connector".to_owned()])),
        }
    }

    /// Returns an option's text, if it is set.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.known.borrow_mut().insert(name.to_owned());
        self.values.get(name).map(String::as_str)
    }

    /// Returns an option's text, which must be set and not empty.
    pub(crate) fn required(&self, name: &str) -> Result<&'a str, ConnectorError> {
        match self.text(name) {
            Some("") => Err(ConnectorError::option(name, "must not be empty")),
            Some(text) => Ok(text),
            None => Err(
                ConnectorError::option(name, format!("table {} needs this option", self.table))
                    .with_hint(format!("add '{name}' = '...' to its WITH")),
            ),
        }
    }

    /// Returns the name of the table's connector; empty when it has none.
    pub(crate) fn connector(&self) -> &'a str {
        self.values.get("connector").map_or("", String::as_str)
    }

    /// Returns the table's name.
    pub(crate) fn table(&self) -> &'a str {
        self.table
    }

    /// Returns whether an option is `true`.
    pub(crate) fn boolean(&self, name: &str, default: Flag) -> Result<Flag, ConnectorError> {
        match self.text(name) {
            None => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(Flag::On),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(Flag::Off),
            Some(text) => Err(ConnectorError::option(
                name,
                format!("'{text}' is neither true nor false; write 'true' or 'false'"),
            )),
        }
    }

    /// Returns an option that is parsed from its text, such as a number. `expected` says what stands there, with an
    /// example: it follows "is not".
    pub(crate) fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, ConnectorError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let error = || ConnectorError::option(name, format!("'{text}' is not {expected}"));
        text.trim().parse().map(Some).map_err(|_| error())
    }

    /// Makes the error of an option whose value cannot be used. `expected` says what may stand there.
    pub(crate) fn out_of_range(&self, name: &str, expected: &str) -> ConnectorError {
        let text = self.values.get(name).map_or("", String::as_str);
        ConnectorError::option(name, format!("'{text}' is out of range; it must be {expected}"))
    }

    /// Returns a duration such as `5s`, `100 ms` or `1 min`; a bare number is milliseconds.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, ConnectorError> {
        self.text(name)
            .map(|text| units::duration(text).map_err(|e| ConnectorError::option(name, e)))
            .transpose()
    }

    /// Returns a size such as `128mb` in bytes; a bare number is bytes, the units are powers of 1,024.
    pub(crate) fn memory_size(&self, name: &str) -> Result<Option<u64>, ConnectorError> {
        self.text(name)
            .map(|text| units::memory_size(text).map_err(|e| ConnectorError::option(name, e)))
            .transpose()
    }

    /// Returns a single character.
    pub(crate) fn character(&self, name: &str) -> Result<Option<char>, ConnectorError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(c), None) => Ok(Some(c)),
            _ => match text {
                "\\t" => Ok(Some('\t')),
                _ => Err(ConnectorError::option(
                    name,
                    format!("'{text}' is not a single character such as ';', nor '\\t' for a tab"),
                )),
            },
        }
    }

    /// Returns one of several choices, compared without case; `None` when the option is not set.
    pub(crate) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ConnectorError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        if let Some((_, value)) = choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(text)) {
            return Ok(Some(*value));
        }
        let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        let error = ConnectorError::option(name, format!("'{text}' is not one of {}", names.join(", ")));
        Err(match closest(text, names.into_iter()) {
            Some(near) => error.with_hint(format!("did you mean '{near}'?")),
            None => error,
        })
    }

    /// Refuses an option that exists elsewhere but not here, with the reason.
    pub(crate) fn refuse(&self, name: &str, reason: &str) -> Result<(), ConnectorError> {
        match self.values.get(name) {
            Some(_) => Err(ConnectorError::option(name, reason)),
            None => Ok(()),
        }
    }

    /// Refuses every option that begins with a prefix, with the reason.
    pub(crate) fn refuse_prefix(&self, prefix: &str, reason: &str) -> Result<(), ConnectorError> {
        match self.values.keys().find(|name| name.starts_with(prefix)) {
            Some(name) => Err(ConnectorError::option(name, reason)),
            None => Ok(()),
        }
    }

    /// Ends the reading: refuses options that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), ConnectorError> {
        let connector = self.connector();
        let known = self.known.into_inner();
        let Some(name) = self.values.keys().find(|name| !known.contains(*name)) else {
            return Ok(());
        };
        let error = ConnectorError::option(name, format!("the connector '{connector}' has no such option"));
        Err(match closest(name, known.iter().map(String::as_str)) {
            Some(near) => error.with_hint(format!("did you mean '{near}'?")),
            None => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                error.with_hint(format!("it has: {}", known.join(", ")))
            }
        })
    }
}

/// An option that is on or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flag {
    /// `true`.
    On,
    /// `false`.
    #[default]
    Off,
}

impl Flag {
    /// Says whether the option is on.
    pub(crate) fn is_on(self) -> bool {
        self == Flag::On
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn misspelt_option_is_told_with_the_one_that_was_meant() {
        let values = values(&[("connector", "datagen"), ("rows-per-secnd", "5")]);
        let options = Options::new("t", &values);
        assert_eq!(options.text("rows-per-second"), None);
        let error = options.finish().unwrap_err();
        assert_eq!(error.option.as_deref(), Some("rows-per-secnd"));
        assert!(error.to_string().contains("did you mean 'rows-per-second'?"), "{error}");
    }

    #[test]
    fn what_was_asked_for_is_not_left_over() {
        let values = values(&[
            ("connector", "x"),
            ("a", "TRUE"),
            ("b", "5 s"),
            ("c", "1kb"),
            ("d", "\\t"),
        ]);
        let options = Options::new("t", &values);
        assert_eq!(options.boolean("a", Flag::Off), Ok(Flag::On));
        assert_eq!(options.duration("b"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(options.memory_size("c"), Ok(Some(1024)));
        assert_eq!(options.character("d"), Ok(Some('\t')));
        assert_eq!(options.parsed::<u32>("e", "a number"), Ok(None));
        assert_eq!(options.finish(), Ok(()));
    }

    #[test]
    fn values_that_do_not_parse_name_the_option() {
        let values = values(&[("n", "many"), ("f", "yes"), ("p", "LATESTT")]);
        let options = Options::new("t", &values);
        assert_eq!(
            options.parsed::<u32>("n", "a number").unwrap_err().option.as_deref(),
            Some("n")
        );
        assert_eq!(
            options.boolean("f", Flag::Off).unwrap_err().option.as_deref(),
            Some("f")
        );
        let error = options.choice("p", &[("LATEST", 1), ("TRIM_HORIZON", 2)]).unwrap_err();
        assert!(error.to_string().contains("did you mean 'LATEST'?"), "{error}");
    }
}
