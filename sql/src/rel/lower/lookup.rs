//! Lowers joins with a table as of a processing time: the table is looked up when a row comes.

use super::Lowering;
use crate::catalog::TableColumn;
use crate::error::{Position, Result, SqlError};
use crate::functions::checks::{Promise, guarded};
use crate::rel::changes::check_append_only;
use crate::rel::lookup::Lookup;
use crate::rel::prepare::{Prepared, place, prepare, prepare_over};
use crate::rel::{Rel, RelId, Role};
use crate::types::sql_name;
use arrow::datatypes::DataType;
use datafusion_common::Column;
use datafusion_expr::utils::conjunction;
use datafusion_expr::{BinaryExpr, Expr, Join, JoinType, LogicalPlan, Operator, try_cast};
use tidemill_engine::lookup::LookupJoinKind;

const HINT: &str = "write stream JOIN table FOR SYSTEM_TIME AS OF stream.p ON stream.key = table.key, where p AS PROCTIME() is a \
                    column of the stream's table";

impl Lowering<'_> {
    /// Lowers a join as of a `time`, with the other parts of its condition, and conditions on its rows that stand above it.
    /// The clock of the time says which kind of join it is.
    pub(super) fn join_as_of(
        &mut self,
        join: &Join,
        conditions: &[&Expr],
        time: &Expr,
        above: Vec<Expr>,
    ) -> Result<RelId> {
        // What speaks of the stream only is asked before the table is. A condition on the table must not be: it would bring
        // older versions back.
        let stream = join.left.schema();
        let of_stream = |column: &&Column| stream.index_of_column(column).is_ok();
        let reads_stream = |expr: &Expr| {
            let columns = expr.column_refs();
            !columns.is_empty() && columns.iter().all(of_stream) && !expr.is_volatile()
        };
        let (before, behind): (Vec<Expr>, Vec<Expr>) = above.into_iter().partition(reads_stream);
        let left = self.lower_filtered(&join.left, before)?;
        let is_processing_time = time.column_refs().iter().all(of_stream) && {
            let time = prepare(time, stream, self.rels.get(left)).map_err(|error| error.or_at(self.at))?;
            time.role == Role::ProcessingTime
        };
        match is_processing_time {
            true => self.lookup_join(join, left, conditions, time, behind),
            false => self.temporal_join(join, left, conditions, time, behind),
        }
    }

    /// Lowers a join of an input as of a processing `time`, with the other parts of its condition, and conditions that are
    /// asked `behind` it.
    ///
    /// # Errors
    /// When it is of a table that cannot be looked up so.
    fn lookup_join(
        &mut self,
        join: &Join,
        input: RelId,
        conditions: &[&Expr],
        time: &Expr,
        behind: Vec<Expr>,
    ) -> Result<RelId> {
        let at = place(time).or_else(|| self.script.find_word(self.at, &["JOIN"]));
        let kind = match join.join_type {
            JoinType::Inner => LookupJoinKind::Inner,
            JoinType::Left => LookupJoinKind::Left,
            other => return Err(SqlError::at(at, format!("a {other} join as of a time is not supported")).hint(HINT)),
        };
        if !join.on.is_empty() {
            return Err(SqlError::internal("a join as of a time has conditions of its own"));
        }
        let (index, name) = self.looked_up(&join.right, at)?;
        let table = self.catalog.table_at(index);
        if let Some(column) = table.columns.iter().find(|column| !column.is_physical()) {
            let message = format!(
                "table {name} has the computed column {}, and a table with one cannot be looked up yet",
                column.name
            );
            return Err(SqlError::at(at, message).hint("compute it in the query instead"));
        }
        let typed = |column: &TableColumn| (column.name.clone(), column.sql_type.data_type.clone());
        let columns: Vec<_> = table.columns.iter().map(typed).collect();
        let width = self.rels.get(input).columns.len();
        let row = self.rels.joined_row(input, &name, &columns);
        let prepared =
            |expr: &Expr| prepare(expr, &join.schema, &row).map_err(|error| error.or_at(place(expr)).or_at(at));
        check_append_only(self.rels, input, "a join with a table as of a time", at)?;

        // What is equal makes the key; all else is looked at when the rows are there.
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for condition in conditions {
            match self.looked_up_by(&prepared, condition, &row, width, at)? {
                Some(key) => keys.push(key),
                None => others.push((*condition).clone()),
            }
        }
        if keys.is_empty() {
            let message = format!("the join finds no rows of {name}: ON has no equality with a column of it");
            return Err(SqlError::at(at, message).hint("write ON stream.key = table.key"));
        }
        let residual = match conjunction(others) {
            Some(residual) => Some(self.residual(&prepared, &residual, at)?),
            None => None,
        };

        // The input with the keys that are no columns yet behind it.
        let source = self.rels.get(input);
        let mut outputs: Vec<(String, Prepared)> = source
            .columns
            .iter()
            .map(|column| (column.name.clone(), Prepared::column(column)))
            .collect();
        let mut pairs = Vec::with_capacity(keys.len());
        for (key, of_table) in keys {
            let known = match &key.expr {
                Expr::Column(column) => source.columns.iter().position(|known| known.name == column.name),
                _ => None,
            };
            let of_input = known.unwrap_or(outputs.len());
            if known.is_none() {
                outputs.push((format!("$key_{}", pairs.len()), key));
            }
            pairs.push((of_input, of_table));
        }
        let keyed = match outputs.len() == width {
            true => input,
            false => self.rels.calc(input, None, outputs),
        };
        let row = self.rels.joined_row(keyed, &name, &columns);
        let lookup = Lookup {
            table: index,
            columns: (0..columns.len()).collect(),
            names: row.columns.iter().map(|column| column.name.clone()).collect(),
            keys: pairs,
            kind,
            residual,
            outputs: (0..row.columns.len()).collect(),
        };
        let joined = self.rels.lookup_join(keyed, &name, row, lookup);
        let joined = self.without_keys(joined, width, index)?;
        self.keep(joined, behind, |lowering, predicate| {
            lowering.predicate(&predicate, &join.schema, joined)
        })
    }

    /// Returns the table that the right side of a join is.
    fn looked_up(&self, plan: &LogicalPlan, at: Option<Position>) -> Result<(usize, String)> {
        let mut plan = plan;
        while let LogicalPlan::SubqueryAlias(alias) = plan {
            plan = &alias.input;
        }
        let found = match plan {
            LogicalPlan::TableScan(scan) => self.catalog.scanned(scan.table_name.table()),
            _ => None,
        };
        match found {
            Some((index, table)) => Ok((index, table.name.value.clone())),
            None => Err(
                SqlError::at(at, "only a table can be joined as of a time, and this is a query")
                    .hint("join the table itself, and filter it with conditions in ON"),
            ),
        }
    }

    /// Returns the stream's side of an equality with a column of the table, and that column; `None` for another condition.
    fn looked_up_by(
        &self,
        prepared: &dyn Fn(&Expr) -> Result<Prepared>,
        condition: &Expr,
        row: &Rel,
        width: usize,
        at: Option<Position>,
    ) -> Result<Option<(Prepared, usize)>> {
        let Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) = condition
        else {
            return Ok(None);
        };
        for (of_stream, of_table) in [(left, right), (right, left)] {
            let (stream, table) = (prepared(of_stream)?, prepared(of_table)?);
            let Expr::Column(column) = &table.expr else { continue };
            let found = row.columns[width..].iter().position(|known| known.name == column.name);
            let Some(found) = found else { continue };
            if reads_table(&stream, row, width) {
                continue;
            }
            let wanted = &table.data_type;
            let key = match (&stream.data_type, wanted) {
                (found, wanted) if found == wanted => stream,
                // What the column cannot hold equals nothing in it.
                (found, wanted) if found.is_integer() && wanted.is_integer() => {
                    prepare_over(try_cast(stream.expr, wanted.clone()), row)?
                }
                (found, wanted) => {
                    let (name, found, wanted) = (&column.name, sql_name(found), sql_name(wanted));
                    let message = format!("{name} is {wanted} and is looked up with a {found}");
                    let place = place(condition).or(at);
                    return Err(SqlError::at(place, message).hint(format!("cast the other side to {wanted}")));
                }
            };
            if !tidemill_engine::key::supports_key_type(wanted) {
                let message = format!("a {} cannot be looked up", sql_name(wanted));
                return Err(SqlError::at(place(condition).or(at), message).hint("compare a column with a single value"));
            }
            return Ok(Some((key, found)));
        }
        Ok(None)
    }

    fn residual(
        &self,
        prepared: &dyn Fn(&Expr) -> Result<Prepared>,
        condition: &Expr,
        at: Option<Position>,
    ) -> Result<Prepared> {
        let residual = prepared(condition)?;
        if residual.data_type != DataType::Boolean {
            let message = format!(
                "a condition must be BOOLEAN, and this one is {}",
                sql_name(&residual.data_type)
            );
            return Err(SqlError::at(place(condition).or(at), message).hint("compare it with something"));
        }
        Ok(residual)
    }

    /// Takes the keys out that stand behind the stream's columns, and guards what the table's columns promise.
    fn without_keys(&mut self, joined: RelId, width: usize, table: usize) -> Result<RelId> {
        let table = self.catalog.table_at(table);
        let rel = self.rels.get(joined);
        let first = rel.columns.len() - table.columns.len();
        let mut outputs = Vec::with_capacity(width + table.columns.len());
        for column in &rel.columns[..width] {
            outputs.push((column.name.clone(), Prepared::column(column)));
        }
        let mut is_plain = first == width;
        for (column, known) in rel.columns[first..].iter().zip(&table.columns) {
            let value = match known.sql_type.length {
                Some(length) => {
                    is_plain = false;
                    let value = Expr::Column(Column::new_unqualified(&column.name));
                    prepare_over(
                        guarded(value, Promise::Length(length), &table.name.value, &known.name),
                        rel,
                    )?
                }
                None => Prepared::column(column),
            };
            outputs.push((column.name.clone(), value));
        }
        Ok(match is_plain {
            true => joined,
            false => self.rels.calc(joined, None, outputs),
        })
    }
}

/// Says whether an expression over the joined row reads the table.
fn reads_table(expr: &Prepared, row: &Rel, width: usize) -> bool {
    let named = |column: &&Column| row.columns[width..].iter().any(|known| known.name == column.name);
    expr.expr.column_refs().iter().any(named)
}
