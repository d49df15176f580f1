//! Adds aggregations without a window.

use super::{AggregateCall, Identity, Names, Rel, RelColumn, RelId, RelKind, Rels, Role};
use crate::error::{Result, SqlError};
use crate::functions::aggregates::AggregateKind;

impl Rels {
    /// Adds an aggregation per key over everything that has come. Its columns: keys, aggregates.
    ///
    /// # Errors
    /// When an aggregate does not take its argument, or cannot take rows back and must.
    pub(crate) fn group_aggregate(
        &mut self,
        input: RelId,
        keys: Vec<usize>,
        calls: Vec<AggregateCall>,
    ) -> Result<RelId> {
        let source = self.get(input);
        let mut words = vec!["aggregate".to_owned(), source.rows.text().to_owned()];
        let mut names = Names::default();
        let mut columns: Vec<RelColumn> = Vec::new();
        for key in &keys {
            let column = source.columns[*key].clone();
            words.push(format!("key {}", column.identity.text()));
            columns.push(RelColumn {
                name: names.unique(&column.name),
                role: Role::Plain,
                ..column
            });
        }
        for call in &calls {
            let function = call.function(&|index| &source.columns[index].data_type)?;
            // Sets are of the operator's own.
            if source.changes && function.distinct_values().is_none() {
                let hint = match call.kind {
                    AggregateKind::Min | AggregateKind::Max => "cast the argument",
                    AggregateKind::Variance(_) => {
                        "aggregate rows that stay: those of the table, or of a window; or make it of COUNT(x), SUM(x) and \
                         SUM(x * x), which can take rows back"
                    }
                    _ => "aggregate rows that stay: those of the table, or of a window",
                };
                let made = function.changing_accumulator();
                made.map_err(|error| SqlError::new(error.to_string()).hint(hint))?;
            }
            columns.push(call.column(source, &mut names, &mut words)?);
        }
        let rows = Identity::of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        // What a column means depends on the rows it is in.
        for column in &mut columns {
            column.identity = Identity::of(&["of", rows.text(), column.identity.text(), &column.name]);
        }
        let changes = source.changes || !calls.is_empty();
        let key = format!("aggregate {} {}", input.0, rows.text());
        let rel = Rel {
            kind: RelKind::GroupAggregate { input, keys, calls },
            columns,
            rows,
            changes,
        };
        Ok(self.add(key, rel))
    }
}
