//! Names for the columns of a query that have none, as Flink gives them: `EXPR$0`, and `price0` for a second `price`.
//!
//! DataFusion would name a column by its expression, refuse two equal ones, and change such names with its versions.

use sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, Spanned, TableFactor, TableWithJoins};
use std::collections::HashSet;

/// Names the columns of a query and of the queries in it.
pub(crate) fn name_columns(query: &mut Query) {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        name_columns(&mut cte.query);
    }
    name_body(&mut query.body);
}

fn name_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            select.from.iter_mut().for_each(name_from);
            let tables = select.from.iter().flat_map(names_of).collect();
            name_items(&mut select.projection, &tables);
        }
        SetExpr::Query(query) => name_columns(query),
        SetExpr::SetOperation { left, right, .. } => {
            name_body(left);
            name_body(right);
        }
        _ => {}
    }
}

fn name_from(from: &mut TableWithJoins) {
    let joined = from.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut from.relation).chain(joined) {
        match factor {
            TableFactor::Derived { subquery, .. } => name_columns(subquery),
            TableFactor::NestedJoin { table_with_joins, .. } => name_from(table_with_joins),
            _ => {}
        }
    }
}

/// Returns the names by which the tables of a FROM are called.
fn names_of(from: &TableWithJoins) -> Vec<String> {
    let joined = from.joins.iter().map(|join| &join.relation);
    std::iter::once(&from.relation)
        .chain(joined)
        .flat_map(|factor| match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => names_of(table_with_joins),
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::TableFunction { alias: Some(alias), .. } => vec![alias.name.value.clone()],
            TableFactor::Table { name, .. } => vec![name.to_string().trim_matches('`').to_owned()],
            _ => Vec::new(),
        })
        .collect()
}

fn name_items(items: &mut [SelectItem], tables: &HashSet<String>) {
    let mut taken: HashSet<String> = items
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
            _ => None,
        })
        .collect();
    for (index, item) in items.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let column = match expr {
            Expr::Identifier(ident) => Some(ident.value.clone()),
            Expr::CompoundIdentifier(parts) => parts.last().map(|part| part.value.clone()),
            _ => None,
        };
        // The planner would name a field of a row by its whole path.
        let is_field = match expr {
            Expr::CompoundIdentifier(parts) => {
                parts.len() > 2 || parts.first().is_some_and(|first| !tables.contains(&first.value))
            }
            _ => false,
        };
        let name = match column {
            Some(column) if taken.insert(column.clone()) => {
                if !is_field {
                    continue;
                }
                column
            }
            Some(column) => numbered(&column, &mut taken),
            None => {
                let name = format!("EXPR${index}");
                if taken.insert(name.clone()) {
                    name
                } else {
                    numbered(&name, &mut taken)
                }
            }
        };
        let alias = Ident {
            value: name,
            quote_style: Some('`'),
            span: expr.span(),
        };
        *item = SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias,
        };
    }
}

/// Puts the first free number behind a name.
fn numbered(name: &str, taken: &mut HashSet<String>) -> String {
    let mut number = 0;
    loop {
        let candidate = format!("{name}{number}");
        if taken.insert(candidate.clone()) {
            return candidate;
        }
        number += 1;
    }
}
