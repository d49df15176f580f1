//! The one error of this crate: what is wrong, where in the text, and what to write instead.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A place in SQL text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u64,
    /// The column in characters, from 1.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A refusal of SQL text.
///
/// Its `Display` is for people: the position, the message, the line with a caret under the place, and the hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlError {
    /// What is wrong: lower case, without a full stop.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// Where; `None` when the whole text is meant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<Position>,
    /// The line of the text and, below it, a caret under the place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub excerpt: Option<String>,
}

impl SqlError {
    /// Makes an error about the whole text.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            position: None,
            excerpt: None,
        }
    }

    /// Makes an error about a place.
    pub(crate) fn at(position: impl Into<Option<Position>>, message: impl Into<String>) -> Self {
        Self {
            position: position.into(),
            ..Self::new(message)
        }
    }

    /// Makes the error of a bug in this crate.
    pub(crate) fn internal(message: impl fmt::Display) -> Self {
        Self::new(format!("internal error: {message}; please report it"))
    }

    /// Adds what to write instead.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Gives the error a position if it has none.
    pub(crate) fn or_at(mut self, position: impl Into<Option<Position>>) -> Self {
        if self.position.is_none() {
            self.position = position.into();
        }
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(excerpt) = &self.excerpt {
            for line in excerpt.lines() {
                write!(f, "\n  | {line}")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlError {}

/// The result of a step of planning.
pub(crate) type Result<T, E = SqlError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_shows_place_line_caret_and_hint() {
        let error = SqlError {
            message: "no such table".into(),
            hint: Some("create it".into()),
            position: Some(Position { line: 2, column: 3 }),
            excerpt: Some("ab c\n  ^".into()),
        };
        assert_eq!(
            error.to_string(),
            "line 2, column 3: no such table\n  | ab c\n  |   ^\nhint: create it"
        );
    }
}
