//! Writes expressions in words of our own, and hashes them.
//!
//! Identities name the state of operators in checkpoints: what is written here is durable. DataFusion's own way to
//! write an expression is used only for kinds that no query of ours reaches.

use crate::functions::row_field::as_row_field;
use crate::functions::window::window_side_of;
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
    let behind = |text: &mut String, expr: &Expr, word: &str| {
        write_into(text, expr, name);
        text.push_str(word);
    };
    let not = |negated: bool| if negated { " NOT" } else { "" };
    match expr {
        Expr::Alias(alias) => write_into(text, &alias.expr, name),
        Expr::Column(column) => text.push_str(&name(column)),
        Expr::Literal(value, _) if value.is_null() => text.push_str("NULL"),
        Expr::Literal(value, _) => {
            let _ = write!(text, "{}:{value}", crate::types::sql_name(&value.data_type()));
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
            write_into(text, inner, name);
        }
        Expr::Negative(inner) => {
            text.push('-');
            write_into(text, inner, name);
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
            write_into(text, &between.expr, name);
            let _ = write!(text, "{} BETWEEN ", not(between.negated));
            write_into(text, &between.low, name);
            text.push_str(" AND ");
            write_into(text, &between.high, name);
        }
        Expr::InList(inside) => {
            write_into(text, &inside.expr, name);
            let _ = write!(text, "{} IN (", not(inside.negated));
            list(text, &inside.list);
            text.push(')');
        }
        Expr::Like(like) => {
            write_into(text, &like.expr, name);
            let _ = write!(
                text,
                "{} {} ",
                not(like.negated),
                if like.case_insensitive { "ILIKE" } else { "LIKE" }
            );
            write_into(text, &like.pattern, name);
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
                write_into(text, row, name);
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
