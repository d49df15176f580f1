//! The older form of windows, `GROUP BY TUMBLE(ts, INTERVAL '1' HOUR)`, rewritten to the newer one before a query is checked.
//!
//! | older | newer |
//! |---|---|
//! | `FROM t GROUP BY k, TUMBLE(ts, size)` | `FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), size)) AS t GROUP BY k, window_start, window_end, window_time` |
//! | `GROUP BY k, SESSION(ts, gap)` | with `PARTITION BY k` |
//! | `TUMBLE_START(ts, size)`, `TUMBLE_END`, `TUMBLE_ROWTIME` or `TUMBLE_PROCTIME` | `window_start`, `window_end`, `window_time` |

use crate::dialect::TABLE_ARGUMENT;
use crate::error::{Result, SqlError};
use crate::script::start_of;
use crate::window_function::{Clock as _, DESCRIPTOR};
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query, Select,
    SelectItem, SetExpr, Spanned, TableAlias, TableFactor, TableWithJoins, visit_expressions_mut,
};
use std::ops::ControlFlow;
use tidemill_engine::graph::TimeDomain;

/// Rewrites a query and the queries in it.
///
/// # Errors
/// When the windows are written in a way that has no newer form.
pub(crate) fn rewrite(query: &mut Query) -> Result<()> {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        rewrite(&mut cte.query)?;
    }
    rewrite_body(&mut query.body)
}

fn rewrite_body(body: &mut SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(select) => {
            select.from.iter_mut().try_for_each(rewrite_from)?;
            rewrite_select(select)
        }
        SetExpr::Query(query) => rewrite(query),
        SetExpr::SetOperation { left, right, .. } => {
            rewrite_body(left)?;
            rewrite_body(right)
        }
        _ => Ok(()),
    }
}

fn rewrite_from(from: &mut TableWithJoins) -> Result<()> {
    let joined = from.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut from.relation).chain(joined) {
        match factor {
            TableFactor::Derived { subquery, .. } => rewrite(subquery)?,
            TableFactor::NestedJoin { table_with_joins, .. } => rewrite_from(table_with_joins)?,
            _ => {}
        }
    }
    Ok(())
}

/// Returns the window that a function of GROUP BY makes.
fn window_name(function: &Function) -> Option<&'static str> {
    let name = function.name.to_string();
    ["TUMBLE", "HOP", "SESSION"]
        .into_iter()
        .find(|known| name.eq_ignore_ascii_case(known))
}

/// Returns the function's arguments; `None` when there is anything else about it.
fn plain_arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let plain = list.duplicate_treatment.is_none()
        && list.clauses.is_empty()
        && function.filter.is_none()
        && function.over.is_none()
        && function.null_treatment.is_none()
        && function.within_group.is_empty()
        && matches!(function.parameters, FunctionArguments::None);
    let expr = |arg: &'_ FunctionArg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(_)));
    if !plain || !list.args.iter().all(expr) {
        return None;
    }
    let exprs = list.args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some(exprs.collect())
}

fn rewrite_select(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(exprs, _) = &mut select.group_by else {
        return Ok(());
    };
    let windows = exprs.iter().enumerate().filter_map(|(index, expr)| match expr {
        Expr::Function(function) => window_name(function).map(|name| (index, name, function.clone())),
        _ => None,
    });
    let windows: Vec<_> = windows.collect();
    let Some((index, name, function)) = windows.first() else {
        return Ok(());
    };
    if let Some((_, other, second)) = windows.get(1) {
        let at = start_of(second.name.span());
        return Err(SqlError::at(at, format!("GROUP BY names a second window: {other}")).hint("a query has one window"));
    }
    let at = start_of(function.name.span());
    let usage = match *name {
        "HOP" => "write GROUP BY HOP(ts, INTERVAL '5' SECOND, INTERVAL '1' MINUTE): the slide, then the size",
        "SESSION" => "write GROUP BY SESSION(ts, INTERVAL '5' MINUTE)",
        _ => "write GROUP BY TUMBLE(ts, INTERVAL '5' SECOND)",
    };
    let wrong = |message: String| Err(SqlError::at(at, message).hint(usage));
    let arguments = plain_arguments(function);
    let Some((time, intervals)) = arguments.as_ref().and_then(|arguments| arguments.split_first()) else {
        return wrong(format!("this form of {name} is not supported"));
    };
    let time = match time {
        Expr::Identifier(ident) => ident.clone(),
        Expr::CompoundIdentifier(parts) if !parts.is_empty() => parts[parts.len() - 1].clone(),
        _ => return wrong(format!("the first argument of {name} is a time column")),
    };
    let mut partition = Vec::new();
    if *name == "SESSION" {
        for expr in exprs
            .iter()
            .enumerate()
            .filter(|(other, _)| other != index)
            .map(|(_, expr)| expr)
        {
            partition.push(match expr {
                Expr::Identifier(ident) => Expr::Identifier(ident.clone()),
                Expr::CompoundIdentifier(parts) if !parts.is_empty() => {
                    Expr::Identifier(parts[parts.len() - 1].clone())
                }
                other => {
                    return Err(
                        SqlError::at(start_of(other.span()).or(at), "a session is kept apart by columns only")
                            .hint("compute the key in a view and group by its column"),
                    );
                }
            });
        }
    }
    let Some(factor) = table_of(&select.from) else {
        return Err(
            SqlError::at(at, format!("GROUP BY {name} over something that is no table or view"))
                .hint("name the inner query in a view or WITH, and read that"),
        );
    };
    let span = function.name.span();
    let column = |name: &str| Expr::Identifier(Ident::with_span(span, name));
    exprs.splice(
        *index..=*index,
        ["window_start", "window_end", "window_time"].map(column),
    );
    let mut clock = None;
    for (index, item) in select.projection.iter_mut().enumerate() {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let side = is_side(expr);
                replace_sides(expr, name, function, &mut clock)?;
                if side {
                    let alias = Ident {
                        span: expr.span(),
                        ..Ident::with_quote('`', format!("EXPR${index}"))
                    };
                    *item = SelectItem::ExprWithAlias {
                        expr: expr.clone(),
                        alias,
                    };
                }
            }
            SelectItem::ExprWithAlias { expr, .. } => replace_sides(expr, name, function, &mut clock)?,
            _ => {}
        }
    }
    select
        .having
        .iter_mut()
        .try_for_each(|having| replace_sides(having, name, function, &mut clock))?;
    let descriptor = clock.map_or(DESCRIPTOR, TimeDomain::descriptor);
    select.from[0].relation = factor.windowed(function, descriptor, time, partition, intervals);
    Ok(())
}

/// A table in FROM that a window function can read.
struct Table {
    name: ObjectName,
    alias: Option<TableAlias>,
}

/// Returns what FROM reads, if it is one table without clauses.
fn table_of(from: &[TableWithJoins]) -> Option<Table> {
    let [TableWithJoins { relation, joins }] = from else {
        return None;
    };
    match relation {
        TableFactor::Table {
            name,
            alias,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } if joins.is_empty() && with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
            Some(Table {
                name: name.clone(),
                alias: alias.clone(),
            })
        }
        _ => None,
    }
}

impl Table {
    /// Returns `TABLE(TUMBLE(TABLE t PARTITION BY ..., DESCRIPTOR(ts), ...)) AS t`.
    fn windowed(
        self,
        window: &Function,
        descriptor: &str,
        time: Ident,
        partition: Vec<Expr>,
        intervals: &[&Expr],
    ) -> TableFactor {
        let parts: Vec<Ident> = self.name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
        let span = self.name.span();
        let alias = self.alias.or_else(|| {
            Some(TableAlias {
                explicit: true,
                name: parts.last()?.clone(),
                columns: Vec::new(),
                at: None,
            })
        });
        let table = Expr::CompoundIdentifier(parts);
        let value = if partition.is_empty() {
            table
        } else {
            Expr::Tuple(std::iter::once(table).chain(partition).collect())
        };
        let table = Expr::Prefixed {
            prefix: Ident::with_span(span, TABLE_ARGUMENT),
            value: Box::new(value),
        };
        let descriptor = Ident::with_span(time.span, descriptor);
        let descriptor = call(window, ObjectName::from(vec![descriptor]), vec![Expr::Identifier(time)]);
        let arguments = [table, descriptor]
            .into_iter()
            .chain(intervals.iter().map(|expr| (*expr).clone()));
        TableFactor::TableFunction {
            expr: call(window, window.name.clone(), arguments.collect()),
            alias,
        }
    }
}

/// Returns a call like another one, with other arguments.
fn call(like: &Function, name: ObjectName, arguments: Vec<Expr>) -> Expr {
    let mut function = like.clone();
    function.name = name;
    if let FunctionArguments::List(list) = &mut function.args {
        let unnamed = |expr: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
        list.args = arguments.into_iter().map(unnamed).collect();
    }
    Expr::Function(function)
}

/// Takes `TUMBLE_START` apart into the window and the side.
fn side_of(function: &Function) -> Option<(&'static str, String)> {
    let name = function.name.to_string().to_ascii_uppercase();
    let (window, side) = name.split_once('_')?;
    let window = ["TUMBLE", "HOP", "SESSION"]
        .into_iter()
        .find(|known| *known == window)?;
    ["START", "END", "ROWTIME", "PROCTIME"]
        .contains(&side)
        .then(|| (window, side.to_owned()))
}

fn is_side(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function) if side_of(function).is_some())
}

/// Replaces the functions that name a side of the window by its columns.
fn replace_sides(expr: &mut Expr, window: &str, of: &Function, clock: &mut Option<TimeDomain>) -> Result<()> {
    let walked = visit_expressions_mut(expr, |expr| {
        let Expr::Function(function) = &*expr else {
            return ControlFlow::Continue(());
        };
        let Some((name, side)) = side_of(function) else {
            return ControlFlow::Continue(());
        };
        let at = start_of(function.name.span());
        if name != window || plain_arguments(function) != plain_arguments(of) {
            let message = format!("{name}_{side} names another window than GROUP BY");
            return ControlFlow::Break(SqlError::at(at, message).hint(format!("write it with the arguments of {of}")));
        }
        let column = match side.as_str() {
            "START" => "window_start",
            "END" => "window_end",
            _ => "window_time",
        };
        let named = match side.as_str() {
            "ROWTIME" => Some(TimeDomain::EventTime),
            "PROCTIME" => Some(TimeDomain::ProcessingTime),
            _ => None,
        };
        if let (Some(named), Some(other)) = (named, *clock)
            && named != other
        {
            let message = format!("{name}_{side} beside the other clock's: a window is in one of them");
            return ControlFlow::Break(SqlError::at(at, message).hint("name the clock of the window's time column"));
        }
        *clock = clock.or(named);
        *expr = Expr::Identifier(Ident::with_span(function.name.span(), column));
        ControlFlow::Continue(())
    });
    match walked {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}
