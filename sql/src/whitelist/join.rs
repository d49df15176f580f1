//! Joins, and queries inside conditions.

use super::expr::{self, Place};
use super::{Whitelist, expr_start, query, relation, temporal};
use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use sqlparser::ast::{Expr, Join, JoinConstraint, JoinOperator, Spanned, TableFactor, TableWithJoins, UnaryOperator};

/// Tables that one FROM may join, however it is nested: the planner's cost grows with the square.
const JOINED_MAX: usize = 64;

const HINT: &str = "write l JOIN r ON l.x = r.x";

/// Checks the joins behind a table; `behind` is where it ends.
pub(super) fn check(list: &Whitelist<'_>, joins: &[Join], behind: Option<Position>) -> Result<()> {
    let mut behind = behind;
    for join in joins {
        if temporal::check_join(list, join, behind)? {
            behind = crate::script::position(join.relation.span().end).or(behind);
            continue;
        }
        let Join {
            relation,
            global,
            join_operator,
        } = join;
        let words = &[
            "JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "OUTER", "NATURAL", "SEMI", "ANTI", "ASOF", "GLOBAL",
        ];
        let unknown = |what: &str, hint: &str| Err(list.unknown(behind, words, what, hint));
        if *global {
            return unknown("GLOBAL", "remove it");
        }
        let constraint = match join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint) => Some(constraint),
            // An equality in WHERE makes it an ordinary join; without one it is refused later.
            JoinOperator::CrossJoin(JoinConstraint::None) => None,
            JoinOperator::CrossJoin(_) => return unknown("CROSS JOIN with a condition", HINT),
            JoinOperator::Semi(_)
            | JoinOperator::LeftSemi(_)
            | JoinOperator::RightSemi(_)
            | JoinOperator::Anti(_)
            | JoinOperator::LeftAnti(_)
            | JoinOperator::RightAnti(_) => {
                return unknown("SEMI and ANTI JOIN", "write WHERE EXISTS (SELECT ...) or NOT EXISTS");
            }
            JoinOperator::CrossApply
            | JoinOperator::OuterApply
            | JoinOperator::AsOf { .. }
            | JoinOperator::StraightJoin(_)
            | JoinOperator::ArrayJoin
            | JoinOperator::LeftArrayJoin
            | JoinOperator::InnerArrayJoin => return unknown("this join", HINT),
        };
        relation::check_factor(list, relation, behind)?;
        match constraint {
            None => {}
            Some(JoinConstraint::On(condition)) => expr::check(list, condition, Place::Row)?,
            Some(JoinConstraint::Using(names)) => {
                if let Some(name) = names
                    .iter()
                    .find(|name| name.0.len() != 1 || name.0[0].as_ident().is_none())
                {
                    let at = start_of(name.span()).or(behind);
                    return Err(SqlError::at(at, "USING takes names of columns").hint("write USING (x, y)"));
                }
            }
            Some(JoinConstraint::Natural) => {
                return unknown("NATURAL JOIN", "it changes with every new column; write ON l.x = r.x");
            }
            Some(JoinConstraint::None) => return unknown("JOIN without a condition", HINT),
        }
        behind = crate::script::position(relation.span().end).or(behind);
    }
    Ok(())
}

/// Checks that one FROM does not join too many tables, those in parentheses and `UNNEST` with them.
pub(super) fn check_number(from: &[TableWithJoins], at: Option<Position>) -> Result<()> {
    let tables = from.iter().map(tables_of).sum::<usize>();
    if tables <= JOINED_MAX {
        return Ok(());
    }
    let message = format!("a query joins {tables} tables and the limit is {JOINED_MAX}");
    Err(SqlError::at(at, message).hint("join in several queries, with views"))
}

fn tables_of(from: &TableWithJoins) -> usize {
    let joined = from.joins.iter().map(|join| &join.relation);
    let count = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => tables_of(table_with_joins),
        _ => 1,
    };
    std::iter::once(&from.relation).chain(joined).map(count).sum()
}

/// Checks the condition of WHERE, which may compare with queries.
pub(super) fn check_where(list: &Whitelist<'_>, condition: &Expr) -> Result<()> {
    if condition_queries(condition).is_empty() {
        return expr::check(list, condition, Place::Row);
    }
    match condition {
        Expr::Nested(inner)
        | Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: inner,
        } => check_where(list, inner),
        Expr::BinaryOp {
            left,
            op: sqlparser::ast::BinaryOperator::And,
            right,
        } => {
            check_where(list, left)?;
            check_where(list, right)
        }
        Expr::InSubquery {
            expr: value,
            subquery,
            negated: _,
        } => {
            expr::check(list, value, Place::Row)?;
            query::check(list, subquery)
        }
        Expr::Exists { subquery, negated: _ } => query::check(list, subquery),
        // Refuses the query at its place.
        _ => expr::check(list, condition, Place::Row)
            .and_then(|()| Err(list.not_yet(expr_start(condition), &[], "a query inside an expression", HINT))),
    }
}

/// Returns the queries that the parts of a condition compare with.
pub(crate) fn condition_queries(condition: &Expr) -> Vec<&sqlparser::ast::Query> {
    match condition {
        Expr::Nested(inner)
        | Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: inner,
        } => condition_queries(inner),
        Expr::BinaryOp {
            left,
            op: sqlparser::ast::BinaryOperator::And,
            right,
        } => {
            let mut queries = condition_queries(left);
            queries.extend(condition_queries(right));
            queries
        }
        Expr::InSubquery { subquery, .. } | Expr::Exists { subquery, .. } => vec![subquery],
        _ => Vec::new(),
    }
}
