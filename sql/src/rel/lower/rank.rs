//! Finds the filter that makes a top-N of numbered rows: `WHERE row_num <= 10`.
//!
//! ```text
//!  Filter(row_num <= 10 AND x) ─▶ Calc ─▶ ... ─▶ rows with their number
//!  becomes  Filter(x) ─▶ Calc ─▶ ... ─▶ the first 10 rows of each partition
//! ```
//! What lies between lets rows pass or not by themselves, so the bound may come before it.

use super::Lowering;
use crate::error::Result;
use crate::functions::window::window_side_of;
use crate::rel::prepare::{Prepared, prepare_over};
use crate::rel::rank::{OrderColumn, Rank, RankOutput, Ties};
use crate::rel::{RelColumn, RelId, RelKind, Rels, Role};
use datafusion_common::ScalarValue;
use datafusion_common::tree_node::TreeNode;
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{Expr, Operator};
use tidemill_engine::graph::TimeDomain;

/// The numbers that go on, from 1; the first one is at least 1, and there may be none.
#[derive(Clone, Copy)]
struct Bounds {
    first: i64,
    last: i64,
}

impl Bounds {
    const ALL: Self = Self {
        first: 1,
        last: i64::MAX,
    };

    fn and(self, other: Self) -> Self {
        Self {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        }
    }
}

impl Lowering<'_> {
    /// Lowers a filter that bounds the number of rows; `None` where it is an ordinary one.
    pub(super) fn bounded_rank(&mut self, input: RelId, predicate: &Prepared) -> Result<Option<RelId>> {
        let columns_of = &self.rels.get(input).columns;
        let ranks = columns_of
            .iter()
            .enumerate()
            .filter(|(_, column)| column.role == Role::Rank);
        let ranks: Vec<(usize, String)> = ranks.map(|(index, column)| (index, column.name.clone())).collect();
        for (index, rank) in ranks {
            let (mut bounds, mut rest) = (Bounds::ALL, Vec::new());
            for condition in split_conjunction(&predicate.expr) {
                match bounds_of(condition, &rank) {
                    Some(found) => bounds = bounds.and(found),
                    None => rest.push(condition.clone()),
                }
            }
            if bounds.last == i64::MAX {
                continue;
            }
            let Some(bounded) = bounded(self.rels, input, index, bounds) else {
                continue;
            };
            let Some(rest) = conjunction(rest) else {
                return Ok(Some(bounded));
            };
            let rel = self.rels.get(bounded);
            let predicate = prepare_over(rest, rel).map_err(|error| error.or_at(self.at))?;
            let outputs = columns(&rel.columns);
            return Ok(Some(self.rels.calc(bounded, Some(predicate), outputs)));
        }
        Ok(None)
    }
}

fn columns(columns: &[RelColumn]) -> Vec<(String, Prepared)> {
    let column = |column: &RelColumn| (column.name.clone(), Prepared::column(column));
    columns.iter().map(column).collect()
}

/// Bounds the number that is the column `index` of a relation; `None` where its rows are not simply passed on.
fn bounded(rels: &mut Rels, id: RelId, index: usize, bounds: Bounds) -> Option<RelId> {
    let rel = rels.get(id).clone();
    let range = (bounds.first.unsigned_abs(), bounds.last.max(0).unsigned_abs());
    match rel.kind {
        // A number of rows further below only passes through: bounding it here would bound another one.
        RelKind::Rank(rank) if rank.range.is_none() && rank.outputs[index] == RankOutput::Number => {
            Some(rels.rank(Rank {
                range: Some(range),
                ..*rank
            }))
        }
        RelKind::Over(over) if over.is_row_number() && index >= over.passed.len() => {
            let outputs = over.passed.iter().map(|column| RankOutput::Column(*column));
            let rank = Rank {
                input: over.input,
                partition: over.partition.clone(),
                order: match over.domain {
                    TimeDomain::EventTime => vec![OrderColumn {
                        column: over.time,
                        descending: false,
                        nulls_first: true,
                    }],
                    // The order in which rows come.
                    TimeDomain::ProcessingTime => Vec::new(),
                },
                ties: Ties::First,
                window_end: super::over::window_end(rels.get(over.input), &over.partition),
                range: Some(range),
                outputs: outputs.chain([RankOutput::Number]).collect(),
                at: over.at,
            };
            Some(rels.rank(rank))
        }
        RelKind::Calc {
            input,
            predicate,
            outputs,
        } => {
            let Expr::Column(rank) = &outputs[index] else {
                return None;
            };
            // A window above is of a time that the bounded rows may no longer have.
            let mut read = predicate.iter().map(|predicate| &predicate.expr).chain(&outputs);
            let computed = rel.columns.iter().zip(&outputs);
            let mut computed = computed.filter(|(_, expr)| !matches!(expr, Expr::Column(_)));
            if read.any(has_window) || computed.any(|(column, _)| column.role.as_window().is_some()) {
                return None;
            }
            let place = |rels: &Rels, name: &str| rels.get(input).columns.iter().position(|known| known.name == name);
            let inner = bounded(rels, input, place(rels, &rank.name)?, bounds)?;
            let below = rels.get(inner);
            let output = |(column, expr): (&RelColumn, &Expr)| {
                let passed = match expr {
                    Expr::Column(from) => below.columns.iter().find(|known| known.name == from.name),
                    _ => None,
                };
                let RelColumn {
                    name,
                    data_type,
                    identity,
                    role,
                } = column.clone();
                let prepared = passed.map_or(
                    Prepared {
                        expr: expr.clone(),
                        identity,
                        data_type,
                        role,
                    },
                    Prepared::column,
                );
                (name, prepared)
            };
            let outputs = rel.columns.iter().zip(&outputs).map(output).collect();
            Some(rels.calc(inner, predicate, outputs))
        }
        _ => None,
    }
}

/// Says whether an expression finds the window of a time.
fn has_window(expr: &Expr) -> bool {
    let is_window = |expr: &Expr| match expr {
        Expr::ScalarFunction(call) => Ok(window_side_of(&call.func).is_some()),
        _ => Ok(false),
    };
    expr.exists(is_window).unwrap_or(true)
}

/// Returns how a condition bounds a column; `None` for any other condition.
fn bounds_of(condition: &Expr, column: &str) -> Option<Bounds> {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(found) if found.name == column);
    let (op, number) = match condition {
        Expr::BinaryExpr(binary) if is_column(&binary.left) => (binary.op, integer(&binary.right)?),
        Expr::BinaryExpr(binary) if is_column(&binary.right) => (binary.op.swap()?, integer(&binary.left)?),
        Expr::Between(between) if !between.negated && is_column(&between.expr) => {
            let (low, high) = (integer(&between.low)?, integer(&between.high)?);
            return Some(Bounds::ALL.and(Bounds { first: low, last: high }));
        }
        _ => return None,
    };
    let all = Bounds::ALL;
    Some(match op {
        Operator::Eq => all.and(Bounds {
            first: number,
            last: number,
        }),
        Operator::LtEq => Bounds { last: number, ..all },
        Operator::Lt => Bounds {
            last: number.checked_sub(1)?,
            ..all
        },
        Operator::GtEq => all.and(Bounds {
            first: number,
            last: i64::MAX,
        }),
        Operator::Gt => all.and(Bounds {
            first: number.checked_add(1)?,
            last: i64::MAX,
        }),
        _ => return None,
    })
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        Expr::Literal(ScalarValue::Int32(value), _) => value.map(i64::from),
        _ => None,
    }
}
