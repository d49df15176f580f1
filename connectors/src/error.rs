//! What is wrong with a table's definition, told so that its author can mend it.

use std::fmt;

/// A table that a connector cannot serve: an option that is unknown, missing or not valid, a column it cannot read or
/// write, or something the connector does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorError {
    /// The option the error is about.
    pub option: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ConnectorError {
    /// Makes an error that is about no option in particular.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            option: None,
            message: message.into(),
            hint: None,
        }
    }

    /// Makes an error about an option.
    #[must_use]
    pub fn option(option: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            option: Some(option.into()),
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConnectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(option) = &self.option {
            write!(f, "option '{option}': ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectorError {}
