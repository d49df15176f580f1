//! Flink's meanings, said with DataFusion's functions.
//!
//! | Flink | here |
//! |---|---|
//! | an integer literal is an INT if it fits | DataFusion makes a BIGINT of it: the literal is narrowed |
//! | `CONCAT` is null if an argument is | a chain of `\|\|` |
//! | `GREATEST`, `LEAST` are null if an argument is | a `CASE` around them |
//! | `REGEXP_REPLACE` replaces all matches | the flag `g` |
//! | `YEAR(x)`, `HOUR(x)`, ... | `date_part` |
//! | `TO_TIMESTAMP_LTZ(n, precision)`, `TO_TIMESTAMP(text)` | casts |
//! | `IF(c, a, b)` | a `CASE` |

use crate::error::{Result, SqlError};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::expr::{Case, ScalarFunction};
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    binary_expr, cast, is_null, lit,
};
use std::sync::Arc;

/// A function that is replaced at planning.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Macro {
    name: &'static str,
    kind: MacroKind,
    signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum MacroKind {
    /// `date_part` with this field.
    Part(&'static str),
    /// `TO_TIMESTAMP_LTZ(number[, precision])`.
    ToTimestampLtz,
    /// `TO_TIMESTAMP(text)`.
    ToTimestamp,
    /// `IF(condition, then, otherwise)`.
    If,
}

const MACROS: &[(&str, MacroKind)] = &[
    ("year", MacroKind::Part("year")),
    ("quarter", MacroKind::Part("quarter")),
    ("month", MacroKind::Part("month")),
    ("week", MacroKind::Part("week")),
    ("dayofyear", MacroKind::Part("doy")),
    ("dayofmonth", MacroKind::Part("day")),
    ("hour", MacroKind::Part("hour")),
    ("minute", MacroKind::Part("minute")),
    ("second", MacroKind::Part("second")),
    ("to_timestamp_ltz", MacroKind::ToTimestampLtz),
    ("to_timestamp", MacroKind::ToTimestamp),
    ("if", MacroKind::If),
];

impl Macro {
    /// Returns all of them by name.
    pub(crate) fn functions() -> Vec<(String, Arc<ScalarUDF>)> {
        MACROS
            .iter()
            .map(|&(name, kind)| {
                let signature = match kind {
                    MacroKind::If => Signature::any(3, Volatility::Immutable),
                    _ => Signature::variadic_any(Volatility::Immutable),
                };
                (
                    name.to_owned(),
                    Arc::new(ScalarUDF::new_from_impl(Macro { name, kind, signature })),
                )
            })
            .collect()
    }

    fn expand(&self, mut args: Vec<Expr>) -> Result<Expr> {
        let count = args.len();
        let wrong = |usage: &str| {
            SqlError::new(format!("{} does not take {count} arguments", self.name.to_uppercase())).hint(usage)
        };
        match self.kind {
            MacroKind::Part(field) if count == 1 => {
                let mut part = vec![lit(field)];
                part.append(&mut args);
                Ok(datafusion_functions::datetime::date_part().call(part))
            }
            MacroKind::Part(_) => Err(wrong("write it with one date or timestamp")),
            MacroKind::ToTimestampLtz => {
                let milliseconds = match (count, args.get(1)) {
                    (1, _) => true,
                    (2, Some(Expr::Literal(precision, _))) => match integer(precision) {
                        Some(3) => true,
                        Some(0) => false,
                        _ => {
                            return Err(SqlError::new(
                                "the precision of TO_TIMESTAMP_LTZ is 0 (seconds) or 3 (milliseconds)",
                            ));
                        }
                    },
                    _ => {
                        return Err(wrong(
                            "write TO_TIMESTAMP_LTZ(number, 3), with 0 for seconds or 3 for milliseconds",
                        ));
                    }
                };
                let number = cast(args.swap_remove(0), DataType::Int64);
                let ms = if milliseconds {
                    number
                } else {
                    binary_expr(number, Operator::Multiply, lit(1000i64))
                };
                Ok(cast(ms, self.type_of()))
            }
            MacroKind::ToTimestamp if count == 1 => Ok(cast(args.swap_remove(0), self.type_of())),
            MacroKind::ToTimestamp => Err(SqlError::new("TO_TIMESTAMP with a format is not supported yet")
                .hint("use TO_TIMESTAMP(text) with text like 2026-01-31 12:00:00.000")),
            MacroKind::If => match <[Expr; 3]>::try_from(args) {
                Ok([condition, then, otherwise]) => Ok(case(condition, then, otherwise)),
                Err(_) => Err(wrong("write IF(condition, value, other value)")),
            },
        }
    }

    fn type_of(&self) -> DataType {
        match self.kind {
            MacroKind::Part(_) => DataType::Int32,
            MacroKind::ToTimestampLtz => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            MacroKind::ToTimestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
            MacroKind::If => DataType::Null,
        }
    }
}

impl ScalarUDFImpl for Macro {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> datafusion_common::Result<DataType> {
        match self.kind {
            // Only for DataFusion's first look: the type that counts is the expansion's.
            MacroKind::If => Ok(arguments.get(1).cloned().unwrap_or(DataType::Null)),
            _ => Ok(self.type_of()),
        }
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> datafusion_common::Result<ColumnarValue> {
        Err(DataFusionError::Internal(format!(
            "{} is replaced at planning and was evaluated",
            self.name
        )))
    }
}

/// Rewrites an expression.
///
/// # Errors
/// When a function's arguments are not those it takes.
pub(crate) fn rewrite(expr: Expr) -> Result<Expr> {
    let mut refusal = None;
    let rewritten = expr.transform_up(|expr| match rewrite_one(expr) {
        Ok(transformed) => Ok(transformed),
        Err(error) => {
            refusal = Some(error);
            Err(DataFusionError::Plan(String::new()))
        }
    });
    match (rewritten, refusal) {
        (Ok(rewritten), _) => Ok(rewritten.data),
        (Err(_), Some(refusal)) => Err(refusal),
        (Err(error), None) => Err(SqlError::internal(error)),
    }
}

fn rewrite_one(expr: Expr) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
            Ok(narrow) => Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(narrow)), metadata)),
            Err(_) => Transformed::no(Expr::Literal(ScalarValue::Int64(Some(value)), metadata)),
        },
        Expr::Alias(alias) => Transformed::yes(*alias.expr),
        Expr::ScalarFunction(ScalarFunction { func, mut args }) => match func.name() {
            "concat" if !args.is_empty() => {
                let text = |expr: Expr| cast(expr, DataType::Utf8);
                let mut args = args.into_iter();
                let first = args
                    .next()
                    .map(text)
                    .ok_or_else(|| SqlError::internal("concat without arguments"))?;
                Transformed::yes(args.fold(first, |left, right| {
                    Expr::BinaryExpr(BinaryExpr::new(
                        Box::new(left),
                        Operator::StringConcat,
                        Box::new(text(right)),
                    ))
                }))
            }
            "greatest" | "least" if args.len() > 1 => {
                let any_null = args.iter().cloned().map(is_null).reduce(Expr::or);
                let any_null = any_null.ok_or_else(|| SqlError::internal("greatest without arguments"))?;
                Transformed::yes(case(any_null, Expr::Literal(ScalarValue::Null, None), func.call(args)))
            }
            "regexp_replace" if args.len() == 3 => {
                args.push(lit("g"));
                Transformed::yes(func.call(args))
            }
            _ => match func.inner().downcast_ref::<Macro>() {
                Some(found) => Transformed::yes(found.expand(args)?),
                None => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
            },
        },
        other => Transformed::no(other),
    })
}

fn case(condition: Expr, then: Expr, otherwise: Expr) -> Expr {
    Expr::Case(Case::new(
        None,
        vec![(Box::new(condition), Box::new(then))],
        Some(Box::new(otherwise)),
    ))
}

fn integer(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int32(Some(value)) => Some(i64::from(*value)),
        ScalarValue::Int64(Some(value)) => Some(*value),
        _ => None,
    }
}
