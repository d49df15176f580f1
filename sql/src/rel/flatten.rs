//! Takes rows apart right behind their table: where only fields of a column's rows are read, each becomes a column of
//! its own, so that filters and exchanges carry no more than what is read.

use super::needs::Need;
use super::prune::Pruned;
use super::{Identity, Names, Rel, RelColumn, RelKind, Role};
use crate::error::{Result, SqlError};
use crate::functions::row_field::{as_path, row_field};
use datafusion_common::Column;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_expr::Expr;
use std::collections::HashMap;

/// A column of a table's relation: the table's column and the names from it inwards.
#[derive(Clone, Debug)]
pub(crate) struct TablePath {
    pub(crate) column: String,
    pub(crate) fields: Vec<String>,
}

/// Where each field of a column's rows is now: path and column.
type Leaves = Vec<(Vec<String>, String)>;

/// Takes rows apart; returns what the columns of tables are, by relation.
///
/// # Errors
/// Only on a bug.
pub(crate) fn flatten(pruned: &mut Pruned) -> Result<HashMap<usize, Vec<TablePath>>> {
    let Pruned { rels, needs, .. } = pruned;
    let mut paths = HashMap::new();
    let mut flattened: Vec<HashMap<String, Leaves>> = Vec::with_capacity(rels.len());
    for index in 0..rels.len() {
        let mut leaves = HashMap::new();
        match rels[index].kind.clone() {
            RelKind::Table(_) => {
                let (columns, found) = flat_columns(&rels[index], &needs[index], |_| true, &mut leaves);
                rels[index].columns = columns;
                paths.insert(index, found);
            }
            RelKind::Calc {
                input,
                predicate,
                outputs,
            } => {
                let below = &flattened[input.0];
                if !below.is_empty() {
                    let mut predicate = predicate;
                    if let Some(predicate) = &mut predicate {
                        predicate.expr = resolve(&predicate.expr, below)?;
                    }
                    let passes = |column: usize| match (&outputs[column], as_path(&outputs[column])) {
                        (Expr::Column(column), _) | (_, Some((column, _))) => below.contains_key(&column.name),
                        _ => false,
                    };
                    let (columns, found) = flat_columns(&rels[index], &needs[index], passes, &mut leaves);
                    let mut resolved = Vec::with_capacity(found.len());
                    for path in &found {
                        let place = rels[index].columns.iter().position(|known| known.name == path.column);
                        let output = place.and_then(|place| outputs.get(place));
                        let output = output.ok_or_else(|| SqlError::internal("an output was lost"))?.clone();
                        let field = path.fields.iter().fold(output, |row, name| row_field(row, name));
                        resolved.push(resolve(&field, below)?);
                    }
                    rels[index].columns = columns;
                    rels[index].kind = RelKind::Calc {
                        input,
                        predicate,
                        outputs: resolved,
                    };
                }
            }
            RelKind::Union { .. }
            | RelKind::Join { .. }
            | RelKind::WindowAggregate { .. }
            | RelKind::GroupAggregate { .. }
            | RelKind::Rank(_)
            | RelKind::Over(_) => {}
        }
        flattened.push(leaves);
    }
    Ok(paths)
}

/// Returns the columns of a relation with the fields that are needed in place of their rows, where `may` allows it.
fn flat_columns(
    rel: &Rel,
    needs: &[Need],
    may: impl Fn(usize) -> bool,
    leaves: &mut HashMap<String, Leaves>,
) -> (Vec<RelColumn>, Vec<TablePath>) {
    let mut names = Names::default();
    for column in &rel.columns {
        names.unique(&column.name);
    }
    let (mut columns, mut paths) = (Vec::new(), Vec::new());
    for (index, (column, need)) in rel.columns.iter().zip(needs).enumerate() {
        if *need == Need::All || !may(index) {
            columns.push(column.clone());
            paths.push(TablePath {
                column: column.name.clone(),
                fields: Vec::new(),
            });
            continue;
        }
        let mut known = Leaves::new();
        for (fields, data_type) in need.leaves(&column.data_type) {
            let name = names.unique(&format!("{}.{}", column.name, fields.join(".")));
            let words: Vec<&str> = ["field", column.identity.text()]
                .into_iter()
                .chain(fields.iter().map(String::as_str))
                .collect();
            columns.push(RelColumn {
                name: name.clone(),
                data_type,
                identity: Identity::of(&words),
                role: Role::Plain,
            });
            paths.push(TablePath {
                column: column.name.clone(),
                fields: fields.clone(),
            });
            known.push((fields, name));
        }
        leaves.insert(column.name.clone(), known);
    }
    (columns, paths)
}

/// Puts the new columns in place of the fields.
fn resolve(expr: &Expr, leaves: &HashMap<String, Leaves>) -> Result<Expr> {
    let mut lost = None;
    let resolved = expr.clone().transform_down(|expr| {
        if let Expr::Column(column) = &expr
            && leaves.contains_key(&column.name)
        {
            lost = Some(column.name.clone());
        }
        let Some((column, path)) = as_path(&expr) else {
            return Ok(Transformed::no(expr));
        };
        let Some(known) = leaves.get(&column.name) else {
            return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
        };
        let found = known.iter().find(|(fields, _)| {
            fields.len() <= path.len() && fields.iter().zip(&path).all(|(field, name)| field == name)
        });
        let Some((fields, name)) = found else {
            lost = Some(format!("{}.{}", column.name, path.join(".")));
            return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
        };
        let rest = &path[fields.len()..];
        let column = Expr::Column(Column::new_unqualified(name));
        let field = rest.iter().fold(column, |row, name| row_field(row, name));
        Ok(Transformed::new(field, true, TreeNodeRecursion::Jump))
    });
    let resolved = resolved.map_err(SqlError::internal)?.data;
    match lost {
        Some(name) => Err(SqlError::internal(format!("{name} is read and was not kept"))),
        None => Ok(resolved),
    }
}
