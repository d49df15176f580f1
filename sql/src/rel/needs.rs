//! What is read of a column: all of it, or some fields of its rows.

use super::Rel;
use crate::error::{Result, SqlError};
use crate::functions::row_field::as_path;
use arrow::datatypes::{DataType, Field};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::Expr;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What is read of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The whole value.
    All,
    /// Some fields of its rows, never none.
    Fields(BTreeMap<String, Need>),
}

/// What is read of columns, by place.
pub(crate) type Needs = BTreeMap<usize, Need>;

impl Need {
    /// Makes the need of what a path leads to; an empty one leads to the value itself.
    pub(crate) fn path(path: &[&str]) -> Self {
        match path {
            [] => Self::All,
            [first, rest @ ..] => Self::Fields(BTreeMap::from([((*first).to_owned(), Self::path(rest))])),
        }
    }

    /// Puts a need in place of the wholes that this one ends in.
    pub(crate) fn narrow_to(&mut self, inner: &Self) {
        match self {
            Self::All => *self = inner.clone(),
            Self::Fields(fields) => fields.values_mut().for_each(|need| need.narrow_to(inner)),
        }
    }

    /// Adds another need.
    pub(crate) fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Fields(known), Self::Fields(more)) => {
                for (name, need) in more {
                    match known.entry(name) {
                        Entry::Occupied(mut entry) => entry.get_mut().merge(need),
                        Entry::Vacant(entry) => {
                            entry.insert(need);
                        }
                    }
                }
            }
        }
    }

    /// Returns the type with only the fields that are needed, in the type's order.
    pub(crate) fn narrow(&self, data_type: &DataType) -> DataType {
        let (Self::Fields(needed), DataType::Struct(fields)) = (self, data_type) else {
            return data_type.clone();
        };
        let kept = fields.iter().filter_map(|field| {
            let need = needed.get(field.name())?;
            Some(Field::new(
                field.name(),
                need.narrow(field.data_type()),
                field.is_nullable(),
            ))
        });
        DataType::Struct(kept.collect())
    }

    /// Returns the paths to what is needed, with their types, in the type's order.
    pub(crate) fn leaves(&self, data_type: &DataType) -> Vec<(Vec<String>, DataType)> {
        let (Self::Fields(needed), DataType::Struct(fields)) = (self, data_type) else {
            return vec![(Vec::new(), data_type.clone())];
        };
        let mut leaves = Vec::new();
        for field in fields {
            let Some(need) = needed.get(field.name()) else { continue };
            for (path, data_type) in need.leaves(field.data_type()) {
                let path = std::iter::once(field.name().clone()).chain(path).collect();
                leaves.push((path, data_type));
            }
        }
        leaves
    }
}

/// Adds a need of a column.
pub(crate) fn add(needs: &mut Needs, column: usize, need: Need) {
    match needs.entry(column) {
        Entry::Occupied(mut entry) => entry.get_mut().merge(need),
        Entry::Vacant(entry) => {
            entry.insert(need);
        }
    }
}

/// Returns what expressions read of the columns they name.
///
/// # Errors
/// When a column does not exist: a bug.
pub(crate) fn needs_of<'a>(exprs: impl Iterator<Item = &'a Expr>, input: &Rel) -> Result<Needs> {
    let mut needs = Needs::new();
    let mut lost = None;
    let place = |name: &str| input.columns.iter().position(|known| known.name == name);
    for expr in exprs {
        let walked = expr.apply(|expr| {
            let (name, need, recursion) = match (expr, as_path(expr)) {
                (_, Some((column, path))) => (&column.name, Need::path(&path), TreeNodeRecursion::Jump),
                (Expr::Column(column), None) => (&column.name, Need::All, TreeNodeRecursion::Continue),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            match place(name) {
                Some(index) => add(&mut needs, index, need),
                None => lost = Some(name.clone()),
            }
            Ok(recursion)
        });
        walked.map_err(SqlError::internal)?;
    }
    match lost {
        Some(name) => Err(SqlError::internal(format!("the column {name} was lost"))),
        None => Ok(needs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: Vec<(&str, DataType)>) -> DataType {
        let field = |(name, data_type)| Field::new(name, data_type, true);
        DataType::Struct(fields.into_iter().map(field).collect::<Vec<_>>().into())
    }

    #[test]
    fn needs_of_parts_stay_parts_until_the_whole_is_needed() {
        let inner = row(vec![("x", DataType::Int64), ("y", DataType::Utf8)]);
        let outer = row(vec![
            ("b", inner.clone()),
            ("a", DataType::Int32),
            ("c", DataType::Int8),
        ]);
        let mut need = Need::path(&["a"]);
        need.merge(Need::path(&["b", "y"]));
        let narrow = row(vec![("b", row(vec![("y", DataType::Utf8)])), ("a", DataType::Int32)]);
        assert_eq!(need.narrow(&outer), narrow);
        let paths: Vec<String> = need
            .leaves(&outer)
            .into_iter()
            .map(|(path, _)| path.join("."))
            .collect();
        assert_eq!(paths, ["b.y", "a"]);
        need.merge(Need::path(&["b"]));
        assert_eq!(need.narrow(&outer), row(vec![("b", inner), ("a", DataType::Int32)]));
        need.merge(Need::All);
        assert_eq!(need.narrow(&outer), outer);
    }
}
