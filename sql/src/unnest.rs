//! Joins with the elements of a row's own arrays: `t CROSS JOIN UNNEST(t.list) AS e (x)`, `LATERAL TABLE(f(x))`.
//!
//! ```text
//!  t JOIN UNNEST(list) ──fold──▶ one factor of FROM ──plan──▶ projection of t's columns and the element's
//! ```
//! Nothing of another stream is joined: each row goes on once per element. So such a join is folded with what stands before it
//! into one nested join of two, which is the one form that is planned; the whitelist checks it there.

use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Join, JoinConstraint, JoinOperator, ObjectName, Query, SetExpr, Spanned,
    TableAlias, TableFactor, TableFunctionArgs, TableWithJoins, Value,
};
use tidemill_engine::graph::Childless;

/// A join with elements.
#[derive(Clone, Debug)]
pub(crate) struct Unnest {
    /// The array, map, or call that gives one.
    pub(crate) of: Expr,
    pub(crate) with_ordinality: bool,
    pub(crate) alias: Option<TableAlias>,
    pub(crate) childless: Childless,
}

/// The array and what is asked of it, of a factor.
struct Elements<'a> {
    args: &'a [FunctionArg],
    with_ordinality: bool,
    alias: &'a Option<TableAlias>,
}

fn elements(factor: &TableFactor) -> Option<Elements<'_>> {
    let is = |name: &ObjectName, word: &str| name.to_string().eq_ignore_ascii_case(word);
    match factor {
        TableFactor::Table {
            name,
            args: Some(TableFunctionArgs { args, settings: None }),
            with_ordinality,
            alias,
            ..
        } if is(name, "UNNEST") => Some(Elements {
            args,
            with_ordinality: *with_ordinality,
            alias,
        }),
        TableFactor::Function {
            lateral: true,
            name,
            args,
            alias,
            ..
        } if is(name, "TABLE") => Some(Elements {
            args,
            with_ordinality: false,
            alias,
        }),
        _ => None,
    }
}

/// Understands a join with elements; `None` when it is another join.
///
/// # Errors
/// On a form of it that is not supported, at its place.
pub(crate) fn of_join(join: &Join) -> Result<Option<Unnest>> {
    let Some(found) = elements(&join.relation) else {
        return Ok(None);
    };
    let at = start_of(join.relation.span());
    let (constraint, childless) = match &join.join_operator {
        JoinOperator::CrossJoin(constraint) | JoinOperator::Inner(constraint) | JoinOperator::Join(constraint) => {
            (constraint, Childless::Dropped)
        }
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (constraint, Childless::Kept),
        _ => {
            return Err(
                SqlError::at(at, "this join with UNNEST or LATERAL TABLE is not supported")
                    .hint("write CROSS JOIN UNNEST(...), or LEFT JOIN UNNEST(...) ON TRUE"),
            );
        }
    };
    let is_true = |expr: &Expr| matches!(expr, Expr::Value(value) if value.value == Value::Boolean(true));
    match constraint {
        JoinConstraint::None => {}
        JoinConstraint::On(condition) if is_true(condition) => {}
        _ => {
            return Err(SqlError::at(
                at,
                "a condition of a join with UNNEST or LATERAL TABLE is not supported",
            )
            .hint("write ON TRUE, and the condition into WHERE"));
        }
    }
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(of))] = found.args else {
        return Err(SqlError::at(at, "UNNEST and LATERAL TABLE take one array, map or call")
            .hint("write CROSS JOIN UNNEST(t.list) AS e (x)"));
    };
    Ok(Some(Unnest {
        of: of.clone(),
        with_ordinality: found.with_ordinality,
        alias: found.alias.clone(),
        childless,
    }))
}

/// Returns where a join with elements begins.
pub(crate) fn place(join: &Join) -> Option<Position> {
    start_of(join.relation.span())
}

/// Folds the joins with elements of a query and of the queries in it.
pub(crate) fn fold(query: &mut Query) {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        fold(&mut cte.query);
    }
    fold_body(&mut query.body);
}

fn fold_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            // `FROM t, UNNEST(list)` is a cross join.
            let mut from: Vec<TableWithJoins> = Vec::new();
            for item in std::mem::take(&mut select.from) {
                match from.last_mut() {
                    Some(before) if elements(&item.relation).is_some() => {
                        before.joins.push(Join {
                            relation: item.relation,
                            global: false,
                            join_operator: JoinOperator::CrossJoin(JoinConstraint::None),
                        });
                        before.joins.extend(item.joins);
                    }
                    _ => from.push(item),
                }
            }
            from.iter_mut().for_each(fold_from);
            select.from = from;
        }
        SetExpr::Query(query) => fold(query),
        SetExpr::SetOperation { left, right, .. } => {
            fold_body(left);
            fold_body(right);
        }
        _ => {}
    }
}

fn fold_from(from: &mut TableWithJoins) {
    fold_factor(&mut from.relation);
    for join in std::mem::take(&mut from.joins) {
        let mut join = join;
        fold_factor(&mut join.relation);
        if elements(&join.relation).is_none() {
            from.joins.push(join);
            continue;
        }
        let mut before = TableWithJoins {
            relation: from.relation.clone(),
            joins: std::mem::take(&mut from.joins),
        };
        if !before.joins.is_empty() {
            before = TableWithJoins {
                relation: nested(before),
                joins: Vec::new(),
            };
        }
        before.joins.push(join);
        from.relation = nested(before);
    }
}

fn nested(joined: TableWithJoins) -> TableFactor {
    TableFactor::NestedJoin {
        table_with_joins: Box::new(joined),
        alias: None,
    }
}

fn fold_factor(factor: &mut TableFactor) {
    match factor {
        TableFactor::Derived { subquery, .. } => fold(subquery),
        TableFactor::NestedJoin { table_with_joins, .. } => fold_from(table_with_joins),
        _ => {}
    }
}
