//! `REGEXP_EXTRACT(text, pattern[, group])`: the part of a text that a group of a regular expression matches.
//!
//! As in Flink: null when the pattern does not match, when there is no such group, or when it takes no part in the match;
//! group 0 is the whole match, and the default. The pattern is a literal: it is compiled once.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use regex::{Regex, RegexBuilder};
use std::sync::{Arc, Mutex, PoisonError};

/// The name in calls.
pub(crate) const NAME: &str = "regexp_extract";

/// How refusals of patterns begin.
pub(crate) const PATTERN: &str = "the pattern of REGEXP_EXTRACT";
const NOT_A_LITERAL: &str = "the pattern of REGEXP_EXTRACT must be a literal text";

/// The most memory that a compiled pattern may take, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Returns the function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(RegexpExtract {
        signature: Signature::user_defined(Volatility::Immutable),
        compiled: Compiled::default(),
    }))
}

/// The patterns that were compiled last. Calls are few, so a list is enough.
#[derive(Debug, Default)]
pub(super) struct Compiled(Mutex<Vec<Regex>>);

/// Patterns that are kept.
const PATTERNS_MAX: usize = 32;

impl Compiled {
    /// Returns a compiled pattern.
    ///
    /// # Errors
    /// When it is no regular expression.
    pub(super) fn get(&self, pattern: &str) -> Result<Regex> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = known.iter().find(|regex| regex.as_str() == pattern) {
            return Ok(regex.clone());
        }
        let regex = compile(pattern)?;
        if known.len() == PATTERNS_MAX {
            known.remove(0);
        }
        known.push(regex.clone());
        Ok(regex)
    }
}

fn compile(pattern: &str) -> Result<Regex> {
    match RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(regex) => Ok(regex),
        Err(error) => {
            // The last line says what is wrong; those before it show the pattern.
            let text = error.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            plan_err!("{PATTERN} is not a regular expression: {reason}")
        }
    }
}

#[derive(Debug)]
struct RegexpExtract {
    signature: Signature,
    compiled: Compiled,
}

impl PartialEq for RegexpExtract {
    fn eq(&self, _: &Self) -> bool {
        true // the patterns are only remembered
    }
}

impl Eq for RegexpExtract {}

impl std::hash::Hash for RegexpExtract {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl ScalarUDFImpl for RegexpExtract {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let group = match arguments {
            [_, _] => None,
            [_, _, group] if group.is_integer() || group.is_null() => Some(DataType::Int64),
            _ => return plan_err!("REGEXP_EXTRACT takes a text, a pattern and the number of a group"),
        };
        for text in &arguments[..2] {
            if !(text.is_string() || text.is_null()) {
                return plan_err!(
                    "REGEXP_EXTRACT takes a text and a pattern, not {}",
                    crate::types::sql_name(text)
                );
            }
        }
        Ok([DataType::Utf8, DataType::Utf8].into_iter().chain(group).collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow::datatypes::FieldRef> {
        match args.scalar_arguments.get(1) {
            Some(Some(ScalarValue::Utf8(Some(pattern)))) => {
                compile(pattern)?;
            }
            _ => return plan_err!("{NOT_A_LITERAL}"),
        }
        Ok(Arc::new(arrow::datatypes::Field::new(NAME, DataType::Utf8, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(pattern))) = &arguments.args[1] else {
            return exec_err!("{NOT_A_LITERAL}");
        };
        let regex = self.compiled.get(pattern)?;
        let texts = arguments.args[0].to_array(rows)?;
        let groups = match arguments.args.get(2) {
            None => Groups::All(Some(0)),
            Some(ColumnarValue::Scalar(ScalarValue::Int64(group))) => Groups::All(*group),
            Some(groups) => Groups::Each(groups.to_array(rows)?),
        };
        Ok(ColumnarValue::Array(extract(&regex, texts.as_string(), &groups)))
    }
}

/// The groups that are asked for.
enum Groups {
    All(Option<i64>),
    Each(ArrayRef),
}

fn extract(regex: &Regex, texts: &StringArray, groups: &Groups) -> ArrayRef {
    let mut parts = StringBuilder::with_capacity(texts.len(), texts.value_data().len() / 4);
    let mut places = regex.capture_locations();
    for row in 0..texts.len() {
        let group = match groups {
            Groups::All(group) => *group,
            Groups::Each(groups) => {
                let groups = groups.as_primitive::<arrow::datatypes::Int64Type>();
                groups.is_valid(row).then(|| groups.value(row))
            }
        };
        let group = group.and_then(|group| usize::try_from(group).ok());
        let part = group.filter(|_| texts.is_valid(row)).and_then(|group| {
            let text = texts.value(row);
            regex.captures_read(&mut places, text)?;
            let (start, end) = places.get(group)?;
            text.get(start..end)
        });
        parts.append_option(part);
    }
    Arc::new(parts.finish())
}
