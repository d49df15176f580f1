//! Expressions.

use super::Whitelist;
use super::over;
use super::query::check_wildcard;
use crate::error::{Position, Result, SqlError};
use crate::functions::Known;
use crate::json_syntax;
use crate::script::start_of;
use crate::types;
use sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Interval, Subscript, TypedString, UnaryOperator, Value, ValueWithSpan,
};

/// The most parts of a name: a table, a column, and as many fields as rows may lie deep in rows.
const PATH_PARTS_MAX: usize = 2 + types::ROW_DEPTH_MAX;

/// What may stand in an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Columns and scalar functions.
    Row,
    /// Aggregates, too.
    Aggregate,
}

pub(super) fn check(list: &Whitelist<'_>, expr: &Expr, place: Place) -> Result<()> {
    let refuse = |what: &str, hint: &str| Err(list.unknown(list.start(expr), &[], what, hint));
    let not_yet = |what: &str, hint: &str| Err(list.not_yet(list.start(expr), &[], what, hint));
    let all = |exprs: &[&Expr]| exprs.iter().try_for_each(|expr| check(list, expr, place));
    match expr {
        Expr::CompoundIdentifier(parts) if parts.len() > PATH_PARTS_MAX => refuse(
            "a name of so many parts",
            "write column.field; rows lie at most 8 deep in rows",
        ),
        // A column, or a field of a column's row: the planner finds out which.
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(()),
        Expr::CompoundFieldAccess { root, access_chain } => {
            check(list, root, place)?;
            access_chain.iter().try_for_each(|access| match access {
                AccessExpr::Dot(Expr::Identifier(_)) => Ok(()),
                AccessExpr::Subscript(Subscript::Index { index }) => check(list, index, place),
                AccessExpr::Subscript(Subscript::Slice { .. }) => {
                    refuse("value[from:to]", "use ARRAY_SLICE(value, from, to)")
                }
                AccessExpr::Dot(_) => refuse("this access to a field", "write value.field"),
            })
        }
        Expr::JsonAccess { .. } => refuse("this access to a field", "use JSON_VALUE(text, '$.field')"),
        Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotUnknown(inner)
        | Expr::Nested(inner) => check(list, inner, place),
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => all(&[left, right]),
        Expr::InList {
            expr: inner,
            list: values,
            negated: _,
        } => {
            check(list, inner, place)?;
            values.iter().try_for_each(|value| check(list, value, place))
        }
        Expr::Between {
            expr: inner,
            negated: _,
            low,
            high,
        } => all(&[inner, low, high]),
        Expr::BinaryOp { left, op, right } => {
            if !is_known_operator(op) {
                return refuse(&format!("the operator {op}"), "use a function for it");
            }
            all(&[left, right])
        }
        Expr::Like {
            negated: _,
            any,
            expr: inner,
            pattern,
            escape_char,
        }
        | Expr::ILike {
            negated: _,
            any,
            expr: inner,
            pattern,
            escape_char,
        } => {
            if *any {
                return refuse("LIKE ANY", "combine several LIKE with OR");
            }
            if let Some(escape) = escape_char
                && !matches!(&escape.value, Value::SingleQuotedString(text) if text == "\\")
            {
                let at = start_of(escape.span).or(list.start(expr));
                return Err(list.unknown(at, &[], "an escape character other than \\", "write ESCAPE '\\'"));
            }
            all(&[inner, pattern])
        }
        Expr::UnaryOp { op, expr: inner } => match op {
            UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not => check(list, inner, place),
            _ => refuse(&format!("the operator {op}"), "use a function for it"),
        },
        Expr::Cast {
            kind: _,
            expr: inner,
            data_type,
            array,
            format,
        } => {
            if *array || format.is_some() {
                return refuse("this form of CAST", "write CAST(x AS type)");
            }
            check_cast_type(list, data_type, list.start(expr))?;
            check(list, inner, place)
        }
        Expr::Extract {
            field,
            syntax: _,
            expr: inner,
        } => {
            check_field(list, field, list.start(expr))?;
            check(list, inner, place)
        }
        Expr::Ceil { expr: inner, field } | Expr::Floor { expr: inner, field } => match field {
            CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => check(list, inner, place),
            CeilFloorKind::DateTimeField(field) if is_unit(field) => check(list, inner, place),
            CeilFloorKind::DateTimeField(field) => refuse(
                &format!("CEIL or FLOOR TO {field}"),
                "units are YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND and MILLISECOND",
            ),
            CeilFloorKind::Scale(_) => refuse("CEIL or FLOOR with a scale", "use round(x, digits)"),
        },
        Expr::Position { expr: inner, r#in } => all(&[inner, r#in]),
        Expr::Substring {
            expr: inner,
            substring_from,
            substring_for,
            special: _,
            shorthand: _,
        } => {
            check(list, inner, place)?;
            substring_from
                .iter()
                .chain(substring_for)
                .try_for_each(|part| check(list, part, place))
        }
        Expr::Trim {
            trim_where: _,
            trim_what,
            expr: inner,
            trim_characters,
        } => {
            check(list, inner, place)?;
            let characters = trim_characters.iter().flatten();
            trim_what
                .iter()
                .map(AsRef::as_ref)
                .chain(characters)
                .try_for_each(|part| check(list, part, place))
        }
        Expr::Overlay {
            expr: inner,
            overlay_what,
            overlay_from,
            overlay_for,
        } => {
            all(&[inner, overlay_what, overlay_from])?;
            overlay_for.iter().try_for_each(|part| check(list, part, place))
        }
        Expr::Value(value) => check_value(list, value),
        Expr::TypedString(TypedString {
            data_type,
            value,
            uses_odbc_syntax,
        }) => {
            if *uses_odbc_syntax {
                return refuse("this form of a literal", "write TIMESTAMP '2026-01-01 00:00:00'");
            }
            check_cast_type(list, data_type, list.start(expr))?;
            check_value(list, value)
        }
        Expr::Function(function) => check_function(list, function, place),
        Expr::Case {
            case_token: _,
            end_token: _,
            operand,
            conditions,
            else_result,
        } => {
            for CaseWhen { condition, result } in conditions {
                all(&[condition, result])?;
            }
            operand
                .iter()
                .chain(else_result)
                .try_for_each(|part| check(list, part, place))
        }
        Expr::Interval(interval) => check_interval(list, interval, list.start(expr)),
        Expr::AtTimeZone { .. } => not_yet("AT TIME ZONE", "timestamps with a local time zone are in UTC"),
        Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::Subquery(_) | Expr::AnyOp { .. } | Expr::AllOp { .. } => {
            not_yet(
                "a query inside an expression",
                "put it into FROM, or compare with a list of values",
            )
        }
        Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => refuse(
            "GROUPING SETS, ROLLUP or CUBE here",
            "write it in GROUP BY, beside other keys",
        ),
        Expr::Array(array) => array.elem.iter().try_for_each(|expr| check(list, expr, place)),
        Expr::Tuple(_) | Expr::Struct { .. } | Expr::Map(_) | Expr::Dictionary(_) => {
            not_yet("a nested value", "use one column for each of its fields")
        }
        Expr::SimilarTo { .. } | Expr::RLike { .. } => refuse("this operator", "use regexp_like(text, pattern)"),
        Expr::Prefixed { .. } => refuse("TABLE here", "TABLE t is the first argument of a window function"),
        Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => refuse("* here", "name the columns"),
        Expr::Collate { .. } => refuse("COLLATE", "text is compared by its bytes"),
        Expr::Convert { .. } => refuse("CONVERT", "write CAST(x AS type)"),
        Expr::IsNormalized { .. }
        | Expr::InUnnest { .. }
        | Expr::Named { .. }
        | Expr::MatchAgainst { .. }
        | Expr::OuterJoin(_)
        | Expr::Prior(_)
        | Expr::Lambda(_)
        | Expr::MemberOf(_) => refuse("this expression", "use a function for it"),
    }
}

/// Says whether times can be rounded to a unit.
fn is_unit(field: &DateTimeField) -> bool {
    use DateTimeField as Field;
    matches!(
        field,
        Field::Year
            | Field::Quarter
            | Field::Month
            | Field::Week(None)
            | Field::Day
            | Field::Hour
            | Field::Minute
            | Field::Second
            | Field::Millisecond
    )
}

fn is_known_operator(op: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        op,
        Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::StringConcat
            | Op::Gt
            | Op::Lt
            | Op::GtEq
            | Op::LtEq
            | Op::Eq
            | Op::NotEq
            | Op::And
            | Op::Or
    )
}

fn check_value(list: &Whitelist<'_>, value: &ValueWithSpan) -> Result<()> {
    let at = start_of(value.span);
    match &value.value {
        Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => Ok(()),
        Value::DoubleQuotedString(_) => Err(SqlError::at(at, "double quotes mean nothing here")
            .hint("text stands in single quotes, names in back-ticks")),
        Value::Placeholder(_) => Err(list.unknown(at, &[], "a parameter", "write the value")),
        _ => Err(list.unknown(at, &[], "this form of text", "write text in single quotes")),
    }
}

fn check_cast_type(list: &Whitelist<'_>, data_type: &sqlparser::ast::DataType, at: Option<Position>) -> Result<()> {
    let sql_type = types::from_ast(data_type).map_err(|error| error.or_at(at))?;
    if sql_type.length.is_some() {
        let hint = "cast to STRING and cut it with substring(x, 1, n)";
        return Err(list.not_yet(at, &[], "a CAST to a type with a length", hint));
    }
    Ok(())
}

fn check_field(list: &Whitelist<'_>, field: &DateTimeField, at: Option<Position>) -> Result<()> {
    use DateTimeField as Field;
    match field {
        Field::Year
        | Field::Quarter
        | Field::Month
        | Field::Week(None)
        | Field::Day
        | Field::Doy
        | Field::Hour
        | Field::Minute
        | Field::Second
        | Field::Epoch => Ok(()),
        other => {
            let hint = "supported: YEAR, QUARTER, MONTH, WEEK, DAY, DOY, HOUR, MINUTE, SECOND, EPOCH";
            Err(list.not_yet(at, &[], &format!("EXTRACT({other} ...)"), hint))
        }
    }
}

fn check_interval(list: &Whitelist<'_>, interval: &Interval, at: Option<Position>) -> Result<()> {
    let Interval {
        value,
        leading_field,
        leading_precision,
        last_field,
        fractional_seconds_precision,
    } = interval;
    let is_text = matches!(value.as_ref(), Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
    if !is_text || leading_field.is_none() {
        return Err(list.unknown(at, &[], "this interval", "write INTERVAL '5' SECOND"));
    }
    if leading_precision.is_some() || last_field.is_some() || fractional_seconds_precision.is_some() {
        return Err(list.not_yet(
            at,
            &[],
            "an interval of several units",
            "add intervals of one unit each",
        ));
    }
    Ok(())
}

fn check_function(list: &Whitelist<'_>, function: &Function, place: Place) -> Result<()> {
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
    let at = name
        .0
        .first()
        .and_then(|part| part.as_ident())
        .and_then(|ident| start_of(ident.span));
    if *uses_odbc_syntax || !matches!(parameters, FunctionArguments::None) {
        return Err(list.unknown(at, &[], "this form of a call", "write function(arguments)"));
    }
    let [part] = name.0.as_slice() else {
        return Err(list.unknown(at, &[], "a function name with a dot", "use the built-in functions"));
    };
    let written = part.as_ident().map(|ident| ident.value.clone()).unwrap_or_default();
    let lower = written.to_lowercase();
    if lower == json_syntax::JSON {
        let hint = "it stands for a value there; elsewhere text that is JSON is text";
        return Err(SqlError::at(
            at,
            "JSON(text) stands only inside JSON_OBJECT, JSON_ARRAY, JSON_OBJECTAGG and JSON_ARRAYAGG",
        )
        .hint(hint));
    }
    let known = list.functions.find(&lower);
    if let Some(over) = over {
        if place != Place::Aggregate {
            let hint = "give it a name in an inner query and use the name";
            return Err(SqlError::at(at, format!("{written} ... OVER cannot stand here")).hint(hint));
        }
        if matches!(known, Known::Scalar) {
            let message = format!("the scalar function {lower} takes no OVER");
            return Err(SqlError::at(at, message).hint("remove OVER"));
        }
        if lower.starts_with("grouping") {
            let message =
                format!("{written} ... OVER is not supported: it says which columns GROUP BY groups a row by");
            return Err(SqlError::at(at, message).hint("remove OVER"));
        }
        over::check(list, over, at)?;
    }
    match known {
        Known::Scalar => {}
        Known::Over if over.is_some() => {}
        Known::Over => {
            return Err(
                SqlError::at(at, format!("{written} needs OVER")).hint("write OVER (PARTITION BY k ORDER BY ts)")
            );
        }
        Known::Aggregate if place == Place::Aggregate => {}
        Known::Aggregate => {
            return Err(SqlError::at(at, format!("the aggregate {lower} cannot stand here"))
                .hint("aggregates stand in SELECT and HAVING; give it a name in an inner query and use the name"));
        }
        Known::NotYet(hint) => {
            return Err(SqlError::at(at, format!("the function {lower} is not supported yet")).hint(hint));
        }
        Known::Unknown(nearest) => {
            let error = SqlError::at(at, format!("unknown function {written}"));
            return Err(match nearest {
                Some(nearest) => error.hint(format!("did you mean {nearest}?")),
                None => error.hint("docs/SQL.md lists the functions"),
            });
        }
    }
    let is_aggregate = matches!(known, Known::Aggregate);
    let is_over = matches!(known, Known::Over) || over.is_some() && list.functions.over(&lower).is_some();
    let takes_nulls_out = is_over && null_treatment.is_some();
    if takes_nulls_out {
        let words = &["IGNORE", "RESPECT"];
        return Err(list.not_yet(at, words, "IGNORE NULLS or RESPECT NULLS", "remove it: nulls count"));
    }
    if !within_group.is_empty() {
        return Err(list.not_yet(at, &["WITHIN"], "WITHIN GROUP", "remove it"));
    }
    if null_treatment.is_some() {
        return Err(list.unknown(
            at,
            &["IGNORE", "RESPECT"],
            "IGNORE NULLS or RESPECT NULLS",
            match lower.as_str() {
                "array_agg" => "leave nulls out with FILTER (WHERE x IS NOT NULL)",
                _ => "aggregates skip nulls",
            },
        ));
    }
    if let Some(filter) = filter {
        if !is_aggregate {
            return Err(list.unknown(at, &["FILTER"], "FILTER behind a scalar function", "use CASE WHEN"));
        }
        check(list, filter, Place::Row)?;
    }
    match args {
        FunctionArguments::None => Ok(()),
        FunctionArguments::Subquery(_) => Err(list.not_yet(at, &[], "a query as an argument", "put it into FROM")),
        FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment,
            args,
            clauses,
        }) => {
            if duplicate_treatment.is_some() && !is_aggregate {
                return Err(list.unknown(at, &["DISTINCT", "ALL"], "DISTINCT in a scalar function", "remove it"));
            }
            // An aggregate's arguments are rows again.
            let place = if is_aggregate { Place::Row } else { place };
            if let Some(inside) = json_syntax::inside(function) {
                if let Some(returning) = inside.returning {
                    check_cast_type(list, returning, at)?;
                }
                return inside.exprs.into_iter().try_for_each(|expr| check(list, expr, place));
            }
            if !clauses.is_empty() {
                let words = &[
                    "IGNORE",
                    "RESPECT",
                    "ORDER",
                    "LIMIT",
                    "ON",
                    "HAVING",
                    "SEPARATOR",
                    "NULL",
                    "ABSENT",
                ];
                return Err(list.unknown(at, words, "a clause inside a call", "remove it"));
            }
            for arg in args {
                match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) => {
                        check(list, arg, place)?;
                    }
                    FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if lower == "count" => {}
                    FunctionArg::Unnamed(FunctionArgExpr::WildcardWithOptions(options)) if lower == "count" => {
                        check_wildcard(list, options, at)?;
                    }
                    FunctionArg::Unnamed(_) => {
                        return Err(list.unknown(at, &[], "* as an argument", "only COUNT(*) takes it"));
                    }
                    FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => {
                        return Err(list.unknown(at, &[], "a named argument", "write the arguments in order"));
                    }
                }
            }
            Ok(())
        }
    }
}
