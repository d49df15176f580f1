//! `ROLLUP` and `CUBE`, written out as the grouping sets that they stand for before a query is checked.

use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use sqlparser::ast::{Expr, GroupByExpr, Spanned};

/// The most groupings of one query: every row is aggregated once for each.
const GROUPINGS_MAX: usize = 64;

/// Writes out a GROUP BY.
///
/// # Errors
/// When it stands for too many groupings.
pub(crate) fn write_out(group_by: &mut GroupByExpr, at: Option<Position>) -> Result<()> {
    let GroupByExpr::Expressions(exprs, _) = group_by else {
        return Ok(());
    };
    let mut groupings = 1usize;
    for expr in exprs {
        let place = start_of(expr.span()).or(at);
        let too_many = || {
            SqlError::at(place, format!("GROUP BY has more than {GROUPINGS_MAX} groupings"))
                .hint("name those that are needed: GROUPING SETS ((a, b), (a), ())")
        };
        let join = |parts: &[&Vec<Expr>]| parts.iter().flat_map(|part| part.iter().cloned()).collect::<Vec<_>>();
        let sets = match &*expr {
            Expr::GroupingSets(sets) => sets.clone(),
            Expr::Rollup(parts) => {
                let parts: Vec<&Vec<Expr>> = parts.iter().collect();
                (0..=parts.len()).rev().map(|count| join(&parts[..count])).collect()
            }
            Expr::Cube(parts) if parts.len() >= GROUPINGS_MAX => return Err(too_many()),
            Expr::Cube(parts) => {
                let subsets = 1u64 << parts.len();
                if subsets > GROUPINGS_MAX as u64 {
                    return Err(too_many());
                }
                let count = parts.len();
                let is_in = |subset: u64, index: usize| subset & (1 << (count - 1 - index)) != 0;
                let subset = |subset: u64| {
                    let parts = parts.iter().enumerate();
                    let parts = parts.filter(|(index, _)| is_in(subset, *index)).map(|(_, part)| part);
                    join(&parts.collect::<Vec<_>>())
                };
                (0..subsets).rev().map(subset).collect()
            }
            _ => continue,
        };
        groupings = groupings.saturating_mul(sets.len());
        if groupings > GROUPINGS_MAX {
            return Err(too_many());
        }
        *expr = Expr::GroupingSets(sets);
    }
    Ok(())
}
