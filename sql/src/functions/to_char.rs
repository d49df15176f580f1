//! `TO_CHAR` over times that follow one another: rows come in the order of time, and a format that shows days gives the same
//! text for a whole day of them.
//!
//! Text is made once per run of rows with the same second, minute, hour or day (as the format shows it) and copied for the
//! others. What the function gives is what DataFusion's gives.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use std::sync::Arc;

/// Puts the runs around the function; others stay as they are.
pub(super) fn over_runs(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match function.name() {
        "to_char" => Arc::new(ScalarUDF::new_from_impl(OverRuns { function })),
        _ => function,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OverRuns {
    function: Arc<ScalarUDF>,
}

/// Returns the seconds within which a format of `strftime` shows the same text, as a rule; `None` when they are less than one
/// or not known.
fn seconds_shown(format: &str) -> Option<i64> {
    let mut seconds = 86_400;
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            continue;
        }
        let specifier = letters.next().map(|next| match next {
            '-' | '_' | '0' => letters.next(),
            other => Some(other),
        })??;
        seconds = seconds.min(match specifier {
            'Y' | 'C' | 'y' | 'm' | 'b' | 'B' | 'h' | 'd' | 'e' | 'a' | 'A' | 'w' | 'u' | 'j' | 'D' | 'F' | 'v' => {
                86_400
            }
            '%' | 't' | 'n' => 86_400,
            'H' | 'k' | 'I' | 'l' | 'P' | 'p' => 3_600,
            'M' | 'R' => 60,
            'S' | 'T' | 'X' | 'r' | 's' => 1,
            _ => return None,
        });
    }
    Some(seconds)
}

/// The rows at which runs begin, and the run of each row.
struct Runs {
    starts: Vec<u32>,
    of_row: Vec<u32>,
}

/// Finds the runs of rows whose times are within the same `unit`; a null is a run of its own.
fn runs<T: ArrowPrimitiveType<Native = i64>>(times: &ArrayRef, unit: i64) -> Runs {
    let times = times.as_primitive::<T>();
    let (mut starts, mut of_row) = (Vec::new(), Vec::with_capacity(times.len()));
    // No time is in an empty range.
    let (mut from, mut until) = (0, 0);
    for (row, &time) in times.values().iter().enumerate() {
        let is_null = times.is_null(row);
        if is_null || time < from || time >= until {
            starts.push(row as u32);
            from = time.saturating_sub(time.rem_euclid(unit));
            until = if is_null { from } else { from.saturating_add(unit) };
        }
        of_row.push(starts.len() as u32 - 1);
    }
    Runs { starts, of_row }
}

fn runs_of(times: &ArrayRef, seconds: i64) -> Option<Runs> {
    let DataType::Timestamp(unit, zone) = times.data_type() else {
        return None;
    };
    // Days of another time zone begin elsewhere.
    if zone.as_deref().is_some_and(|zone| zone != "UTC" && zone != "+00:00") {
        return None;
    }
    Some(match unit {
        TimeUnit::Second => runs::<TimestampSecondType>(times, seconds),
        TimeUnit::Millisecond => runs::<TimestampMillisecondType>(times, seconds * 1_000),
        TimeUnit::Microsecond => runs::<TimestampMicrosecondType>(times, seconds * 1_000_000),
        TimeUnit::Nanosecond => runs::<TimestampNanosecondType>(times, seconds * 1_000_000_000),
    })
}

impl ScalarUDFImpl for OverRuns {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<arrow::datatypes::FieldRef> {
        self.function.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let found = match arguments.args.as_slice() {
            [
                ColumnarValue::Array(times),
                ColumnarValue::Scalar(ScalarValue::Utf8(Some(format))),
            ] => seconds_shown(format).and_then(|seconds| Some((times, runs_of(times, seconds)?))),
            _ => None,
        };
        let Some((times, runs)) = found.filter(|(_, runs)| runs.starts.len() < runs.of_row.len() / 2) else {
            return self.function.invoke_with_args(arguments);
        };
        let starts = take(times, &UInt32Array::from(runs.starts), None)?;
        let number_rows = starts.len();
        let mut args = arguments.args.clone();
        args[0] = ColumnarValue::Array(starts);
        let of_runs = self.function.invoke_with_args(ScalarFunctionArgs {
            args,
            number_rows,
            ..arguments
        })?;
        let texts = of_runs.to_array(number_rows)?;
        Ok(ColumnarValue::Array(take(
            &texts,
            &UInt32Array::from(runs.of_row),
            None,
        )?))
    }

    fn simplify(
        &self,
        arguments: Vec<datafusion_expr::Expr>,
        info: &datafusion_expr::simplify::SimplifyContext,
    ) -> Result<datafusion_expr::simplify::ExprSimplifyResult> {
        self.function.simplify(arguments, info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMillisecondArray;
    use arrow::datatypes::Field;
    use datafusion_common::config::ConfigOptions;

    fn to_char(function: &ScalarUDF, times: &ArrayRef, format: &str) -> ArrayRef {
        let arguments = ScalarFunctionArgs {
            args: vec![
                ColumnarValue::Array(Arc::clone(times)),
                ColumnarValue::Scalar(ScalarValue::from(format)),
            ],
            arg_fields: vec![
                Arc::new(Field::new("t", times.data_type().clone(), true)),
                Arc::new(Field::new("f", DataType::Utf8, true)),
            ],
            number_rows: times.len(),
            return_field: Arc::new(Field::new("r", DataType::Utf8, true)),
            config_options: Arc::new(ConfigOptions::default()),
        };
        function
            .invoke_with_args(arguments)
            .unwrap()
            .to_array(times.len())
            .unwrap()
    }

    #[test]
    fn text_is_that_of_every_single_row() {
        let plain = datafusion_functions::datetime::to_char();
        let over_runs = over_runs(Arc::clone(&plain));
        assert_ne!(plain, over_runs, "it is wrapped");
        let times = (0..400i64).map(|row| (row % 37 != 0).then_some(1_767_225_590_000 + row * 250 - (row % 9) * 400));
        let times = times.chain([Some(-1), Some(-90_000_000), Some(0), None, None, Some(5)]);
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter(times));
        let formats = [
            "%Y-%m-%d",
            "%H:%M",
            "%-d. %b %H h",
            "%T",
            "%s",
            "%Y %.3f",
            "100 %% of %j",
            "%d/%I %p",
            "now",
        ];
        for format in formats {
            assert_eq!(
                &to_char(&over_runs, &times, format),
                &to_char(&plain, &times, format),
                "{format}"
            );
        }
    }
}
