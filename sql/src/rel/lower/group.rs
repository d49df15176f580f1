//! Lowers `GROUP BY` without a window, and `DISTINCT`: results that change with every row.

use super::{Columns, Lowering, Prepared, RelId, key_name};
use crate::error::{Position, Result, SqlError};
use crate::functions::window::WindowSide;
use crate::rel::prepare::place;
use crate::types::sql_name;
use arrow::datatypes::DataType;
use datafusion_expr::Aggregate;

impl Lowering<'_> {
    /// Lowers an aggregation by keys of any kind: a projection of what is needed, the aggregation, and a projection in the
    /// query's order.
    pub(super) fn group_aggregate(
        &mut self,
        aggregate: &Aggregate,
        input: RelId,
        groups: &[Prepared],
        at: Option<Position>,
    ) -> Result<RelId> {
        let names = aggregate.input.schema();
        let mut columns = Columns::default();
        let mut keys = Vec::new();
        for (group, expr) in groups.iter().zip(&aggregate.group_expr) {
            check_key(&group.data_type, place(expr).or(at))?;
            let key = columns.add(key_name(expr, group), group.clone());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let mut calls = Vec::new();
        for expr in &aggregate.aggr_expr {
            calls.push(self.call(expr, names, input, &mut columns, at)?);
        }
        // What is read of the input; only to count rows, nothing is.
        let grouped: Vec<Option<usize>> = groups
            .iter()
            .map(|group| {
                let column = columns.find(group)?;
                keys.iter().position(|key| *key == column)
            })
            .collect();
        let read = match columns.0.is_empty() {
            true => input,
            false => self.rels.calc(input, None, columns.0),
        };
        let count = keys.len();
        let aggregated = self.rels.group_aggregate(read, keys, calls);
        let aggregated = aggregated.map_err(|error| error.or_at(at))?;

        let rel = self.rels.get(aggregated);
        let schema = aggregate.schema.fields();
        let mut outputs = Vec::new();
        for (index, key) in grouped.into_iter().enumerate() {
            let key = key.ok_or_else(|| SqlError::internal("a grouping key was lost"))?;
            outputs.push((schema[index].name().clone(), Prepared::column(&rel.columns[key])));
        }
        for index in 0..aggregate.aggr_expr.len() {
            let column = &rel.columns[count + index];
            outputs.push((schema[groups.len() + index].name().clone(), Prepared::column(column)));
        }
        Ok(self.rels.calc(aggregated, None, outputs))
    }

    /// Keeps of equal rows one.
    pub(super) fn distinct(&mut self, input: RelId) -> Result<RelId> {
        let at = self.script.find_word(self.at, &["DISTINCT", "UNION"]);
        for column in &self.rels.get(input).columns {
            check_key(&column.data_type, at)?;
        }
        let keys = (0..self.rels.get(input).columns.len()).collect();
        self.rels.group_aggregate(input, keys, Vec::new())
    }
}

/// Says whether a query groups by a window, or tries to.
pub(super) fn names_window(groups: &[Prepared]) -> bool {
    let is_bound = |side| matches!(side, WindowSide::Start | WindowSide::End);
    let mut windows = groups.iter().filter_map(|group| group.role.as_window());
    windows.any(|(_, side, _)| is_bound(side))
}

/// Refuses keys whose values cannot be told apart.
pub(super) fn check_key(data_type: &DataType, at: Option<Position>) -> Result<()> {
    if tidemill_engine::key::supports_key_type(data_type) {
        return Ok(());
    }
    let error = SqlError::at(at, format!("{} cannot be grouped by", sql_name(data_type)));
    Err(error.hint(match data_type {
        DataType::Struct(_) => "group by its fields: column.field",
        _ => "cast it to STRING",
    }))
}
