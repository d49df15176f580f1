//! Drops the columns that nobody reads, so that sources read only what is needed.

use super::identity::Identity;
use super::needs::{self, Need, Needs, needs_of};
use super::prepare::Prepared;
use super::rank::{OrderColumn, Over, Rank, RankOutput};
use super::{AggregateCall, Rel, RelId, RelKind, Rels, Windowing, multiplies};
use crate::error::{Result, SqlError};
use crate::functions::row_field::as_path;
use arrow::datatypes::DataType;
use datafusion_expr::Expr;
use std::collections::HashMap;
use tidemill_engine::graph::JoinInput;

/// Relations in order, and where each of the old ones is now.
pub(crate) struct Pruned {
    pub(crate) rels: Vec<Rel>,
    pub(crate) places: HashMap<RelId, RelId>,
    /// What is read of each relation's columns.
    pub(crate) needs: Vec<Vec<Need>>,
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
        needs: Vec::new(),
    };
    for index in 0..rels.len() {
        let id = RelId(index);
        let Some(kept) = &needed[index] else { continue };
        let rel = rebuild(rels.get(id), kept, &needed, &mut pruned)?;
        let is_flat = !matches!(rel.kind, RelKind::Table(_) | RelKind::Calc { .. });
        pruned.needs.push(if is_flat {
            vec![Need::All; rel.columns.len()]
        } else {
            kept.values().cloned().collect()
        });
        pruned.rels.push(rel);
        pruned.places.insert(id, RelId(pruned.rels.len() - 1));
    }
    Ok(pruned)
}

/// Returns the columns that each relation must have; `None` for those that nobody reads.
fn needed_columns(rels: &Rels, outputs: &[RelId]) -> Result<Vec<Option<Needs>>> {
    let mut needed: Vec<Option<Needs>> = vec![None; rels.len()];
    let need = |needed: &mut Vec<Option<Needs>>, id: RelId, columns: Needs| {
        let known = needed[id.0].get_or_insert_default();
        for (column, need) in columns {
            needs::add(known, column, need);
        }
    };
    let whole = |columns: &mut dyn Iterator<Item = usize>| columns.map(|column| (column, Need::All)).collect::<Needs>();
    for output in outputs {
        need(&mut needed, *output, whole(&mut (0..rels.get(*output).columns.len())));
    }
    for index in (0..rels.len()).rev() {
        let rel = rels.get(RelId(index));
        let Some(kept) = &mut needed[index] else { continue };
        if kept.is_empty() {
            // Rows need a column to be counted by, best a small one.
            let is_row = |column: &super::RelColumn| matches!(column.data_type, DataType::Struct(_));
            let column = rel.columns.iter().position(|column| !is_row(column)).unwrap_or(0);
            kept.insert(column, Need::All);
        }
        if let RelKind::Calc { outputs, .. } = &rel.kind
            && let Some(multiplied) = outputs.iter().position(multiplies)
        {
            // A row is there once per window or element, also where nobody asks for it.
            kept.insert(multiplied, Need::All);
        }
        // What groups is there, also where nobody asks for it.
        let grouping = match &rel.kind {
            RelKind::GroupAggregate { keys, .. } => keys.len(),
            RelKind::WindowAggregate { keys, .. } => keys.len() + 2,
            _ => 0,
        };
        kept.extend((0..grouping).map(|column| (column, Need::All)));
        let kept = kept.clone();
        match &rel.kind {
            RelKind::Table(_) => {}
            RelKind::Calc {
                input,
                predicate,
                outputs,
            } => {
                let source = rels.get(*input);
                let mut columns = needs_of(predicate.iter().map(|p| &p.expr), source)?;
                for (index, wanted) in &kept {
                    let output = &outputs[*index];
                    // What only passes through is needed as far as it is needed behind.
                    let passes = matches!(output, Expr::Column(_)) || as_path(output).is_some();
                    for (column, mut found) in needs_of(std::iter::once(output), source)? {
                        if passes {
                            found.narrow_to(wanted);
                        }
                        needs::add(&mut columns, column, found);
                    }
                }
                need(&mut needed, *input, columns);
            }
            RelKind::LookupJoin { input, lookup } => {
                let columns = lookup.needs(&kept)?;
                need(&mut needed, *input, columns);
            }
            RelKind::Union { inputs } => {
                for input in inputs {
                    need(&mut needed, *input, whole(&mut kept.keys().copied()));
                }
            }
            RelKind::Join { left, right, spec } => {
                for (input, id) in JoinInput::BOTH.into_iter().zip([left, right]) {
                    let mut columns = spec.read_of(input);
                    let wanted = kept.keys().map(|index| spec.outputs[*index]);
                    columns.extend(wanted.filter(|(of, _)| *of == input).map(|(_, column)| column));
                    need(&mut needed, *id, whole(&mut columns.into_iter()));
                }
            }
            RelKind::WindowAggregate {
                input,
                keys,
                windowing,
                calls,
                updates: _,
            } => {
                let mut columns = keys.clone();
                match windowing {
                    Windowing::Time { time, .. } => columns.extend([*time]),
                    Windowing::Attached { start, end } => columns.extend([*start, *end]),
                }
                for (call, _) in kept_calls(keys.len() + 2, calls, &kept) {
                    columns.extend(call.reads());
                }
                need(&mut needed, *input, whole(&mut columns.into_iter()));
            }
            RelKind::Rank(rank) => {
                let passed = kept.keys().filter_map(|place| match rank.outputs[*place] {
                    RankOutput::Column(column) => Some(column),
                    RankOutput::Number => None,
                });
                need(&mut needed, rank.input, whole(&mut rank.reads().chain(passed)));
            }
            RelKind::Over(over) => {
                let mut columns: Vec<usize> = over.reads().collect();
                for place in kept.keys() {
                    match place.checked_sub(over.passed.len()) {
                        None => columns.push(over.passed[*place]),
                        Some(call) => columns.extend(over.calls[call].reads()),
                    }
                }
                need(&mut needed, over.input, whole(&mut columns.into_iter()));
            }
            RelKind::GroupAggregate { input, keys, calls } => {
                let of_call = |(call, _)| AggregateCall::reads(call);
                let columns = kept_calls(keys.len(), calls, &kept).flat_map(of_call);
                let columns = keys.iter().copied().chain(columns);
                need(&mut needed, *input, whole(&mut columns.collect::<Vec<_>>().into_iter()));
            }
        }
    }
    Ok(needed)
}

/// Returns the calls whose results are kept, with their columns' places; the first call's is `first`.
fn kept_calls<'a>(
    first: usize,
    calls: &'a [AggregateCall],
    kept: &'a Needs,
) -> impl Iterator<Item = (&'a AggregateCall, usize)> {
    calls
        .iter()
        .enumerate()
        .map(move |(index, call)| (call, first + index))
        .filter(|(_, place)| kept.contains_key(place))
}

fn rebuild(rel: &Rel, kept: &Needs, needed: &[Option<Needs>], pruned: &mut Pruned) -> Result<Rel> {
    let lost = || SqlError::internal("a relation was pruned that is read");
    let place = |pruned: &Pruned, id: &RelId| pruned.places.get(id).copied().ok_or_else(lost);
    let columns = kept.keys().map(|index| rel.columns[*index].clone()).collect();
    let rows = rel.rows.clone();
    let changes = rel.changes;
    match &rel.kind {
        RelKind::Table(table) => Ok(Rel {
            kind: RelKind::Table(*table),
            columns,
            rows,
            changes,
        }),
        RelKind::Calc {
            input,
            predicate,
            outputs,
        } => {
            let outputs = kept.keys().map(|index| outputs[*index].clone()).collect();
            let kind = RelKind::Calc {
                input: place(pruned, input)?,
                predicate: predicate.clone(),
                outputs,
            };
            Ok(Rel {
                kind,
                columns,
                rows,
                changes,
            })
        }
        RelKind::LookupJoin { input, lookup } => {
            let has = needed[input.0].as_ref().ok_or_else(lost)?;
            let kind = RelKind::LookupJoin {
                input: place(pruned, input)?,
                lookup: Box::new(lookup.pruned(kept, has)?),
            };
            Ok(Rel {
                kind,
                columns,
                rows,
                changes,
            })
        }
        RelKind::Union { inputs } => {
            let mut placed = Vec::with_capacity(inputs.len());
            for input in inputs {
                let id = place(pruned, input)?;
                let has = needed[input.0].as_ref().ok_or_else(lost)?;
                if has.keys().eq(kept.keys()) {
                    placed.push(id);
                    continue;
                }
                // Another reader needs more columns of this input than the union does.
                let source = pruned.rels[id.0].clone();
                let wanted: Vec<_> = has
                    .keys()
                    .zip(&source.columns)
                    .filter(|(index, _)| kept.contains_key(index))
                    .collect();
                let outputs = wanted.iter().map(|(_, column)| Prepared::column(column).expr).collect();
                let columns: Vec<_> = wanted.iter().map(|(_, column)| (*column).clone()).collect();
                let kind = RelKind::Calc {
                    input: id,
                    predicate: None,
                    outputs,
                };
                pruned.needs.push(vec![Need::All; columns.len()]);
                pruned.rels.push(Rel {
                    kind,
                    columns,
                    rows: source.rows,
                    changes: source.changes,
                });
                placed.push(RelId(pruned.rels.len() - 1));
            }
            Ok(Rel {
                kind: RelKind::Union { inputs: placed },
                columns,
                rows,
                changes,
            })
        }
        RelKind::Join { left, right, spec } => {
            let spec = spec.moved(kept.keys().copied(), |input, column| {
                let id = if input == JoinInput::Left { left } else { right };
                let has = needed[id.0].as_ref().ok_or_else(lost)?;
                has.keys().position(|known| *known == column).ok_or_else(lost)
            })?;
            let kind = RelKind::Join {
                left: place(pruned, left)?,
                right: place(pruned, right)?,
                spec: Box::new(spec),
            };
            Ok(Rel {
                kind,
                columns,
                rows,
                changes,
            })
        }
        RelKind::WindowAggregate {
            input,
            keys,
            windowing,
            calls,
            updates,
        } => {
            let has = needed[input.0].as_ref().ok_or_else(lost)?;
            let moved = |index: usize| has.keys().position(|known| *known == index).ok_or_else(lost);
            let windowing = match *windowing {
                Windowing::Time { time, spec } => Windowing::Time {
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
            for (call, place) in kept_calls(keys.len() + 2, calls, kept) {
                moved_calls.push(call.moved(&moved)?);
                columns.push(rel.columns[place].clone());
            }
            let keys = keys.iter().map(|key| moved(*key)).collect::<Result<Vec<_>>>()?;
            let kind = RelKind::WindowAggregate {
                input: place(pruned, input)?,
                keys,
                windowing,
                calls: moved_calls,
                updates: *updates,
            };
            Ok(Rel {
                kind,
                columns,
                rows,
                changes,
            })
        }
        RelKind::Rank(rank) => {
            let has = needed[rank.input.0].as_ref().ok_or_else(lost)?;
            let moved = |index: usize| has.keys().position(|known| *known == index).ok_or_else(lost);
            let outputs = kept.keys().map(|place| match rank.outputs[*place] {
                RankOutput::Column(column) => Ok(RankOutput::Column(moved(column)?)),
                RankOutput::Number => Ok(RankOutput::Number),
            });
            let order = rank.order.iter().map(|order| {
                let column = moved(order.column)?;
                Ok(OrderColumn { column, ..*order })
            });
            let rank = Rank {
                input: place(pruned, &rank.input)?,
                partition: rank.partition.iter().map(|key| moved(*key)).collect::<Result<_>>()?,
                order: order.collect::<Result<_>>()?,
                window_end: rank.window_end.map(moved).transpose()?,
                outputs: outputs.collect::<Result<_>>()?,
                ..**rank
            };
            let kind = RelKind::Rank(Box::new(rank));
            Ok(Rel {
                kind,
                columns,
                rows,
                changes,
            })
        }
        RelKind::Over(over) => {
            let has = needed[over.input.0].as_ref().ok_or_else(lost)?;
            let moved = |index: usize| has.keys().position(|known| *known == index).ok_or_else(lost);
            let (mut passed, mut calls) = (Vec::new(), Vec::new());
            for place in kept.keys() {
                match place.checked_sub(over.passed.len()) {
                    None => passed.push(moved(over.passed[*place])?),
                    Some(call) => calls.push(over.calls[call].moved(&moved)?),
                }
            }
            let over = Over {
                input: place(pruned, &over.input)?,
                partition: over.partition.iter().map(|key| moved(*key)).collect::<Result<_>>()?,
                time: moved(over.time)?,
                passed,
                calls,
                ..**over
            };
            let kind = RelKind::Over(Box::new(over));
            Ok(Rel {
                kind,
                columns,
                rows,
                changes,
            })
        }
        RelKind::GroupAggregate { input, keys, calls } => {
            let has = needed[input.0].as_ref().ok_or_else(lost)?;
            let moved = |index: usize| has.keys().position(|known| *known == index).ok_or_else(lost);
            let mut columns = rel.columns[..keys.len()].to_vec();
            let mut moved_calls = Vec::new();
            for (call, place) in kept_calls(keys.len(), calls, kept) {
                moved_calls.push(call.moved(&moved)?);
                columns.push(rel.columns[place].clone());
            }
            let keys = keys.iter().map(|key| moved(*key)).collect::<Result<Vec<_>>>()?;
            let kind = RelKind::GroupAggregate {
                input: place(pruned, input)?,
                keys,
                calls: moved_calls,
            };
            Ok(Rel {
                kind,
                columns,
                rows,
                changes,
            })
        }
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
