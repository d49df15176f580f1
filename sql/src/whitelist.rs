//! What is understood of a query: everything else is refused here, by place, before the planner sees it.
//!
//! DataFusion's planner silently drops clauses that it does not know (`FOR SYSTEM_TIME AS OF`, lock clauses, ...). So
//! every struct of the parser that can carry a clause is taken apart field by field here: a field that a newer parser
//! adds is a compile error until somebody decides what it means.
//!
//! File map: `query` checks queries, `relation` what stands in FROM, `expr` expressions, `over` what
//! stands behind `OVER`.

mod expr;
mod join;
mod over;
mod query;
mod relation;

pub(crate) use join::condition_queries;

use crate::error::{Position, Result, SqlError};
use crate::functions::Functions;
use crate::script::{Script, start_of};
use sqlparser::ast::{Expr, Query, Spanned};

/// Checks queries.
pub(crate) struct Whitelist<'a> {
    pub(crate) script: &'a Script<'a>,
    pub(crate) functions: &'a Functions,
}

impl Whitelist<'_> {
    /// Checks a query and everything in it.
    ///
    /// # Errors
    /// On the first thing that is not understood, at its place.
    pub(crate) fn query(&self, query: &Query) -> Result<()> {
        query::check(self, query)
    }

    /// Checks an expression that is not part of a query: a computed column.
    ///
    /// # Errors
    /// On the first thing that is not understood, at its place.
    pub(crate) fn row_expr(&self, expr: &Expr) -> Result<()> {
        expr::check(self, expr, expr::Place::Row)
    }

    /// Returns where an expression begins, its keyword included.
    fn start(&self, expr: &Expr) -> Option<Position> {
        let inside = expr_start(expr);
        match expr {
            Expr::Cast { .. } => self.script.back_to(inside, &["CAST", "TRY_CAST"], 2),
            Expr::Extract { .. } => self.script.back_to(inside, &["EXTRACT"], 4),
            Expr::Array(_) => self.script.back_to(inside, &["ARRAY"], 2),
            Expr::Interval(_) => self.script.back_to(inside, &["INTERVAL"], 1),
            Expr::Exists { .. } => self.script.back_to(inside, &["EXISTS"], 2),
            _ => inside,
        }
    }

    /// Makes the refusal of something that a later version is to support; at the first of `words` behind `from`.
    fn not_yet(&self, from: Option<Position>, words: &[&str], what: &str, hint: &str) -> SqlError {
        SqlError::at(
            self.script.find_word(from, words),
            format!("{what} is not supported yet"),
        )
        .hint(hint)
    }

    /// Makes the refusal of something that is no part of our SQL.
    fn unknown(&self, from: Option<Position>, words: &[&str], what: &str, hint: &str) -> SqlError {
        SqlError::at(self.script.find_word(from, words), format!("{what} is not supported")).hint(hint)
    }
}

/// Returns where an expression begins.
pub(crate) fn expr_start(expr: &Expr) -> Option<Position> {
    start_of(expr.span())
}
