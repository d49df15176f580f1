//! Writes expressions in words of our own, and hashes them.
//!
//! Identities name the state of operators in checkpoints: what is written here is durable. DataFusion's own way to
//! write an expression is used only for kinds that no query of ours reaches.

use crate::functions::row_field::as_row_field;
use crate::functions::window::window_side_of;
use arrow::datatypes::DataType;
use datafusion_common::Column;
use datafusion_expr::Expr;
use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_128;

/// A hash of how rows or a column came to be: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity(String);

impl Identity {
    /// Hashes words; where one ends and the next begins counts.
    pub(crate) fn of(words: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for word in words {
            bytes.extend_from_slice(&(word.len() as u64).to_le_bytes());
            bytes.extend_from_slice(word.as_bytes());
        }
        Self(format!("{:032x}", xxh3_128(&bytes)))
    }

    /// Returns the hash.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Returns the first half of the hash: enough for a name.
    pub(crate) fn short(&self) -> &str {
        &self.0[..16]
    }
}

/// Writes an expression; `name` writes its columns.
pub(crate) fn write(expr: &Expr, name: &dyn Fn(&Column) -> String) -> String {
    let mut text = String::new();
    write_into(&mut text, expr, name);
    text
}

fn write_into(text: &mut String, expr: &Expr, name: &dyn Fn(&Column) -> String) {
    let list = |text: &mut String, exprs: &[Expr]| {
        for (index, expr) in exprs.iter().enumerate() {
            text.push_str(if index > 0 { ", " } else { "" });
            write_into(text, expr, name);
        }
    };
    // What stands beside a word, so that only one reading is left.
    let operand = |text: &mut String, expr: &Expr| {
        if is_closed(expr) {
            write_into(text, expr, name);
        } else {
            text.push('(');
            write_into(text, expr, name);
            text.push(')');
        }
    };
    let behind = |text: &mut String, expr: &Expr, word: &str| {
        operand(text, expr);
        text.push_str(word);
    };
    let not = |negated: bool| if negated { " NOT" } else { "" };
    match expr {
        Expr::Alias(alias) => write_into(text, &alias.expr, name),
        Expr::Column(column) => text.push_str(&name(column)),
        Expr::Literal(value, _) if value.is_null() => text.push_str("NULL"),
        Expr::Literal(value, _) => {
            let data_type = value.data_type();
            let _ = write!(text, "{}:", crate::types::sql_name(&data_type));
            let _ = match data_type.is_primitive() || data_type == DataType::Boolean {
                true => write!(text, "{value}"),
                // Text may look like what follows it.
                false => write!(text, "'{}'", value.to_string().replace('\'', "''")),
            };
        }
        Expr::BinaryExpr(binary) => {
            text.push('(');
            write_into(text, &binary.left, name);
            let _ = write!(text, " {} ", binary.op);
            write_into(text, &binary.right, name);
            text.push(')');
        }
        Expr::Not(inner) => {
            text.push_str("NOT ");
            operand(text, inner);
        }
        Expr::Negative(inner) => {
            text.push('-');
            operand(text, inner);
        }
        Expr::IsNull(inner) => behind(text, inner, " IS NULL"),
        Expr::IsNotNull(inner) => behind(text, inner, " IS NOT NULL"),
        Expr::IsTrue(inner) => behind(text, inner, " IS TRUE"),
        Expr::IsNotTrue(inner) => behind(text, inner, " IS NOT TRUE"),
        Expr::IsFalse(inner) => behind(text, inner, " IS FALSE"),
        Expr::IsNotFalse(inner) => behind(text, inner, " IS NOT FALSE"),
        Expr::IsUnknown(inner) => behind(text, inner, " IS UNKNOWN"),
        Expr::IsNotUnknown(inner) => behind(text, inner, " IS NOT UNKNOWN"),
        Expr::Between(between) => {
            operand(text, &between.expr);
            let _ = write!(text, "{} BETWEEN ", not(between.negated));
            operand(text, &between.low);
            text.push_str(" AND ");
            operand(text, &between.high);
        }
        Expr::InList(inside) => {
            operand(text, &inside.expr);
            let _ = write!(text, "{} IN (", not(inside.negated));
            list(text, &inside.list);
            text.push(')');
        }
        Expr::Like(like) => {
            operand(text, &like.expr);
            let _ = write!(
                text,
                "{} {} ",
                not(like.negated),
                if like.case_insensitive { "ILIKE" } else { "LIKE" }
            );
            operand(text, &like.pattern);
        }
        Expr::Case(case) => {
            text.push_str("CASE");
            if let Some(operand) = &case.expr {
                text.push(' ');
                write_into(text, operand, name);
            }
            for (when, then) in &case.when_then_expr {
                text.push_str(" WHEN ");
                write_into(text, when, name);
                text.push_str(" THEN ");
                write_into(text, then, name);
            }
            if let Some(otherwise) = &case.else_expr {
                text.push_str(" ELSE ");
                write_into(text, otherwise, name);
            }
            text.push_str(" END");
        }
        Expr::Cast(cast) => {
            text.push_str("CAST(");
            write_into(text, &cast.expr, name);
            let _ = write!(text, " AS {})", crate::types::sql_name(cast.field.data_type()));
        }
        Expr::TryCast(cast) => {
            text.push_str("TRY_CAST(");
            write_into(text, &cast.expr, name);
            let _ = write!(text, " AS {})", crate::types::sql_name(cast.field.data_type()));
        }
        expr if as_row_field(expr).is_some() => {
            if let Some((row, field)) = as_row_field(expr) {
                operand(text, row);
                let _ = write!(text, ".`{}`", field.replace('`', "``"));
            }
        }
        Expr::ScalarFunction(call) => {
            text.push_str(call.func.name());
            text.push('(');
            list(text, &call.args);
            if let Some(window) = window_side_of(&call.func) {
                for number in window.spec.numbers() {
                    let _ = write!(text, ", {number} ms");
                }
            }
            text.push(')');
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

/// Says whether the text of an expression ends where it seems to, whatever stands beside it.
fn is_closed(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_closed(&alias.expr),
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::BinaryExpr(_)
        | Expr::Case(_)
        | Expr::Cast(_)
        | Expr::TryCast(_)
        | Expr::ScalarFunction(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion_common::ScalarValue;
    use datafusion_expr::{Between, Like, col, in_list, is_null, is_true, lit, not, try_cast};

    fn text(expr: &Expr) -> String {
        write(expr, &|column| column.name.clone())
    }

    #[test]
    fn expressions_of_different_meaning_are_written_differently() {
        let (f, g) = (col("f"), col("g"));
        let between = |expr: Expr, low: Expr, high: Expr| {
            Expr::Between(Between::new(Box::new(expr), false, Box::new(low), Box::new(high)))
        };
        let like =
            |expr: Expr, pattern: Expr| Expr::Like(Like::new(false, Box::new(expr), Box::new(pattern), None, false));
        let minus = |expr: Expr| Expr::Negative(Box::new(expr));
        let pairs = [
            (not(is_true(f.clone())), is_true(not(f.clone()))),
            (not(is_null(f.clone())), is_null(not(f.clone()))),
            (
                not(in_list(f.clone(), vec![g.clone()], false)),
                in_list(not(f.clone()), vec![g.clone()], false),
            ),
            (
                not(between(f.clone(), g.clone(), g.clone())),
                between(not(f.clone()), g.clone(), g.clone()),
            ),
            (
                is_null(between(f.clone(), g.clone(), g.clone())),
                between(f.clone(), g.clone(), is_null(g.clone())),
            ),
            (not(like(f.clone(), g.clone())), like(not(f.clone()), g.clone())),
            (is_null(like(f.clone(), g.clone())), like(f.clone(), is_null(g.clone()))),
            (minus(is_null(f.clone())), is_null(minus(f.clone()))),
            (
                in_list(f.clone(), vec![lit("a"), lit("b")], false),
                in_list(f.clone(), vec![lit("a, STRING:b")], false),
            ),
            (
                in_list(f.clone(), vec![lit("a"), lit("b")], false),
                in_list(f.clone(), vec![lit("a', STRING:'b")], false),
            ),
            (lit("NULL"), lit(ScalarValue::Utf8(None))),
        ];
        for (one, other) in &pairs {
            assert_ne!(text(one), text(other));
        }
        // What needs no parentheses has none: it names columns of state.
        assert_eq!(text(&is_null(f.clone())), "f IS NULL");
        assert_eq!(text(&not(f.clone() + g)), "NOT (f + g)");
        assert_eq!(text(&minus(try_cast(f, DataType::Int32))), "-TRY_CAST(f AS INT)");
    }
}
