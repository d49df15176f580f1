//! The table functions that give rows their window: `TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)`.

use crate::dialect::TABLE_ARGUMENT;
use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use crate::statement::Name;
use sqlparser::ast::{
    DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Interval,
    ObjectName, Spanned, Value,
};

/// How a tumbling window is written.
pub(crate) const HINT: &str = "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND))";

/// Windows of one size, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TumbleSpec {
    /// Their length in milliseconds, above 0.
    pub(crate) size_ms: i64,
    /// Their shift against the epoch in milliseconds.
    pub(crate) offset_ms: i64,
}

/// A call of a window function.
#[derive(Clone, Debug)]
pub(crate) struct WindowFunction {
    /// The table, view or WITH query whose rows get windows.
    pub(crate) table: ObjectName,
    /// The time column.
    pub(crate) time: Name,
    /// The windows.
    pub(crate) spec: TumbleSpec,
}

/// Returns the arguments of a call inside `TABLE(...)`.
///
/// # Errors
/// When the call carries anything else.
pub(crate) fn call_of(function: &Function) -> Result<&[FunctionArg]> {
    let Function {
        name,
        uses_odbc_syntax,
        parameters,
        args,
        filter,
        null_treatment,
        over,
        within_group,
    } = function;
    let plain = !uses_odbc_syntax
        && matches!(parameters, FunctionArguments::None)
        && filter.is_none()
        && null_treatment.is_none()
        && over.is_none()
        && within_group.is_empty();
    match args {
        FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses,
        }) if plain && clauses.is_empty() => Ok(args),
        _ => Err(SqlError::at(start_of(name.span()), "this form of a table function is not supported").hint(HINT)),
    }
}

impl WindowFunction {
    /// Understands a call.
    ///
    /// # Errors
    /// When the function is not TUMBLE or its arguments are not a table, a time column and intervals.
    pub(crate) fn parse(name: &ObjectName, args: &[FunctionArg]) -> Result<Self> {
        let at = start_of(name.span());
        match name.to_string().replace('`', "").to_ascii_uppercase().as_str() {
            "TUMBLE" => {}
            other @ ("HOP" | "CUMULATE" | "SESSION") => {
                return Err(SqlError::at(at, format!("the window {other} is not supported yet")).hint(HINT));
            }
            other => return Err(SqlError::at(at, format!("unknown table function {other}")).hint(HINT)),
        }
        let [table, time, size, offset] = arguments(args, at)?;
        let missing = |what: &str| SqlError::at(at, format!("TUMBLE needs {what}")).hint(HINT);
        let table = table_argument(table.ok_or_else(|| missing("a table"))?, at)?;
        let time = descriptor(time.ok_or_else(|| missing("a time column"))?, at)?;
        let size = size.ok_or_else(|| missing("a size"))?;
        let size_ms = interval_ms(size)?;
        if size_ms <= 0 {
            return Err(
                SqlError::at(start_of(size.span()).or(at), "a window must be at least 1 ms long")
                    .hint("write INTERVAL '5' SECOND"),
            );
        }
        let offset_ms = offset.map_or(Ok(0), interval_ms)?;
        Ok(Self {
            table,
            time,
            spec: TumbleSpec { size_ms, offset_ms },
        })
    }
}

/// Sorts the arguments into table, time column, size and offset.
fn arguments(args: &[FunctionArg], at: Option<Position>) -> Result<[Option<&Expr>; 4]> {
    let names: [&[&str]; 4] = [&["DATA"], &["TIMECOL"], &["SIZE"], &["OFFSET"]];
    let mut found = [None; 4];
    for (position, arg) in args.iter().enumerate() {
        let (index, value, here) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (position, value, start_of(value.span()).or(at)),
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(value),
                operator: _,
            } => {
                let here = start_of(name.span);
                let index = names
                    .iter()
                    .position(|n| n.iter().any(|n| name.value.eq_ignore_ascii_case(n)));
                let Some(index) = index else {
                    return Err(SqlError::at(here, format!("TUMBLE has no argument {}", name.value))
                        .hint("its arguments are DATA, TIMECOL, SIZE and OFFSET"));
                };
                (index, value, here)
            }
            _ => return Err(SqlError::at(at, "this argument of TUMBLE is not supported").hint(HINT)),
        };
        match found.get_mut(index) {
            Some(slot @ None) => *slot = Some(value),
            Some(_) => return Err(SqlError::at(here, "this argument of TUMBLE is given twice").hint(HINT)),
            None => return Err(SqlError::at(here, "TUMBLE has at most four arguments").hint(HINT)),
        }
    }
    Ok(found)
}

fn table_argument(expr: &Expr, at: Option<Position>) -> Result<ObjectName> {
    if let Expr::Prefixed { prefix, value } = expr
        && prefix.value == TABLE_ARGUMENT
        && let Expr::CompoundIdentifier(parts) = value.as_ref()
    {
        return match parts.as_slice() {
            [part] => Ok(ObjectName::from(vec![part.clone()])),
            _ => Err(SqlError::at(
                start_of(prefix.span).or(at),
                "names with a catalog or database are not supported",
            )
            .hint("write the table's name alone")),
        };
    }
    Err(
        SqlError::at(start_of(expr.span()).or(at), "the first argument of TUMBLE is a table")
            .hint("write TABLE and the name of a table, a view or a WITH query"),
    )
}

fn descriptor(expr: &Expr, at: Option<Position>) -> Result<Name> {
    let here = start_of(expr.span()).or(at);
    let refusal = || SqlError::at(here, "the second argument of TUMBLE is a time column").hint("write DESCRIPTOR(ts)");
    let Expr::Function(function) = expr else {
        return Err(refusal());
    };
    if !function.name.to_string().eq_ignore_ascii_case("DESCRIPTOR") {
        return Err(refusal());
    }
    match call_of(function)? {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident)))] => Ok(Name::from(ident.clone())),
        _ => Err(refusal()),
    }
}

/// Evaluates `INTERVAL 'n' UNIT` to milliseconds.
///
/// # Errors
/// On anything else, and on units without a fixed length.
pub(crate) fn interval_ms(expr: &Expr) -> Result<i64> {
    let at = start_of(expr.span());
    let refusal = |message: String| SqlError::at(at, message).hint("write INTERVAL '5' SECOND");
    match expr {
        Expr::Nested(inner) => return interval_ms(inner).map_err(|error| error.or_at(at)),
        Expr::UnaryOp {
            op: sqlparser::ast::UnaryOperator::Minus,
            expr,
        } => {
            return interval_ms(expr).map(|ms| -ms).map_err(|error| error.or_at(at));
        }
        _ => {}
    }
    let Expr::Interval(interval) = expr else {
        return Err(refusal("an interval is expected here".into()));
    };
    let Interval {
        value,
        leading_field,
        leading_precision: _,
        last_field,
        fractional_seconds_precision: _,
    } = interval;
    let Expr::Value(literal) = value.as_ref() else {
        return Err(refusal("an interval's value is a number".into()));
    };
    let at = at.or(start_of(literal.span));
    let refusal = |message: String| SqlError::at(at, message).hint("write INTERVAL '5' SECOND");
    let (Value::SingleQuotedString(text) | Value::Number(text, _)) = &literal.value else {
        return Err(refusal("an interval's value is a number".into()));
    };
    if last_field.is_some() {
        return Err(refusal("an interval of several units is not supported yet".into()));
    }
    use DateTimeField as Unit;
    let unit_ms: i64 = match leading_field {
        Some(Unit::Millisecond | Unit::Milliseconds) => 1,
        Some(Unit::Second | Unit::Seconds) => 1_000,
        Some(Unit::Minute | Unit::Minutes) => 60_000,
        Some(Unit::Hour | Unit::Hours) => 3_600_000,
        Some(Unit::Day | Unit::Days) => 86_400_000,
        Some(Unit::Week(None) | Unit::Weeks) => 604_800_000,
        Some(other) => {
            return Err(refusal(format!(
                "an interval in {other} has no fixed length; use DAY, HOUR, MINUTE or SECOND"
            )));
        }
        None => return Err(refusal("the interval has no unit".into())),
    };
    exact_ms(text.trim(), unit_ms).ok_or_else(|| {
        refusal(format!(
            "the interval '{text}' is not a whole number of milliseconds or does not fit"
        ))
    })
}

/// Multiplies a decimal number by a unit without rounding.
fn exact_ms(text: &str, unit_ms: i64) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<i64>().ok())
            .flatten()
    };
    let scale = 10i64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = number(fraction)?.checked_mul(unit_ms)?;
    if parts % scale != 0 {
        return None;
    }
    let ms = number(whole)?.checked_mul(unit_ms)?.checked_add(parts / scale)?;
    Some(if negative { -ms } else { ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_exact_or_refused() {
        assert_eq!(exact_ms("5", 1000), Some(5000));
        assert_eq!(exact_ms("0.5", 1000), Some(500));
        assert_eq!(exact_ms("-1.25", 60_000), Some(-75_000));
        assert_eq!(exact_ms("0.0001", 1000), None);
        assert_eq!(exact_ms("9223372036854775807", 1000), None);
        assert_eq!(exact_ms("+5", 1000), None);
        assert_eq!(exact_ms("", 1000), None);
    }
}
