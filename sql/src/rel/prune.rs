//! Drops the columns that nobody reads, so that sources read only what is needed.

use super::identity::Identity;
use super::prepare::Prepared;
use super::{AggregateCall, Rel, RelId, RelKind, Rels, Windowing};
use crate::error::{Result, SqlError};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::Expr;
use std::collections::{BTreeSet, HashMap};

/// Relations in order, and where each of the old ones is now.
pub(crate) struct Pruned {
    pub(crate) rels: Vec<Rel>,
    pub(crate) places: HashMap<RelId, RelId>,
}

/// Keeps what `outputs`, which are read in full, need.
///
/// # Errors
/// When a relation names a column that its input does not have: a bug.
pub(crate) fn prune(rels: &Rels, outputs: &[RelId]) -> Result<Pruned> {
    let needed = needed_columns(rels, outputs)?;
    let mut pruned = Pruned {
        rels: Vec::new(),
        places: HashMap::new(),
    };
    for index in 0..rels.len() {
        let id = RelId(index);
        let Some(kept) = &needed[index] else { continue };
        let rel = rebuild(rels.get(id), kept, &needed, &mut pruned)?;
        pruned.rels.push(rel);
        pruned.places.insert(id, RelId(pruned.rels.len() - 1));
    }
    Ok(pruned)
}

/// Returns the columns that each relation must have; `None` for those that nobody reads.
fn needed_columns(rels: &Rels, outputs: &[RelId]) -> Result<Vec<Option<BTreeSet<usize>>>> {
    let mut needed: Vec<Option<BTreeSet<usize>>> = vec![None; rels.len()];
    let need = |needed: &mut Vec<Option<BTreeSet<usize>>>, id: RelId, columns: BTreeSet<usize>| {
        needed[id.0].get_or_insert_default().extend(columns);
    };
    for output in outputs {
        need(&mut needed, *output, (0..rels.get(*output).columns.len()).collect());
    }
    for index in (0..rels.len()).rev() {
        let rel = rels.get(RelId(index));
        let Some(kept) = &mut needed[index] else { continue };
        if kept.is_empty() {
            // Rows need a column to be counted by.
            kept.insert(0);
        }
        let kept = kept.clone();
        match &rel.kind {
            RelKind::Table(_) => {}
            RelKind::Calc {
                input,
                predicate,
                outputs,
            } => {
                let exprs = predicate
                    .iter()
                    .map(|p| &p.expr)
                    .chain(kept.iter().map(|index| &outputs[*index]));
                let columns = columns_of(exprs, rels.get(*input))?;
                need(&mut needed, *input, columns);
            }
            RelKind::Union { inputs } => {
                for input in inputs {
                    need(&mut needed, *input, kept.clone());
                }
            }
            RelKind::WindowAggregate {
                input,
                keys,
                windowing,
                calls,
            } => {
                let mut columns: BTreeSet<usize> = keys.iter().copied().collect();
                match windowing {
                    Windowing::Tumble { time, .. } => columns.extend([*time]),
                    Windowing::Attached { start, end } => columns.extend([*start, *end]),
                }
                for (call, _) in kept_calls(keys, calls, &kept) {
                    columns.extend(call.argument.into_iter().chain(call.filter));
                }
                need(&mut needed, *input, columns);
            }
        }
    }
    Ok(needed)
}

/// Returns the calls whose results are kept, with their columns' places.
fn kept_calls<'a>(
    keys: &'a [usize],
    calls: &'a [AggregateCall],
    kept: &'a BTreeSet<usize>,
) -> impl Iterator<Item = (&'a AggregateCall, usize)> {
    let first = keys.len() + 2;
    calls
        .iter()
        .enumerate()
        .map(move |(index, call)| (call, first + index))
        .filter(|(_, place)| kept.contains(place))
}

fn rebuild(rel: &Rel, kept: &BTreeSet<usize>, needed: &[Option<BTreeSet<usize>>], pruned: &mut Pruned) -> Result<Rel> {
    let lost = || SqlError::internal("a relation was pruned that is read");
    let place = |pruned: &Pruned, id: &RelId| pruned.places.get(id).copied().ok_or_else(lost);
    let columns = kept.iter().map(|index| rel.columns[*index].clone()).collect();
    let rows = rel.rows.clone();
    match &rel.kind {
        RelKind::Table(table) => Ok(Rel {
            kind: RelKind::Table(*table),
            columns,
            rows,
        }),
        RelKind::Calc {
            input,
            predicate,
            outputs,
        } => {
            let outputs = kept.iter().map(|index| outputs[*index].clone()).collect();
            let kind = RelKind::Calc {
                input: place(pruned, input)?,
                predicate: predicate.clone(),
                outputs,
            };
            Ok(Rel { kind, columns, rows })
        }
        RelKind::Union { inputs } => {
            let mut placed = Vec::with_capacity(inputs.len());
            for input in inputs {
                let id = place(pruned, input)?;
                if needed[input.0].as_ref() == Some(kept) {
                    placed.push(id);
                    continue;
                }
                // Another reader needs more columns of this input than the union does.
                let source = pruned.rels[id.0].clone();
                let has = needed[input.0].as_ref().ok_or_else(lost)?;
                let wanted: Vec<_> = has
                    .iter()
                    .zip(&source.columns)
                    .filter(|(index, _)| kept.contains(index))
                    .collect();
                let outputs = wanted.iter().map(|(_, column)| Prepared::column(column).expr).collect();
                let columns = wanted.iter().map(|(_, column)| (*column).clone()).collect();
                let kind = RelKind::Calc {
                    input: id,
                    predicate: None,
                    outputs,
                };
                pruned.rels.push(Rel {
                    kind,
                    columns,
                    rows: source.rows,
                });
                placed.push(RelId(pruned.rels.len() - 1));
            }
            Ok(Rel {
                kind: RelKind::Union { inputs: placed },
                columns,
                rows,
            })
        }
        RelKind::WindowAggregate {
            input,
            keys,
            windowing,
            calls,
        } => {
            let has = needed[input.0].as_ref().ok_or_else(lost)?;
            let moved = |index: usize| has.iter().position(|known| *known == index).ok_or_else(lost);
            let windowing = match *windowing {
                Windowing::Tumble { time, spec } => Windowing::Tumble {
                    time: moved(time)?,
                    spec,
                },
                Windowing::Attached { start, end } => Windowing::Attached {
                    start: moved(start)?,
                    end: moved(end)?,
                },
            };
            let mut columns = rel.columns[..keys.len() + 2].to_vec();
            let mut moved_calls = Vec::new();
            for (call, place) in kept_calls(keys, calls, kept) {
                moved_calls.push(AggregateCall {
                    argument: call.argument.map(moved).transpose()?,
                    filter: call.filter.map(moved).transpose()?,
                    ..call.clone()
                });
                columns.push(rel.columns[place].clone());
            }
            let keys = keys.iter().map(|key| moved(*key)).collect::<Result<Vec<_>>>()?;
            let kind = RelKind::WindowAggregate {
                input: place(pruned, input)?,
                keys,
                windowing,
                calls: moved_calls,
            };
            Ok(Rel { kind, columns, rows })
        }
    }
}

/// Returns the places of the columns that expressions name.
pub(crate) fn columns_of<'a>(exprs: impl Iterator<Item = &'a Expr>, input: &Rel) -> Result<BTreeSet<usize>> {
    let mut columns = BTreeSet::new();
    let mut lost = None;
    for expr in exprs {
        let walked = expr.apply(|expr| {
            if let Expr::Column(column) = expr {
                match input.columns.iter().position(|known| known.name == column.name) {
                    Some(index) => {
                        columns.insert(index);
                    }
                    None => lost = Some(column.name.clone()),
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(SqlError::internal)?;
    }
    match lost {
        Some(name) => Err(SqlError::internal(format!("the column {name} was lost"))),
        None => Ok(columns),
    }
}

/// Returns the identity of a projection: what makes its operator's name.
pub(crate) fn calc_identity(rel: &Rel) -> Identity {
    let mut words = vec!["calc", rel.rows.text()];
    for column in &rel.columns {
        words.extend([column.name.as_str(), column.identity.text()]);
    }
    Identity::of(&words)
}
