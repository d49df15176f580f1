//! Guards of what a table promises: a value that breaks it fails the job with the column's name.

use crate::types::Length;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Promise {
    /// `NOT NULL`.
    NotNull,
    /// `VARCHAR(n)` and the like.
    Length(Length),
}

/// Returns `value`, guarded.
pub(crate) fn guarded(value: Expr, promise: Promise, table: &str, column: &str) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let check = Check {
        promise,
        table: table.to_owned(),
        column: column.to_owned(),
        signature,
    };
    ScalarUDF::new_from_impl(check).call(vec![value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Check {
    promise: Promise,
    table: String,
    column: String,
    signature: Signature,
}

impl ScalarUDFImpl for Check {
    fn name(&self) -> &str {
        match self.promise {
            Promise::NotNull => "$not_null",
            Promise::Length(_) => "$length",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [argument] => Ok(argument.clone()),
            _ => super::never_evaluated(self.name()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = arguments.args.as_slice() else {
            return super::never_evaluated(self.name());
        };
        let values = value.to_array(arguments.number_rows)?;
        let Self {
            promise, table, column, ..
        } = self;
        match promise {
            Promise::NotNull if values.null_count() > 0 => exec_err!(
                "column {column} of table {table} is NOT NULL and {} of {} rows are null; filter them out or use COALESCE",
                values.null_count(),
                values.len()
            ),
            Promise::NotNull => Ok(ColumnarValue::Array(values)),
            Promise::Length(length) => match first_wrong(&values, *length) {
                None => Ok(ColumnarValue::Array(values)),
                Some(found) => {
                    let (words, allowed) = match length {
                        Length::Max(allowed) => ("at most", allowed),
                        Length::Exact(allowed) => ("exactly", allowed),
                    };
                    exec_err!(
                        "column {column} of table {table} takes values of {words} {allowed}, and one has length {found}; \
                         cut it with substring or declare the column STRING or BYTES"
                    )
                }
            },
        }
    }
}

/// Returns the length of the first value that breaks the promise.
fn first_wrong(values: &ArrayRef, length: Length) -> Option<usize> {
    let breaks = |found: &usize| match length {
        Length::Max(allowed) => *found as u64 > allowed,
        Length::Exact(allowed) => *found as u64 != allowed,
    };
    match values.data_type() {
        DataType::Utf8 => values
            .as_string::<i32>()
            .iter()
            .flatten()
            .map(|v| v.chars().count())
            .find(breaks),
        DataType::Binary => values.as_binary::<i32>().iter().flatten().map(<[u8]>::len).find(breaks),
        _ => None,
    }
}
