//! `GROUPING SETS`: one aggregation over rows that are there once per grouping, with null in place of the keys that are not in
//! it and the grouping's number as one more key.
//!
//! ```text
//!            ┌─▶ a, b, 0 ──┐
//!  a, b ─────┼─▶ a, -, 1 ──┼─▶ aggregation by (a, b, grouping) ─▶ GROUPING(b) = 0, 1, 1 by grouping
//!            └─▶ -, -, 2 ──┘
//! ```

use super::Lowering;
use crate::error::{Position, Result, SqlError};
use crate::rel::prepare::{Prepared, place, prepare, prepare_over};
use crate::rel::{Rel, RelColumn, RelId, Role};
use datafusion_common::{Column, DFSchema, ScalarValue};
use datafusion_expr::expr::Case;
use datafusion_expr::{Aggregate, Expr, GroupingSet, cast, lit};

/// What a query groups by.
pub(super) struct Groupings<'a> {
    /// All expressions, each once, in the order of the plan's columns.
    pub(super) exprs: Vec<&'a Expr>,
    /// Which of them each grouping is of; `None` when there is one grouping, of all.
    sets: Option<Vec<Vec<bool>>>,
}

impl<'a> Groupings<'a> {
    /// Takes what an aggregation groups by apart.
    pub(super) fn of(aggregate: &'a Aggregate) -> Result<Self> {
        let [Expr::GroupingSet(grouping)] = aggregate.group_expr.as_slice() else {
            let exprs = aggregate.group_expr.iter().collect();
            return Ok(Self { exprs, sets: None });
        };
        let GroupingSet::GroupingSets(sets) = grouping else {
            return Err(SqlError::internal("ROLLUP and CUBE were not written out"));
        };
        let exprs = grouping.distinct_expr();
        let is_in = |set: &Vec<Expr>| exprs.iter().map(|expr| set.contains(expr)).collect();
        let sets = sets.iter().map(is_in).collect();
        Ok(Self {
            exprs,
            sets: Some(sets),
        })
    }

    /// Says whether there is a column of the grouping's number behind the keys in the plan.
    pub(super) fn is_several(&self) -> bool {
        self.sets.is_some()
    }

    /// Says whether an expression is in every grouping.
    pub(super) fn is_in_all(&self, index: usize) -> bool {
        self.sets.as_ref().is_none_or(|sets| sets.iter().all(|set| set[index]))
    }
}

impl Lowering<'_> {
    /// Makes rows be there once per grouping. `grouped` are the columns of the groupings' expressions (none for what is no
    /// key); returns the rows, the keys, and the expressions' new places among the keys. The last key is the grouping's number.
    pub(super) fn expand(
        &mut self,
        input: RelId,
        groupings: &Groupings<'_>,
        grouped: &[Option<usize>],
    ) -> Result<Expanded> {
        let Some(sets) = &groupings.sets else {
            return Err(SqlError::internal("one grouping is not expanded"));
        };
        let source = self.rels.get(input).clone();
        let mut keys: Vec<usize> = grouped.iter().flatten().copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut parts = Vec::with_capacity(sets.len());
        for (number, set) in sets.iter().enumerate() {
            let pass = |column: &RelColumn| (column.name.clone(), Prepared::column(column));
            let mut outputs: Vec<(String, Prepared)> = source.columns.iter().map(pass).collect();
            for key in &keys {
                let column = &source.columns[*key];
                let mut groups = grouped.iter().zip(set);
                let is_in = groups.any(|(column, is_in)| *is_in && *column == Some(*key));
                let mut value = match is_in {
                    true => Prepared::column(column),
                    false => {
                        let null = ScalarValue::try_new_null(&column.data_type).map_err(SqlError::internal)?;
                        prepare_over(Expr::Literal(null, None), &source)?
                    }
                };
                value.role = Role::Plain;
                outputs.push((format!("{}$key", column.name), value));
            }
            outputs.push((GROUPING.to_owned(), prepare_over(number_of(number), &source)?));
            parts.push(self.rels.calc(input, None, outputs));
        }
        let rows = match parts.as_slice() {
            [one] => *one,
            _ => self.rels.union(parts),
        };
        let first = source.columns.len();
        let place = |column: &Option<usize>| column.and_then(|column| keys.iter().position(|key| *key == column));
        Ok(Expanded {
            rows,
            grouped: grouped.iter().map(place).collect(),
            keys: (first..=first + keys.len()).collect(),
        })
    }

    /// Lowers `GROUPING(...)` over the result of an aggregation whose column of the grouping's number has this name.
    pub(super) fn grouping_call(
        &self,
        arguments: &[Expr],
        groupings: &Groupings<'_>,
        groups: &[Prepared],
        input: (&DFSchema, RelId),
        aggregated: (&Rel, Option<&str>),
        at: Option<Position>,
    ) -> Result<Prepared> {
        let mut places = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let prepared = prepare(argument, input.0, self.rels.get(input.1)).map_err(|error| error.or_at(at))?;
            let found = groups.iter().position(|group| group.identity == prepared.identity);
            places.push(found.ok_or_else(|| {
                SqlError::at(place(argument).or(at), "GROUPING is of what GROUP BY names")
                    .hint("name a column of GROUP BY")
            })?);
        }
        if places.len() > 62 {
            return Err(SqlError::at(
                at,
                "GROUPING_ID of more than 62 columns does not fit a BIGINT",
            ));
        }
        let bits = |set: &[bool]| {
            places
                .iter()
                .fold(0i64, |bits, place| bits << 1 | i64::from(!set[*place]))
        };
        let (rel, number) = aggregated;
        let value = match (&groupings.sets, number) {
            (Some(sets), Some(number)) => {
                let column = Expr::Column(Column::new_unqualified(number));
                let (last, others) = sets.split_last().ok_or_else(|| SqlError::internal("no grouping"))?;
                let of_number =
                    |(number, set): (usize, &Vec<bool>)| (Box::new(number_of(number)), Box::new(bigint(bits(set))));
                match others {
                    [] => bigint(bits(last)),
                    _ => Expr::Case(Case::new(
                        Some(Box::new(column)),
                        others.iter().enumerate().map(of_number).collect(),
                        Some(Box::new(bigint(bits(last)))),
                    )),
                }
            }
            // One grouping, of all.
            _ => bigint(0),
        };
        prepare_over(cast(value, arrow::datatypes::DataType::Int64), rel)
    }
}

/// Rows that are there once per grouping.
pub(super) struct Expanded {
    pub(super) rows: RelId,
    /// Where each of the groupings' expressions is among the keys.
    pub(super) grouped: Vec<Option<usize>>,
    /// The columns to group by.
    pub(super) keys: Vec<usize>,
}

/// The column of the grouping's number.
const GROUPING: &str = "$grouping";

fn number_of(number: usize) -> Expr {
    lit(i32::try_from(number).unwrap_or(i32::MAX))
}

fn bigint(value: i64) -> Expr {
    cast(lit(value), arrow::datatypes::DataType::Int64)
}
