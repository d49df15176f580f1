//! Puts projections that follow one another together, where no work is repeated by it.

use super::prepare::Prepared;
use super::{Rel, RelId, RelKind, multiplies};
use crate::error::{Result, SqlError};
use datafusion_common::Column;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_expr::Expr;
use std::collections::HashMap;

/// The most operators in an expression that fusing may make.
const NODES_MAX: usize = 1_000;

/// Fuses projections whose input has no other reader; `outputs` are read from outside.
///
/// # Errors
/// Only on a bug.
pub(crate) fn fuse(rels: &mut [Rel], outputs: &[RelId]) -> Result<()> {
    let mut readers = vec![0usize; rels.len()];
    for output in outputs {
        readers[output.0] += 1;
    }
    for rel in rels.iter() {
        for input in inputs(rel) {
            readers[input.0] += 1;
        }
    }
    for index in 0..rels.len() {
        let RelKind::Calc {
            input,
            predicate,
            outputs,
        } = &rels[index].kind
        else {
            continue;
        };
        let below = &rels[input.0];
        if readers[input.0] != 1 {
            continue;
        }
        let RelKind::Calc {
            input: source,
            predicate: first,
            outputs: inner,
        } = &below.kind
        else {
            continue;
        };
        if first.is_some() && predicate.is_some() {
            // Two filters stay in order: the second may rely on what the first lets through.
            continue;
        }
        if outputs.iter().chain(inner).any(multiplies) {
            // It makes several rows of one.
            continue;
        }
        let by_name: HashMap<&str, &Expr> = below.columns.iter().map(|c| c.name.as_str()).zip(inner).collect();
        if !is_worth_it(predicate.iter().map(|p| &p.expr).chain(outputs), &by_name)? {
            continue;
        }
        let fused_predicate = match (first, predicate) {
            (Some(first), _) => Some(first.clone()),
            (None, Some(second)) => Some(Prepared {
                expr: substitute(&second.expr, &by_name)?,
                ..second.clone()
            }),
            (None, None) => None,
        };
        let fused = outputs
            .iter()
            .map(|output| substitute(output, &by_name))
            .collect::<Result<Vec<_>>>()?;
        rels[index].kind = RelKind::Calc {
            input: *source,
            predicate: fused_predicate,
            outputs: fused,
        };
    }
    Ok(())
}

/// Returns what a relation reads.
pub(crate) fn inputs(rel: &Rel) -> Vec<RelId> {
    match &rel.kind {
        RelKind::Table(_) => Vec::new(),
        RelKind::Calc { input, .. }
        | RelKind::WindowAggregate { input, .. }
        | RelKind::GroupAggregate { input, .. } => vec![*input],
        RelKind::Union { inputs } => inputs.clone(),
        RelKind::Join { left, right, .. } => vec![*left, *right],
        RelKind::Rank(rank) => vec![rank.input],
        RelKind::Over(over) => vec![over.input],
    }
}

/// Says whether each computed column is read at most once, so that nothing is computed twice or drawn twice.
fn is_worth_it<'a>(exprs: impl Iterator<Item = &'a Expr>, inner: &HashMap<&str, &Expr>) -> Result<bool> {
    let mut reads: HashMap<String, usize> = HashMap::new();
    let mut nodes = 0usize;
    for expr in exprs {
        let walked = expr.apply(|expr| {
            nodes += 1;
            if let Expr::Column(column) = expr {
                *reads.entry(column.name.clone()).or_default() += 1;
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(SqlError::internal)?;
    }
    for (name, count) in reads {
        let Some(expr) = inner.get(name.as_str()) else { continue };
        if matches!(expr, Expr::Column(_) | Expr::Literal(..)) {
            continue;
        }
        if count > 1 {
            return Ok(false);
        }
        let walked = expr.apply(|_| {
            nodes += 1;
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(SqlError::internal)?;
    }
    Ok(nodes <= NODES_MAX)
}

fn substitute(expr: &Expr, inner: &HashMap<&str, &Expr>) -> Result<Expr> {
    let replaced = expr.clone().transform_down(|expr| match &expr {
        Expr::Column(Column { name, .. }) => match inner.get(name.as_str()) {
            // What is put in is over the columns below, so it must not be replaced again.
            Some(replacement) => Ok(Transformed::new((*replacement).clone(), true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(expr)),
        },
        _ => Ok(Transformed::no(expr)),
    });
    replaced.map(|replaced| replaced.data).map_err(SqlError::internal)
}
