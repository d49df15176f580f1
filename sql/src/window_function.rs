//! The table functions that give rows their window: `TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)`, `HOP`, `CUMULATE` and
//! `SESSION`.

use crate::dialect::TABLE_ARGUMENT;
use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use crate::statement::Name;
use sqlparser::ast::{
    DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    Interval, ObjectName, Spanned, Value,
};
use tidemill_engine::graph::TimeDomain;

/// Returns the milliseconds of an interval as the planner writes it into a frame: `10 SECOND`.
pub(crate) fn written_interval_ms(text: &str) -> Option<i64> {
    let (number, unit) = text.trim().rsplit_once(' ')?;
    let unit_ms = match unit.to_ascii_uppercase().trim_end_matches('S') {
        "MILLISECOND" => 1,
        "SECOND" => 1_000,
        "MINUTE" => 60_000,
        "HOUR" => 3_600_000,
        "DAY" => 86_400_000,
        "WEEK" => 604_800_000,
        _ => return None,
    };
    exact_ms(number.trim(), unit_ms)
}

/// How a tumbling window is written.
pub(crate) const HINT: &str = "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND))";

const HOP_HINT: &str =
    "write TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '1' MINUTE)): the slide, then the size";

const CUMULATE_HINT: &str = "write TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)): the step, then the size";

const SESSION_HINT: &str = "write TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE))";

/// A window may be made of this many panes: each holds keys and states of its own.
const PANES_MAX: i64 = 100_000;

/// Names the time column of a window.
pub(crate) const DESCRIPTOR: &str = "DESCRIPTOR";

/// How the older form of windows, whose functions name the clock, says it to the newer one.
pub(crate) trait Clock {
    /// Returns the name that stands in the place of `DESCRIPTOR`.
    fn descriptor(self) -> &'static str;
}

impl Clock for TimeDomain {
    fn descriptor(self) -> &'static str {
        match self {
            Self::EventTime => "$ROWTIME_DESCRIPTOR",
            Self::ProcessingTime => "$PROCTIME_DESCRIPTOR",
        }
    }
}

/// Which windows; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum WindowSpec {
    /// One after the other, of a size above 0, shifted against the epoch.
    Tumble { size_ms: i64, offset_ms: i64 },
    /// One every slide; the size is at least the slide.
    Hop {
        size_ms: i64,
        slide_ms: i64,
        offset_ms: i64,
    },
    /// With one start for every size, growing by a step.
    Cumulate { size_ms: i64, step_ms: i64, offset_ms: i64 },
    /// Rows without a pause of more than the gap.
    Session { gap_ms: i64 },
}

impl WindowSpec {
    /// Returns the function's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tumble { .. } => "TUMBLE",
            Self::Hop { .. } => "HOP",
            Self::Cumulate { .. } => "CUMULATE",
            Self::Session { .. } => "SESSION",
        }
    }

    /// Returns what the windows' identity is made of, beside the name: durable.
    pub(crate) fn numbers(self) -> Vec<i64> {
        match self {
            Self::Tumble { size_ms, offset_ms } => vec![size_ms, offset_ms],
            Self::Hop {
                size_ms,
                slide_ms,
                offset_ms,
            } => vec![size_ms, slide_ms, offset_ms],
            Self::Cumulate {
                size_ms,
                step_ms,
                offset_ms,
            } => vec![size_ms, step_ms, offset_ms],
            Self::Session { gap_ms } => vec![gap_ms],
        }
    }

    /// Returns the identity as text.
    pub(crate) fn text(self) -> String {
        let numbers: Vec<String> = self.numbers().iter().map(i64::to_string).collect();
        match self {
            // As it was before there were others: state is stored under it.
            Self::Tumble { .. } => numbers.join(" "),
            _ => format!("{} {}", self.name().to_lowercase(), numbers.join(" ")),
        }
    }

    /// Says whether a row's window is known from its time alone.
    pub(crate) fn is_one_per_row(self) -> bool {
        matches!(self, Self::Tumble { .. })
    }
}

/// A call of a window function.
#[derive(Clone, Debug)]
pub(crate) struct WindowFunction {
    /// The table, view or WITH query whose rows get windows.
    pub(crate) table: ObjectName,
    /// The columns of `PARTITION BY`: rows that differ in them share no window.
    pub(crate) partition: Vec<Name>,
    /// The time column.
    pub(crate) time: Name,
    /// The clock that the query says the column is of.
    pub(crate) clock: Option<TimeDomain>,
    /// The windows.
    pub(crate) spec: WindowSpec,
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

/// What the arguments of a window function are called, in their order.
struct Signature {
    name: &'static str,
    /// The names of the intervals, and how many of them must be there.
    intervals: &'static [&'static str],
    needed: usize,
    hint: &'static str,
}

const SIGNATURES: &[Signature] = &[
    Signature {
        name: "TUMBLE",
        intervals: &["SIZE", "OFFSET"],
        needed: 1,
        hint: HINT,
    },
    Signature {
        name: "HOP",
        intervals: &["SLIDE", "SIZE", "OFFSET"],
        needed: 2,
        hint: HOP_HINT,
    },
    Signature {
        name: "CUMULATE",
        intervals: &["STEP", "SIZE", "OFFSET"],
        needed: 2,
        hint: CUMULATE_HINT,
    },
    Signature {
        name: "SESSION",
        intervals: &["GAP"],
        needed: 1,
        hint: SESSION_HINT,
    },
];

impl WindowFunction {
    /// Understands a call.
    ///
    /// # Errors
    /// When the function is unknown or its arguments are not a table, a time column and intervals.
    pub(crate) fn parse(name: &ObjectName, args: &[FunctionArg]) -> Result<Self> {
        let at = start_of(name.span());
        let upper = name.to_string().replace('`', "").to_ascii_uppercase();
        let Some(signature) = SIGNATURES.iter().find(|signature| signature.name == upper) else {
            if upper == "UNNEST" {
                return Err(SqlError::at(at, "UNNEST without a table before it is not supported")
                    .hint("write FROM t CROSS JOIN UNNEST(t.list) AS e (x): the array is one of the table's"));
            }
            return Err(SqlError::at(at, format!("unknown table function {upper}")).hint(HINT));
        };
        let found = signature.arguments(args, at)?;
        let missing = |what: &str| SqlError::at(at, format!("{upper} needs {what}")).hint(signature.hint);
        let (table, partition) = signature.table(found[0].ok_or_else(|| missing("a table"))?, at)?;
        let (time, clock) = signature.descriptor(found[1].ok_or_else(|| missing("a time column"))?, at)?;
        let mut intervals = Vec::with_capacity(signature.intervals.len());
        for (index, name) in signature.intervals.iter().enumerate() {
            let place = found[2 + index].map_or(at, |expr| start_of(expr.span()).or(at));
            let ms = match found[2 + index] {
                Some(expr) => interval_ms(expr)?,
                None if index < signature.needed => {
                    let article = if *name == "OFFSET" { "an" } else { "a" };
                    return Err(missing(&format!("{article} {}", name.to_lowercase())));
                }
                None => 0,
            };
            if index < signature.needed && ms <= 0 {
                let message = match *name {
                    "SIZE" => "a window must be at least 1 ms long".to_owned(),
                    other => format!("the {} must be at least 1 ms", other.to_lowercase()),
                };
                return Err(SqlError::at(place, message).hint("write INTERVAL '5' SECOND"));
            }
            intervals.push((ms, place));
        }
        let spec = match (signature.name, intervals.as_slice()) {
            ("TUMBLE", &[(size_ms, _), (offset_ms, _)]) => WindowSpec::Tumble { size_ms, offset_ms },
            ("HOP", &[(slide_ms, slide_at), (size_ms, _), (offset_ms, _)]) => {
                if slide_ms > size_ms {
                    return Err(SqlError::at(
                        slide_at,
                        "the slide is longer than the window: rows between windows would be lost",
                    )
                    .hint("the slide comes first, then the size; filter with WHERE if rows are to be left out"));
                }
                let panes = size_ms / greatest_common_divisor(size_ms, slide_ms);
                if panes > PANES_MAX {
                    let message = format!("a window would be made of {panes} panes, and {PANES_MAX} is the limit");
                    return Err(SqlError::at(slide_at, message)
                        .hint("choose a slide and a size with a larger common divisor, best a size that is a multiple of the slide"));
                }
                WindowSpec::Hop {
                    size_ms,
                    slide_ms,
                    offset_ms,
                }
            }
            ("CUMULATE", &[(step_ms, step_at), (size_ms, _), (offset_ms, _)]) => {
                if size_ms % step_ms != 0 {
                    return Err(SqlError::at(step_at, "the size is not a multiple of the step")
                        .hint("the step comes first, then the size of the longest window"));
                }
                if size_ms / step_ms > PANES_MAX {
                    let message = format!(
                        "a window would have {} steps, and {PANES_MAX} is the limit",
                        size_ms / step_ms
                    );
                    return Err(SqlError::at(step_at, message).hint("choose a longer step"));
                }
                WindowSpec::Cumulate {
                    size_ms,
                    step_ms,
                    offset_ms,
                }
            }
            ("SESSION", &[(gap_ms, _)]) => WindowSpec::Session { gap_ms },
            _ => return Err(SqlError::internal("a window function without its intervals")),
        };
        if !partition.is_empty() && !matches!(spec, WindowSpec::Session { .. }) {
            return Err(
                SqlError::at(partition[0].at.or(at), format!("{upper} has no PARTITION BY"))
                    .hint("its windows are the same for all rows: GROUP BY the column"),
            );
        }
        Ok(Self {
            table,
            partition,
            time,
            clock,
            spec,
        })
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl Signature {
    /// Sorts the arguments: the table, the time column, the intervals.
    fn arguments<'a>(&self, args: &'a [FunctionArg], at: Option<Position>) -> Result<Vec<Option<&'a Expr>>> {
        let function = self.name;
        let names: Vec<&str> = ["DATA", "TIMECOL"].iter().chain(self.intervals).copied().collect();
        let mut found = vec![None; names.len()];
        for (position, arg) in args.iter().enumerate() {
            let (index, value, here) = match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (position, value, start_of(value.span()).or(at)),
                FunctionArg::Named {
                    name,
                    arg: FunctionArgExpr::Expr(value),
                    operator: _,
                } => {
                    let here = start_of(name.span);
                    let index = names.iter().position(|known| name.value.eq_ignore_ascii_case(known));
                    let Some(index) = index else {
                        let (last, first) = names.split_last().unwrap_or((&"", &[]));
                        return Err(SqlError::at(here, format!("{function} has no argument {}", name.value))
                            .hint(format!("its arguments are {} and {last}", first.join(", "))));
                    };
                    (index, value, here)
                }
                _ => {
                    let message = format!("this argument of {function} is not supported");
                    return Err(SqlError::at(at, message).hint(self.hint));
                }
            };
            match found.get_mut(index) {
                Some(slot @ None) => *slot = Some(value),
                Some(_) => {
                    let message = format!("this argument of {function} is given twice");
                    return Err(SqlError::at(here, message).hint(self.hint));
                }
                None => {
                    let message = format!("{function} has at most {} arguments", names.len());
                    return Err(SqlError::at(here, message).hint(self.hint));
                }
            }
        }
        Ok(found)
    }

    /// Reads `TABLE t [PARTITION BY columns]`.
    fn table(&self, expr: &Expr, at: Option<Position>) -> Result<(ObjectName, Vec<Name>)> {
        if let Expr::Prefixed { prefix, value } = expr
            && prefix.value == TABLE_ARGUMENT
            && let Some((parts, partition)) = table_and_partition(value)
        {
            let names = partition.iter().map(|expr| match expr {
                Expr::Identifier(ident) => Ok(Name::from(ident.clone())),
                other => Err(
                    SqlError::at(start_of(other.span()).or(at), "PARTITION BY names columns")
                        .hint("compute the value in a view"),
                ),
            });
            return match parts {
                [part] => Ok((ObjectName::from(vec![part.clone()]), names.collect::<Result<_>>()?)),
                _ => Err(SqlError::at(
                    start_of(prefix.span).or(at),
                    "names with a catalog or database are not supported",
                )
                .hint("write the table's name alone")),
            };
        }
        let message = format!("the first argument of {} is a table", self.name);
        Err(SqlError::at(start_of(expr.span()).or(at), message)
            .hint("write TABLE and the name of a table, a view or a WITH query"))
    }

    fn descriptor(&self, expr: &Expr, at: Option<Position>) -> Result<(Name, Option<TimeDomain>)> {
        let here = start_of(expr.span()).or(at);
        let refusal = || {
            let message = format!("the second argument of {} is a time column", self.name);
            SqlError::at(here, message).hint("write DESCRIPTOR(ts)")
        };
        let Expr::Function(function) = expr else {
            return Err(refusal());
        };
        let name = function.name.to_string();
        let clock = [TimeDomain::EventTime, TimeDomain::ProcessingTime];
        let clock = clock.into_iter().find(|clock| name == clock.descriptor());
        if clock.is_none() && !name.eq_ignore_ascii_case(DESCRIPTOR) {
            return Err(refusal());
        }
        match call_of(function)? {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident)))] => {
                Ok((Name::from(ident.clone()), clock))
            }
            _ => Err(refusal()),
        }
    }
}

/// Takes apart what the dialect hands over as the table of a window function.
pub(crate) fn table_and_partition(value: &Expr) -> Option<(&[Ident], &[Expr])> {
    match value {
        Expr::CompoundIdentifier(parts) => Some((parts, &[])),
        Expr::Tuple(table_and_columns) => match table_and_columns.split_first()? {
            (Expr::CompoundIdentifier(parts), columns) => Some((parts, columns)),
            _ => None,
        },
        _ => None,
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
