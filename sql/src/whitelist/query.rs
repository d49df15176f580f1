//! The clauses of a query.

use super::Whitelist;
use super::expr::{self, Place};
use super::{join, over, relation};
use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use sqlparser::ast::{
    Cte, Distinct, Expr, GroupByExpr, Query, Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, SetOperator, SetQuantifier, Spanned, Value, WildcardAdditionalOptions, With,
};

pub(super) fn check(list: &Whitelist<'_>, query: &Query) -> Result<()> {
    let Query {
        with,
        body,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    let at = body_start(query);
    // The clauses behind the body are looked for from the end of the body on.
    let end = crate::script::position(body.span().end).or(at);
    if order_by.is_some() {
        return Err(list.not_yet(
            end,
            &["ORDER"],
            "ORDER BY over a stream",
            "the sink's reader can sort; remove it",
        ));
    }
    if limit_clause.is_some() {
        let hint = "a stream has no end to count from; remove it";
        return Err(list.not_yet(end, &["LIMIT", "OFFSET"], "LIMIT over a stream", hint));
    }
    if fetch.is_some() {
        return Err(list.not_yet(end, &["FETCH"], "FETCH over a stream", "remove it"));
    }
    if !locks.is_empty() || for_clause.is_some() {
        return Err(list.unknown(
            end,
            &["FOR"],
            "FOR ... behind a query",
            "a stream cannot be locked; remove it",
        ));
    }
    if settings.is_some() || format_clause.is_some() {
        return Err(list.unknown(end, &["SETTINGS", "FORMAT"], "this clause", "remove it"));
    }
    if !pipe_operators.is_empty() {
        return Err(SqlError::at(end, "pipe operators are not supported").hint("write SELECT ... FROM ..."));
    }
    if let Some(with) = with {
        check_with(list, with)?;
    }
    check_body(list, body, at)
}

/// Returns where the body of a query begins, also when its first token is a parenthesis.
fn body_start(query: &Query) -> Option<Position> {
    start_of(query.body.span()).or_else(|| start_of(query.span()))
}

fn check_with(list: &Whitelist<'_>, with: &With) -> Result<()> {
    let With {
        with_token,
        recursive,
        cte_tables,
    } = with;
    if *recursive {
        let at = start_of(with_token.0.span);
        return Err(list.not_yet(at, &["RECURSIVE"], "WITH RECURSIVE", "write the steps out"));
    }
    for cte in cte_tables {
        let Cte {
            alias,
            query,
            from,
            materialized,
            closing_paren_token: _,
        } = cte;
        let at = start_of(alias.name.span);
        if from.is_some() || materialized.is_some() {
            let words = &["MATERIALIZED", "NOT", "FROM"];
            return Err(list.unknown(at, words, "this clause of WITH", "write WITH name AS (SELECT ...)"));
        }
        relation::check_alias(Some(alias))?;
        check(list, query)?;
    }
    Ok(())
}

fn check_body(list: &Whitelist<'_>, body: &SetExpr, at: Option<Position>) -> Result<()> {
    match body {
        SetExpr::Select(select) => check_select(list, select),
        SetExpr::Query(query) => check(list, query),
        SetExpr::SetOperation {
            left,
            op,
            set_quantifier,
            right,
        } => {
            let between = crate::script::position(left.span().end).or(at);
            match (op, set_quantifier) {
                (SetOperator::Union, SetQuantifier::All | SetQuantifier::None | SetQuantifier::Distinct) => {}
                (SetOperator::Union, _) => {
                    return Err(list.unknown(between, &["UNION"], "this UNION", "write UNION ALL"));
                }
                (SetOperator::Intersect | SetOperator::Except | SetOperator::Minus, _) => {
                    let words = &["INTERSECT", "EXCEPT", "MINUS"];
                    return Err(list.not_yet(between, words, &format!("{op}"), "UNION and UNION ALL combine streams"));
                }
            }
            check_body(list, left, at)?;
            check_body(list, right, between)
        }
        SetExpr::Values(_) => {
            let hint = "put the rows into a file and read it with 'connector' = 'filesystem'";
            Err(list.not_yet(list.script.back_to(at, &["VALUES"], 2), &[], "VALUES", hint))
        }
        SetExpr::Table(_) => Err(list.unknown(at, &["TABLE"], "TABLE as a query", "write SELECT * FROM the table")),
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Err(SqlError::at(at, "a statement cannot stand inside a query").hint("write SELECT ..."))
        }
    }
}

fn check_select(list: &Whitelist<'_>, select: &Select) -> Result<()> {
    let Select {
        select_token,
        optimizer_hints,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    let at = start_of(select_token.0.span);
    if !optimizer_hints.is_empty() {
        return Err(list.not_yet(at, &[], "a hint", "write options into the WITH clause of CREATE TABLE"));
    }
    match distinct {
        None | Some(Distinct::All | Distinct::Distinct) => {}
        Some(Distinct::On(_)) => {
            let hint = "write SELECT DISTINCT, or GROUP BY with MIN or MAX";
            return Err(list.unknown(at, &["DISTINCT"], "DISTINCT ON", hint));
        }
    }
    if select_modifiers.is_some() || value_table_mode.is_some() || *flavor != SelectFlavor::Standard {
        return Err(list.unknown(at, &[], "this form of SELECT", "write SELECT columns FROM table"));
    }
    if top.is_some() {
        return Err(list.unknown(at, &["TOP"], "TOP", "a stream has no first rows; remove it"));
    }
    if exclude.is_some() {
        return Err(list.unknown(at, &["EXCLUDE"], "EXCLUDE", "name the columns"));
    }
    if into.is_some() {
        return Err(list.unknown(at, &["INTO"], "SELECT INTO", "write INSERT INTO table SELECT ..."));
    }
    if !lateral_views.is_empty() {
        return Err(list.not_yet(
            at,
            &["LATERAL"],
            "LATERAL VIEW",
            "write CROSS JOIN UNNEST(t.list) AS e (x)",
        ));
    }
    if prewhere.is_some() {
        return Err(list.unknown(at, &["PREWHERE"], "PREWHERE", "use WHERE"));
    }
    if !connect_by.is_empty() {
        return Err(list.unknown(at, &["CONNECT", "START"], "CONNECT BY", "remove it"));
    }
    if !cluster_by.is_empty() || !distribute_by.is_empty() || !sort_by.is_empty() {
        let words = &["CLUSTER", "DISTRIBUTE", "SORT"];
        return Err(list.unknown(
            at,
            words,
            "this clause",
            "remove it: the sink decides how rows are spread",
        ));
    }
    for named in named_window {
        over::check_named(list, named)?;
    }
    relation::check_from(list, from, at)?;
    for item in projection {
        check_item(list, item, at)?;
    }
    if let Some(selection) = selection {
        join::check_where(list, selection)?;
    }
    check_group_by(list, group_by, at)?;
    if let Some(having) = having {
        expr::check(list, having, Place::Aggregate)?;
    }
    if let Some(qualify) = qualify {
        expr::check(list, qualify, Place::Aggregate)?;
    }
    Ok(())
}

fn check_item(list: &Whitelist<'_>, item: &SelectItem, at: Option<Position>) -> Result<()> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, alias: _ } => {
            expr::check(list, expr, Place::Aggregate)
        }
        SelectItem::ExprWithAliases { .. } => {
            Err(list.unknown(at, &[], "an expression with several names", "give it one name"))
        }
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), options)
        | SelectItem::Wildcard(options) => check_wildcard(list, options, at),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _) => {
            Err(list.not_yet(at, &[], "expression.*", "name the columns"))
        }
    }
}

pub(super) fn check_wildcard(
    list: &Whitelist<'_>,
    options: &WildcardAdditionalOptions,
    at: Option<Position>,
) -> Result<()> {
    let WildcardAdditionalOptions {
        wildcard_token,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    let plain = opt_ilike.is_none()
        && opt_exclude.is_none()
        && opt_except.is_none()
        && opt_replace.is_none()
        && opt_rename.is_none()
        && opt_alias.is_none();
    if plain {
        return Ok(());
    }
    let at = start_of(wildcard_token.0.span).or(at);
    Err(list.unknown(at, &[], "a clause behind *", "name the columns"))
}

fn check_group_by(list: &Whitelist<'_>, group_by: &GroupByExpr, at: Option<Position>) -> Result<()> {
    let GroupByExpr::Expressions(exprs, modifiers) = group_by else {
        return Err(list.unknown(at, &["GROUP"], "GROUP BY ALL", "name the columns"));
    };
    if !modifiers.is_empty() {
        let words = &["WITH"];
        return Err(list.not_yet(at, words, "GROUP BY ... WITH", "write ROLLUP (a, b) or CUBE (a, b)"));
    }
    for expr in exprs {
        match expr {
            // ROLLUP and CUBE were written out.
            Expr::GroupingSets(sets) => {
                for expr in sets.iter().flatten() {
                    expr::check(list, expr, Place::Row)?;
                }
            }
            Expr::Tuple(_) => {
                let from = super::expr_start(expr).or(at);
                return Err(list.unknown(
                    from,
                    &[],
                    "a row as a grouping key",
                    "write the columns without parentheses",
                ));
            }
            Expr::Value(value) if matches!(value.value, Value::Number(..)) => {
                return Err(list.unknown(
                    start_of(value.span),
                    &[],
                    "GROUP BY position",
                    "write the expression itself",
                ));
            }
            _ => expr::check(list, expr, Place::Row)?,
        }
    }
    Ok(())
}
