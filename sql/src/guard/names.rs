//! Counts the table references of a statement after all WITH queries and views are written out.

use crate::error::{Position, Result, SqlError};
use crate::guard::Limits;
use crate::script::start_of;
use crate::whitelist::condition_queries;
use crate::window_function::table_and_partition;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Select, SetExpr, Spanned, TableFactor, TableWithJoins,
};
use std::collections::HashMap;

/// Knows how many table references each view stands for.
pub(crate) struct ReferenceCounter<'a> {
    /// The weight of each view; a name that is missing is a table and weighs 1.
    pub(crate) views: &'a HashMap<String, u64>,
    /// The limits.
    pub(crate) limits: &'a Limits,
}

/// The weights of the WITH queries in scope.
type Scope = HashMap<String, u64>;

impl ReferenceCounter<'_> {
    /// Counts the references of a query.
    ///
    /// # Errors
    /// When a limit is exceeded; at the query or WITH query that does it.
    pub(crate) fn count(&self, query: &Query) -> Result<u64> {
        self.query(query, &Scope::new())
    }

    fn query(&self, query: &Query, outer: &Scope) -> Result<u64> {
        let mut scope = outer.clone();
        if let Some(with) = &query.with {
            if with.cte_tables.len() > self.limits.ctes_max {
                let at = with
                    .cte_tables
                    .get(self.limits.ctes_max)
                    .and_then(|cte| start_of(cte.alias.name.span));
                let message = format!(
                    "{} WITH queries and the limit is {}",
                    with.cte_tables.len(),
                    self.limits.ctes_max
                );
                return Err(SqlError::at(at, message).hint("split the statement with views"));
            }
            for cte in &with.cte_tables {
                let weight = self.query(&cte.query, &scope)?;
                self.check(weight, start_of(cte.alias.name.span))?;
                scope.insert(cte.alias.name.value.clone(), weight.max(1));
            }
        }
        let weight = self.body(&query.body, &scope)?;
        self.check(weight, start_of(query.span()))?;
        Ok(weight)
    }

    fn check(&self, weight: u64, at: Option<Position>) -> Result<()> {
        if weight > self.limits.references_max {
            let message = format!(
                "the query stands for {weight} table references once WITH queries and views are written out, and the \
                 limit is {}",
                self.limits.references_max
            );
            return Err(SqlError::at(at, message).hint("refer to each WITH query and view fewer times"));
        }
        Ok(())
    }

    fn body(&self, body: &SetExpr, scope: &Scope) -> Result<u64> {
        match body {
            SetExpr::Select(select) => self.select(select, scope),
            SetExpr::Query(query) => self.query(query, scope),
            SetExpr::SetOperation { left, right, .. } => {
                Ok(self.body(left, scope)?.saturating_add(self.body(right, scope)?))
            }
            // Not understood: refused by the whitelist.
            _ => Ok(0),
        }
    }

    fn select(&self, select: &Select, scope: &Scope) -> Result<u64> {
        let from = select
            .from
            .iter()
            .try_fold(0u64, |sum, from| Ok(sum.saturating_add(self.joined(from, scope)?)))?;
        let mut queries = select.selection.iter().flat_map(condition_queries);
        queries.try_fold(from, |sum, query| Ok(sum.saturating_add(self.query(query, scope)?)))
    }

    fn joined(&self, from: &TableWithJoins, scope: &Scope) -> Result<u64> {
        let first = self.factor(&from.relation, scope)?;
        from.joins.iter().try_fold(first, |sum, join| {
            Ok(sum.saturating_add(self.factor(&join.relation, scope)?))
        })
    }

    fn factor(&self, factor: &TableFactor, scope: &Scope) -> Result<u64> {
        match factor {
            TableFactor::Table { name, args, .. } => match args {
                Some(args) => Ok(self.arguments(&args.args, scope)),
                None => Ok(name
                    .0
                    .last()
                    .and_then(|part| part.as_ident())
                    .map_or(1, |name| self.name(&name.value, scope))),
            },
            TableFactor::Derived { subquery, .. } => self.query(subquery, scope),
            TableFactor::NestedJoin { table_with_joins, .. } => self.joined(table_with_joins, scope),
            TableFactor::TableFunction {
                expr: Expr::Function(function),
                ..
            } => match &function.args {
                FunctionArguments::List(list) => Ok(self.arguments(&list.args, scope)),
                _ => Ok(1),
            },
            _ => Ok(1),
        }
    }

    fn arguments(&self, arguments: &[FunctionArg], scope: &Scope) -> u64 {
        let weigh = |argument: &FunctionArg| match argument {
            FunctionArg::Named {
                arg: FunctionArgExpr::Expr(Expr::Prefixed { value, .. }),
                ..
            }
            | FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Prefixed { value, .. })) => {
                match table_and_partition(value) {
                    Some((parts, _)) => parts.last().map_or(1, |name| self.name(&name.value, scope)),
                    None => 1,
                }
            }
            _ => 0,
        };
        arguments.iter().map(weigh).fold(0, u64::saturating_add).max(1)
    }

    fn name(&self, name: &str, scope: &Scope) -> u64 {
        scope.get(name).or_else(|| self.views.get(name)).copied().unwrap_or(1)
    }
}
