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
//! | `TO_TIMESTAMP(text, pattern)`, `UNIX_TIMESTAMP()` | functions of ours |
//! | `IF(c, a, b)` | a `CASE` |
//! | `LOG(x)` | the natural logarithm (DataFusion's is of base 10) |
//! | `MOD(a, b)`, `TRUNCATE(x, n)`, `CEILING(x)`, `E()`, `RAND_INTEGER(n)` | `%`, `trunc`, `ceil`, a literal, `random` |
//! | `ENCODE(x, 'UTF-8')`, `DECODE` | functions of ours; `'hex'` and `'base64'` are DataFusion's |
//! | `ARRAY_POSITION` | 0 instead of null where there is none |
//! | numbers have a sign | those of `ARRAY_LENGTH`, `ARRAY_POSITIONS`, ... are cast |

use crate::error::{Result, SqlError};
use crate::functions::Functions;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::expr::{Case, ScalarFunction};
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility, binary_expr, cast, is_null, lit,
};
use std::sync::{Arc, LazyLock};

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
    /// `MOD(a, b)`.
    Mod,
    /// Another function by its name here.
    Named(&'static str),
    /// `E()`.
    E,
    /// `RAND_INTEGER(bound)`.
    RandInteger,
    /// `UNIX_TIMESTAMP([text[, pattern]])`.
    UnixTimestamp,
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
    ("mod", MacroKind::Mod),
    ("ceiling", MacroKind::Named("ceil")),
    ("truncate", MacroKind::Named("trunc")),
    ("e", MacroKind::E),
    ("rand_integer", MacroKind::RandInteger),
    ("unix_timestamp", MacroKind::UnixTimestamp),
];

impl Macro {
    /// Returns all of them by name.
    pub(crate) fn functions() -> Vec<(String, Arc<ScalarUDF>)> {
        MACROS
            .iter()
            .map(|&(name, kind)| {
                let signature = match kind {
                    MacroKind::If => Signature::any(3, Volatility::Immutable),
                    MacroKind::E => Signature::nullary(Volatility::Immutable),
                    // The clock and chance: never folded.
                    MacroKind::RandInteger => Signature::variadic_any(Volatility::Volatile),
                    MacroKind::UnixTimestamp => {
                        let any = TypeSignature::VariadicAny;
                        Signature::one_of(vec![TypeSignature::Nullary, any], Volatility::Volatile)
                    }
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
            MacroKind::ToTimestamp if count == 2 => Ok(named("to_timestamp_by")?.call(args)),
            MacroKind::ToTimestamp => Err(wrong(
                "write TO_TIMESTAMP(text) or TO_TIMESTAMP(text, 'yyyy-MM-dd HH:mm:ss')",
            )),
            MacroKind::Mod => match <[Expr; 2]>::try_from(args) {
                Ok([left, right]) => Ok(binary_expr(left, Operator::Modulo, right)),
                Err(_) => Err(wrong("write MOD(number, divisor)")),
            },
            MacroKind::Named(name) => Ok(named(name)?.call(args)),
            MacroKind::E if count == 0 => Ok(lit(std::f64::consts::E)),
            MacroKind::E => Err(wrong("write E()")),
            MacroKind::RandInteger if count == 1 => {
                let bound = args.swap_remove(0);
                let scaled = binary_expr(
                    named("random")?.call(Vec::new()),
                    Operator::Multiply,
                    cast(bound, DataType::Float64),
                );
                Ok(cast(named("floor")?.call(vec![scaled]), DataType::Int32))
            }
            MacroKind::RandInteger => Err(SqlError::new("RAND_INTEGER with a seed is not supported")
                .hint("write RAND_INTEGER(bound): numbers repeat with the ticks anyway")),
            MacroKind::UnixTimestamp if count == 0 => {
                let ms = cast(named("now")?.call(Vec::new()), DataType::Int64);
                Ok(binary_expr(ms, Operator::Divide, lit(1000i64)))
            }
            MacroKind::UnixTimestamp => Ok(named("unix_timestamp_of")?.call(args)),
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
            MacroKind::E => DataType::Float64,
            MacroKind::RandInteger => DataType::Int32,
            MacroKind::UnixTimestamp => DataType::Int64,
            MacroKind::If | MacroKind::Mod | MacroKind::Named(_) => DataType::Null,
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
            MacroKind::Mod | MacroKind::Named(_) => Ok(arguments.first().cloned().unwrap_or(DataType::Null)),
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
            "log" if args.len() == 1 => Transformed::yes(named("ln")?.call(args)),
            name @ ("encode" | "decode") if is_charset(args.get(1)) => {
                Transformed::yes(named(&format!("{name}_text"))?.call(args))
            }
            // Theirs are without a sign.
            "array_length" | "array_ndims" => Transformed::yes(cast(func.call(args), DataType::Int64)),
            "array_positions" | "array_dims" => {
                let numbers = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
                Transformed::yes(cast(func.call(args), numbers))
            }
            "array_position" if args.len() == 2 => {
                let any_null = args.iter().cloned().map(is_null).reduce(Expr::or);
                let any_null = any_null.ok_or_else(|| SqlError::internal("array_position without arguments"))?;
                let place = cast(func.call(args), DataType::Int32);
                let found = named("coalesce")?.call(vec![place, lit(0i32)]);
                Transformed::yes(case(any_null, Expr::Literal(ScalarValue::Null, None), found))
            }
            _ => match func.inner().downcast_ref::<Macro>() {
                Some(found) => Transformed::yes(found.expand(args)?),
                None => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
            },
        },
        other => Transformed::no(other),
    })
}

/// Returns a scalar function by its name.
fn named(name: &str) -> Result<Arc<ScalarUDF>> {
    FUNCTIONS
        .scalar(name)
        .ok_or_else(|| SqlError::internal(format!("no function {name}")))
}

/// All functions, for those that are written with others.
static FUNCTIONS: LazyLock<Functions> = LazyLock::new(Functions::new);

/// Says whether an argument of `ENCODE` names a character set, and not `hex` or `base64`.
fn is_charset(argument: Option<&Expr>) -> bool {
    match argument {
        Some(Expr::Literal(ScalarValue::Utf8(Some(name)), _)) => {
            !["hex", "base64", "base64pad"].contains(&name.to_ascii_lowercase().as_str())
        }
        _ => false,
    }
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
