//! Why a record could not be decoded, before its reader adds where the record is.

use std::fmt;

/// Why a record could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    field: String,
    reason: String,
}

impl RecordError {
    /// Makes an error about no field yet.
    #[cold]
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            field: String::new(),
            reason: reason.into(),
        }))
    }

    /// Says that the error is in a field, or in a field of that field.
    #[cold]
    pub(crate) fn within(mut self, name: &str) -> Self {
        let inner = &mut self.0;
        inner.field = if inner.field.is_empty() {
            name.to_owned()
        } else {
            format!("{name}.{}", inner.field)
        };
        self
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.field.is_empty() {
            f.write_str(&self.0.reason)
        } else {
            write!(f, "field {}: {}", self.0.field, self.0.reason)
        }
    }
}
